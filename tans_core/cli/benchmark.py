"""`tans benchmark`: compare TANS with transferability scores and plain rules, by real fine-tunings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

if TYPE_CHECKING:
    from tans_core.params import Params
    from tans_core.space.data import SpaceData

EXAMPLES = examples(
    ("tans benchmark --networks 12 --minutes 20", "a part of the zoo, one seed; run again to go on"),
    ("tans benchmark --networks 48 --seeds 3", "the full benchmark: hours on two cores, each fine-tuning kept"),
    ("tans benchmark --networks 0", "only by the trials that the build made; minutes"),
)


def benchmark(
    networks: Annotated[
        int, typer.Option(min=0, metavar="N", help="Networks to fine-tune on each unseen task; 0 for none.")
    ] = 40,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Fine-tunings of each network on each task.")] = 1,
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Steps of a fine-tuning; `evaluate.steps` by default.")
    ] = None,
    points: Annotated[int, typer.Option(min=1, metavar="N", help="Validations during a fine-tuning.")] = 5,
    images: Annotated[
        int | None,
        typer.Option(
            min=4, metavar="N", help="Images that transferability scores may use; `transfer.probe_images` by default."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An unseen task; repeat it; all by default.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, metavar="M", help="Begin no fine-tuning after this time.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; one a core by default.")] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Rank a pool of networks by TANS, by transferability scores and by plain rules, and judge by fine-tunings."""
    import time

    from tans_core.params import load_params
    from tans_core.project import find_root

    begin = time.time()
    project = find_root(root)
    params = load_params(project)
    unseen = _choose(params, task or []) if networks else []
    with stderr().status("reading the store"):
        from tans_core.benchmark.pool import Setting
        from tans_core.benchmark.run import run_benchmark, write_benchmark
        from tans_core.finetuning.fits import Budget
        from tans_core.runtime import cores, one_thread
        from tans_core.zoo.weights import Base

        one_thread()
        precision = Base.open(project / "data/base").precision
        data = _read(project, params)
    count = steps or params.evaluate.steps
    setting = Setting(
        project / "data",
        project / ".resume/benchmark",
        Budget(count, params.finetune.batch_size, min(points, count), precision),
        params.finetune.model_dump(),
        images or params.transfer.probe_images,
        images or params.transfer.probe_images_per_class,
        None if minutes is None else begin + 60 * minutes,
    )
    numbers = [params.seed + index for index in range(seeds)]
    result = run_benchmark(setting, data, unseen, networks, numbers, jobs or cores())
    files = [str(path) for path in write_benchmark(result, project)]
    if as_json:
        print_json({**result.record, "files": files})
        return
    for key, title in (("unseen", "unseen tasks"), ("trials", "the zoo's own trials")):
        if key in result.record:
            _show(result.record[key], title)
    stdout().print("\n".join(files), markup=False, highlight=False, soft_wrap=True)


def _choose(params: Params, names: list[str]) -> list[str]:
    from tans_core.errors import UnknownTaskError, did_you_mean

    known = list(params.tasks.meta_test)
    if unknown := [name for name in names if name not in known]:
        hints = "; ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        raise UnknownTaskError(f"--task: no unseen task {hints}. There are: {', '.join(known)}.")
    return names or known


def _read(project: Path, params: Params) -> SpaceData:
    from tans_core.space.data import read_data

    space = params.space
    return read_data(
        project / "data/store",
        list(params.tasks.meta_train),
        heldout_share=space.heldout_share,
        samples=space.samples,
        images_per_sample=space.images_per_sample,
        seed=params.seed,
    )


def _show(group: dict[str, Any], title: str) -> None:
    columns = ("accuracy", "regret@1", "regret@3", "tau", "networks run", "seconds")
    shown = table(title, *columns, right=columns)
    for name, row in sorted(group["rankings"].items(), key=lambda item: (item[1]["regret_at_1"], item[0])):
        values = [row[key] for key in ("regret_at_1", "regret_at_3", "weighted_tau", "forward_passes", "seconds")]
        cells = [
            "–" if value is None else f"{value:.{digits}f}"
            for value, digits in zip(values, (1, 1, 2, 1, 2), strict=True)
        ]
        partly = "" if row["tasks"] == group["tasks"] else f" ({row['tasks']} tasks)"
        shown.add_row(name + partly, f"{row['accuracy']:.3f}", *cells)
    stdout().print(shown)
