"""One release of a project, in memory: the API, the command and the flows send their requests to it.

A release is read once. The options of a request are checked before any of its images is read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tans_core.dataset import Opened, QueryLimits, open_dataset, query_gate, scan_path
from tans_core.errors import ParamsError
from tans_core.imports import uncollected
from tans_core.io import write_json
from tans_core.options import FinetuneOptions, RetrieveOptions
from tans_core.project import find_root, name_of, provenance, run_folder
from tans_core.results import FinetuneRun, Retrieval, write_report
from tans_core.retrieval.candidate import POOL
from tans_core.retrieval.constraints import Constraints
from tans_core.retrieval.query import Query
from tans_core.text import count

if TYPE_CHECKING:
    from tans_core.answers import Explainer
    from tans_core.dataset import Scanned
    from tans_core.gates.query import QueryGate
    from tans_core.index.release import Release
    from tans_core.reporting import Report
    from tans_core.retrieval.limits import Fitting
    from tans_core.retrieval.retriever import Retriever
    from tans_core.tasks.task import Task

CHECKPOINTS = ".resume/finetune"
"""Below the project: what killed fine-tunings go on from."""


class Service:
    """Answers requests from one release. Its parts are read when the first request needs them; `warm` reads them all.

    Attributes:
        project: the project's folder, where runs are written.
        release: the release that is read.
    """

    def __init__(self, project: Path, release: Release) -> None:
        self.project, self.release = project, release
        self._ready: QueryGate | None = None
        self._is_warm = False
        self._limits: tuple[object, QueryLimits] | None = None
        self._turn = threading.Lock()

    @classmethod
    def open(cls, root: str | Path | None = None) -> Self:
        """Open a project's release in production.

        Args:
            root: the project's folder; None takes the nearest one that holds params.yaml, from here upwards.

        Raises:
            NoReleaseError: nothing was published yet.
            StoreError: the release cannot be read.
        """
        from tans_core.index.release import open_production

        project = find_root(root)
        return cls(project, open_production(project / "serving"))

    @cached_property
    def retriever(self) -> Retriever:
        """The release's encoders and index, in memory."""
        with uncollected():
            from tans_core.retrieval.retriever import Retriever

        return Retriever.open(self.release, self.project / "latency")

    @cached_property
    def explainer(self) -> Explainer:
        """What explains the answers of the release."""
        from tans_core.answers import Explainer  # imports scikit-learn

        return Explainer(self.retriever, self.project / "data")

    def load(self) -> Self:
        """Read encoders, index and backbone."""
        reader = self.retriever
        _ = reader.index, reader.cards, reader.plus_minus, reader.refine_weights
        _ = reader.encoder.backbone, reader.encoder.digest
        return self

    def warm(self) -> Self:
        """Do as `load`, and keep a gate's process ready for the next request until `close`."""
        self.load()
        with self._turn:
            self._is_warm = True
            self._ready = self._ready or self._start_gate()
        return self

    def close(self) -> None:
        """End the gate's process that waits for the next request."""
        with self._turn:
            self._is_warm = False
            ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def limits(self) -> QueryLimits:
        """The limits that images must meet: from the project's params.yaml as it is now, else from the release."""
        path = self.project / "params.yaml"
        status = path.stat() if path.is_file() else None
        stamp = None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._limits is None or self._limits[0] != stamp:  # reading YAML takes as long as a search
            self._limits = stamp, QueryLimits.of(self.project, self.release.params)
        return self._limits[1]

    def retrieve(
        self, dataset: str | Path | Task | Query, options: RetrieveOptions | None = None, html: Path | None = None
    ) -> Retrieval:
        """Find the networks to start from for a data set; see `tans_core.api.retrieve`. `html`: a page to write."""
        options = options or RetrieveOptions()
        images: Task | None = None
        pool = 0 if html is None else POOL
        if isinstance(dataset, Query):
            found = self._keep("query", self.search(dataset, options, pool=pool), options)
        else:
            with self._gate(dataset) as gate:
                fitting = self.retriever.fitting(options)
                opened = open_dataset(dataset, self.project, self.limits, gate, group=options.group)
            found = self._keep(dataset, self._ranked(opened, options, fitting, pool), options)
            images = opened.task
        if html is not None:
            self.explainer.write_page(html, found, options, images)
        return found

    def search(
        self,
        dataset: Path | Query,
        options: RetrieveOptions,
        scratch: Path | None = None,
        max_images: int | None = None,
        pool: int = 0,
    ) -> Retrieval:
        """Find the networks to start from, and write nothing to the project.

        Args:
            dataset: an archive or a table; or a query, for which no image is read.
            options: of the search.
            scratch: a folder of the caller's for decoded images; wanted for a path.
            max_images: open at most so many files, evenly over classes.
            pool: how many networks the answer keeps to explain it.

        Raises:
            ParamsError, NoModelFitsError, DataError, GateError: as `tans_core.api.retrieve`.
        """
        if isinstance(dataset, Query):
            options.check_query()
        fitting = self.retriever.fitting(options)
        if isinstance(dataset, Query):
            return self._ranked(dataset, options, fitting, pool)
        chosen: dict[str, Any] = {"group": options.group, "name": dataset.stem, "scratch": scratch}
        task, scan = scan_path(dataset, self.project, self.limits, None, max_images=max_images, **chosen)
        scan.verdict.raise_on_failure()
        assert task is not None
        return self._ranked(Opened(task, scan, scan.known), options, fitting, pool)

    def scan(self, path: Path, query: bool = False, **options: Any) -> tuple[Scanned, Query | None]:
        """Check the images of a path; the options are those of `tans_core.dataset.scan_path`.

        With `query`, also return what a search needs of the images; None if the gate refuses them.
        """
        name = path.stem if query else None
        task, scanned = scan_path(path, self.project, self.limits, None, name=name, **options)
        return scanned, None if task is None else self.retriever.query(task)

    def embed(self, dataset: str | Path | Task, group: str | None = None) -> Query:
        """Return what a search needs of a data set, without its images; see `tans_core.api.embed`."""
        with self._gate(dataset) as gate:
            opened = open_dataset(dataset, self.project, self.limits, gate, group=group)
        return self.retriever.query(opened.task)

    def finetune(
        self,
        dataset: str | Path | Task,
        options: FinetuneOptions | None = None,
        progress: bool = False,
        progress_file: Path | None = None,
    ) -> FinetuneRun:
        """Fine-tune one network on a data set, or the best of several; see `tans_core.api.finetune`.

        Args:
            dataset, options, progress: as there.
            progress_file: for another process, to read how far it is: `tans_core.reporting.Progress`.
        """
        from tans_core.reporting import Report

        options, report = options or FinetuneOptions(), Report(progress_file)
        with self._gate(dataset) as gate:
            fitting = self.check(options)
            opened = open_dataset(
                dataset,
                self.project,
                self.limits,
                gate,
                group=options.group,
                max_images=options.max_images,
                on_folder=lambda folder: report(folder=folder.name),
            )
        models = [options.model] if options.model is not None else []
        if not models:
            limits = {name: getattr(options, name) for name in Constraints.model_fields}
            # Some more than are asked for: with a budget, those whose run does not fit are left out.
            most = max(options.rank, options.top_k * (2 if options.budget else 1))
            search = RetrieveOptions(**limits, top_k=most, refine=options.refine)
            found = self._keep(dataset, self._ranked(opened, search, fitting), search)
            assert found.folder is not None
            report(folder=found.folder.name)
            models = [one.model for one in found[options.rank - 1 :]]
        return self._finetune(dataset, opened, models, options, progress, report)

    @contextmanager
    def _gate(self, dataset: str | Path | Task) -> Iterator[QueryGate | None]:
        with self._turn:
            ready, self._ready = self._ready, None
        try:
            with query_gate(dataset, self.project, ready) as gate:
                yield gate
        finally:
            with self._turn:
                unused = ready if gate is None else None
                if self._is_warm and self._ready is None:
                    self._ready, unused = unused or self._start_gate(), None
            if unused is not None:
                unused.close()

    @staticmethod
    def _start_gate() -> QueryGate:
        from tans_core.gates.query import start_query_gate

        return start_query_gate()

    def check(self, options: FinetuneOptions) -> Fitting | None:
        """Refuse a request that cannot be met, before the data set is read.

        Returns:
            The models within the limits; None if the options name the model.

        Raises:
            StoreError: no such model.
            WeightsError: its weights are missing.
            NoModelFitsError: no model satisfies the constraints.
            ParamsError: fewer models satisfy them than the rank needs.
        """
        if options.model is not None:
            self.release.resolve(self.retriever.card(options.model).weights)
            return None
        fitting = self.retriever.fitting(options)
        if options.rank > len(fitting):
            limits, models = options.in_words(), count(len(fitting), "model")
            within = f"within the limits ({limits})" if limits else "in production"
            advice = "Lower --rank, or relax a limit" if limits else "Lower --rank"
            raise ParamsError(
                f"--rank: got {options.rank}, want at most {len(fitting)}, for {models} {within}. {advice}."
            )
        return fitting

    def _ranked(
        self, dataset: Opened | Query, options: RetrieveOptions, fitting: Fitting | None, pool: int = 0
    ) -> Retrieval:
        task = dataset if isinstance(dataset, Query) else dataset.task
        choice = options.refine, options.prefer, options.per_task
        answer = self.retriever.retrieve(task, fitting, self._top_k(options), *choice, pool)
        candidates, release = tuple(answer.candidates), self.release.id
        if isinstance(dataset, Query):
            return Retrieval(candidates, None, release, None, None, answer=answer)
        return Retrieval(candidates, dataset.task.info, release, None, dataset.scan, dataset.known, answer)

    def _keep(self, dataset: str | Path | Task, found: Retrieval, options: RetrieveOptions) -> Retrieval:
        with run_folder(self.project, "retrieve") as folder:
            write_json(found.to_dicts(), folder / "candidates.json")
            write_json({**options.model_dump(mode="json"), "top_k": self._top_k(options)}, folder / "params.json")
            write_json(provenance(dataset, self.release.id), folder / "provenance.json")
            if found.scan is not None:
                found.scan.write(folder)
        return replace(found, folder=folder)

    def _top_k(self, options: RetrieveOptions) -> int:
        return options.top_k or int(self.release.params["retrieval"]["top_k"])

    def _finetune(
        self,
        dataset: str | Path | Task,
        opened: Opened,
        models: Sequence[str],
        options: FinetuneOptions,
        progress: bool,
        report: Report,
    ) -> FinetuneRun:
        from tans_core.finetuning.run import write_run
        from tans_core.finetuning.tuning import choose, leaderboard, tunings_of
        from tans_core.use.outcome import write_outcome

        task, scan, known = opened
        tunings = tunings_of(self.retriever, models, task, options, self.project / CHECKPOINTS, progress)
        # Made before the training: a folder without write permission is an error at once.
        with run_folder(self.project, "finetune") as folder:
            report(folder=folder.name)
            rivals = choose(list(tunings.values()), options.budget_s, lambda one: report(checkpoint=f"{one.key}.ckpt"))
            model = next(one.model for one in rivals if one.fits)
            tuning, network = tunings[model], tunings[model].build()
            with tuning.checkpoint() as checkpoint:
                report(run=folder.name, model=model, epochs=tuning.settings["epochs"])
                result = tuning.run(network, report.watched(checkpoint))
                if scan is not None:
                    scan.write(folder)
                outcome = write_outcome(folder, network, result, task, tuning.card)
                run = FinetuneRun(
                    model=model,
                    task=task.info,
                    release=self.release.id,
                    folder=folder,
                    curve=result.curve,
                    best_val_accuracy=result.best_val_accuracy,
                    test_accuracy=result.test_accuracy,
                    seconds=result.seconds,
                    scan=scan,
                    known=known,
                    test=outcome.judgement.to_dict(),
                    leaderboard=leaderboard(rivals, result.curve) if options.top_k > 1 else (),
                )
                write_report(run, result, outcome)
                asked = {**tuning.written, "batch_size": result.batch_size}
                asked |= {"dataset": name_of(dataset), "budget": options.budget}
                # The last: the folder has its weights when it is whole.
                of_run: dict[str, Any] = {"release": self.release.id, "known": known}
                write_run(folder, result=result, task=task, card=tuning.card, settings=asked, **of_run)
            for one in rivals:
                tunings[one.model].forget()
        return run
