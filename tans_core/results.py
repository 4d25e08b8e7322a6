"""Results of the functions of `tans_core.api`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tans_core.io import write_json
from tans_core.known import say_known

if TYPE_CHECKING:
    import pandas as pd

    from tans_core.dataset import Scanned
    from tans_core.finetuning.finetune import FinetuneResult
    from tans_core.retrieval.ranking import Answer
    from tans_core.retrieval.retriever import Candidate
    from tans_core.tasks.task import TaskInfo
    from tans_core.use.outcome import Outcome


@dataclass(frozen=True)
class Retrieval(Sequence["Candidate"]):
    """The models that were found for one data set, best first. A sequence of candidates.

    Attributes:
        candidates: each with rank, model, home_task, source, licence, similarity, capacity, start, fit, trust,
            predicted_score, plus_minus, score (they are ranked by it), home_accuracy, params_m, macs_m and probe.
        task: the data set's class names, sizes, counts; None for a query, which has only statistics.
        release: id of the release that was searched.
        folder: `runs/<id>` with `candidates.json`, `params.json`, `provenance.json`; for a path also `scan.json` and
            `scan.html`. None if nothing was written.
        scan: the scan's `report` and the gate's `verdict` for a path; None for a task of the project.
        known: by task of the zoo, how many of the images the zoo was trained on.
        answer: what the candidates were found by; a page explains them by it.
    """

    candidates: tuple[Candidate, ...]
    task: TaskInfo | None
    release: str
    folder: Path | None
    scan: Scanned | None
    known: Mapping[str, int] = field(default_factory=dict)
    answer: Answer | None = field(default=None, repr=False, compare=False)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self.candidates[index]

    def __len__(self) -> int:
        return len(self.candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    @property
    def warning(self) -> str:
        """That the zoo was trained on some of the images, in a sentence; empty if it was not."""
        return say_known(self.known, sum(self.task.counts.values())) if self.known and self.task else ""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per candidate, best first."""
        return [candidate.to_dict() for candidate in self.candidates]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `tans retrieve --json` prints them."""
        return {
            "candidates": self.to_dicts(),
            "folder": str(self.folder) if self.folder else None,
            "known": dict(self.known),
            "release": self.release,
            "scan": self.scan.to_dict() if self.scan else None,
            "task": asdict(self.task) if self.task else None,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per candidate, best first."""
        import pandas as pd

        return pd.DataFrame(self.to_dicts())

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, float_format="{:.3f}".format))


@dataclass(frozen=True)
class FinetuneRun:
    """One model after its fine-tuning on one data set.

    Attributes:
        model: the zoo's id of the model that it started from.
        task: the data set's class names, sizes, counts.
        release: id of the release that the model came from.
        folder: `runs/<id>` with `weights.safetensors`, `card.json`, `predict.json`, `report.html`, … (docs/use.md).
        curve: one dict per point: step, epoch, train_loss, val_accuracy (0..1), seconds; and val_balanced where the
            classes are uneven: the mean of the classes' accuracies, by which the weights were chosen.
        best_val_accuracy: of the weights that were kept, on the validation split, 0..1.
        test_accuracy: of the same weights, on the test split, 0..1; nothing was chosen by it.
        seconds: of training and measuring.
        scan: the scan's `report` and the gate's `verdict` for a path; None for a task of the project.
        known: by task of the zoo, how many of the images the zoo was trained on; if any, `test_accuracy` is too high.
        test: figures of the test split: intervals, classes, confusions, calibration (`tans_core.use.judge.Judgement`).
        leaderboard: with `top_k`, a dict for each network that was considered, this one first: rank, model,
            val_accuracy (the best on its way; None if it was not trained), epochs, seconds, outcome.
    """

    model: str
    task: TaskInfo
    release: str
    folder: Path
    curve: list[dict[str, Any]]
    best_val_accuracy: float
    test_accuracy: float
    seconds: float
    scan: Scanned | None
    known: Mapping[str, int] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    leaderboard: Sequence[Mapping[str, Any]] = ()

    @property
    def warning(self) -> str:
        """Why the test accuracy is too high, in a sentence; empty if no such reason is known."""
        return say_known(self.known, sum(self.task.counts.values()), "this test accuracy") if self.known else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `tans finetune --json` prints them."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        scan = self.scan.to_dict() if self.scan else None
        maps = {"known": dict(self.known), "test": dict(self.test)}
        return {**plain, **maps, "folder": str(self.folder), "scan": scan, "task": asdict(self.task)}


def write_report(run: FinetuneRun, result: FinetuneResult, outcome: Outcome) -> None:
    """Write `report.html` of a run, and `leaderboard.json` of several."""
    from tans_core.views.run_page import write_run_page

    if run.leaderboard:
        write_json(run.leaderboard, run.folder / "leaderboard.json")
    judged, size = outcome.judgement, result.preprocess.image_size_px
    facts = [
        ("Validation accuracy", f"{run.best_val_accuracy:.3f}"),
        ("Images", ", ".join(f"{count:,} {split}" for split, count in run.task.counts.items())),
        ("Input", f"{size} × {size} px"),
        ("Parameters", f"{result.params_m:.2f} M"),
        ("MACs of one image", f"{result.macs_m:.1f} M"),
        ("Temperature", f"{outcome.card.temperature:.2f}"),
        ("Calibration error", f"{judged.calibration_error:.3f} (before: {judged.calibration_error_before:.3f})"),
        ("Time", f"{run.seconds:.1f} s"),
    ]
    if "val_balanced" in run.curve[0]:
        facts.insert(1, ("Balanced validation accuracy", f"{max(one['val_balanced'] for one in run.curve):.3f}"))
    write_run_page(
        run.folder / "report.html",
        title=(run.model, run.task.name),
        facts=facts,
        curve=run.curve,
        best_step=result.best_step,
        judgement=judged,
        mistakes=outcome.mistakes,
        warning=run.warning,
        leaderboard=run.leaderboard,
    )
