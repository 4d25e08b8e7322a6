"""`tans space ablate`: measure how much each part of the space contributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

if TYPE_CHECKING:
    from tans_core.evaluation.ablation import Variant
    from tans_core.evaluation.ablation_data import Built
    from tans_core.params import Params

EXAMPLES = examples(
    ("tans space ablate", "every variant, five seeds each; takes about an hour, and continues if it was interrupted"),
    ("tans space ablate --only no-topology --only no-trials --seeds 3", "two variants and the full objective"),
    ("tans space ablate --only dim-32 --json", "one, as JSON"),
)
_DIGITS = {"weighted_tau": 3, "regret_at_1": 2, "regret_at_3": 2, "recall_at_1": 3}
_TITLES = {"weighted_tau": "tau", "regret_at_1": "regret@1", "regret_at_3": "regret@3", "recall_at_1": "R@1"}


def ablate(
    seeds: Annotated[int, typer.Option(min=2, metavar="N", help="Trainings per variant and fold.")] = 5,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A variant to measure besides the full objective, and to add to the record; repeat it for several.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The picture to write; plots/ablation.png by default.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Fit the space without each of its parts, and measure the loss of quality on sources that it was not fitted on."""
    import shutil

    from tans_core.params import load_params
    from tans_core.project import find_root

    project = find_root(root)
    params, done = load_params(project), project / ".resume/ablate"
    with stderr().status("reading the store"):
        from tans_core.evaluation.ablation import compare_variants, known_variants, with_earlier
        from tans_core.evaluation.ablation_data import judged_tasks, make_studies
        from tans_core.evaluation.ablation_fits import measure_variants
        from tans_core.evaluation.ablation_plot import draw_ablation
        from tans_core.evaluation.plots import to_png
        from tans_core.io import atomic_path, read_json, write_json
        from tans_core.runtime import cores, one_thread
        from tans_core.space.fit import source_folds

        one_thread()
        variants, left_out = _choose(params, only or [])
        built = _read(project, params)
    studies, impossible = make_studies(variants, _recipe(params), built, done)
    data, folds = studies[0].data, params.space.folds
    compared = compare_variants(measure_variants(studies, folds, seeds, params.seed, cores(), done))
    made: dict[str, Any] = {
        "seeds": seeds,
        "folds": len(source_folds(data.sources, folds)),
        "tasks": len(data.tasks),
        "judged_tasks": judged_tasks(data),
        "networks": len(data.home),
        "variants": compared,
        "left_out": left_out | impossible,
    }
    record = project / "metrics/ablation.json"
    if only and record.is_file():
        earlier = read_json(record)
        made = with_earlier(made, earlier)
        if dropped := earlier.get("variants", {}).keys() - made["variants"]:
            notice = f"{record}: {len(dropped)} variants are dropped: they were compared with another full objective."
            stderr().print(notice, markup=False, highlight=False, soft_wrap=True)
    backbones = [name.removeprefix("backbone-") for name in made["variants"] if name.startswith("backbone-")]
    every = known_variants(params.embed.projection_dim, backbones)
    labels = {one.name: one.label for one in every if one.name in made["variants"]}
    picture = project / "plots/ablation.png" if out is None else out
    if picture.suffix != ".png":
        picture = picture.with_name(f"{picture.name}.png")
    note = f"{seeds} seeds, {made['judged_tasks']} tasks"
    with atomic_path(picture) as temporary:
        temporary.write_bytes(to_png(draw_ablation({name: made["variants"][name] for name in labels}, labels, note)))
    write_json(made, record)
    # The fits are kept only to continue an interrupted run, not as a cache.
    shutil.rmtree(done, ignore_errors=True)
    files = [str(record), str(picture)]
    if as_json:
        print_json({**made, "files": files})
        return
    _show(made)
    stdout().print("\n".join(files), markup=False, highlight=False, soft_wrap=True)


def _choose(params: Params, only: Sequence[str]) -> tuple[list[Variant], dict[str, str]]:
    from tans_core.errors import ParamsError, did_you_mean
    from tans_core.evaluation.ablation import known_variants
    from tans_core.evaluation.ablation_data import backbones_here

    backbones = backbones_here(params.embed.backbone)
    known = {one.name: one for one in known_variants(params.embed.projection_dim, backbones)}
    left_out = {} if backbones else {"backbone": "no other backbone's weights are on this machine"}
    if unknown := [name for name in only if name not in known]:
        lines = "\n  ".join(f"{name!r}: no such variant{did_you_mean(name, known)}" for name in unknown)
        raise ParamsError(f"--only:\n  {lines}\n  There are: {', '.join(known)}.")
    full = next(iter(known))
    return [one for name, one in known.items() if not only or name in (full, *only)], left_out


def _recipe(params: Params) -> Any:
    from dataclasses import fields

    from tans_core.space.objective import SpaceRecipe

    return SpaceRecipe(**{field.name: getattr(params.space, field.name) for field in fields(SpaceRecipe)})


def _read(project: Path, params: Params) -> Built:
    from functools import partial

    from tans_core.embeddings.scores import ScoreRows
    from tans_core.embeddings.store import FeatureRows, ModelRows
    from tans_core.evaluation.ablation import Inputs
    from tans_core.evaluation.ablation_data import Built
    from tans_core.space.data import assemble

    store, embed, space = project / "data/store", params.embed, params.space
    tasks = tuple(params.tasks.meta_train)
    return Built(
        data=project / "data",
        models=ModelRows.read(store),
        features=FeatureRows.read(store),
        scores=ScoreRows.read(store),
        tasks=tasks,
        inputs=Inputs(
            anchors_per_task=embed.anchors_per_task,
            images_per_class=embed.images_per_class,
            backbone=embed.backbone,
        ),
        projection_seed=embed.projection_seed,
        projection_dim=embed.projection_dim,
        assemble=partial(
            assemble,
            tasks=tasks,
            heldout_share=space.heldout_share,
            samples=space.samples,
            images_per_sample=space.images_per_sample,
            seed=params.seed,
        ),
    )


def _show(made: dict[str, Any]) -> None:
    from tans_core.evaluation.ablation_plot import signed

    columns = [column for title in _TITLES.values() for column in (title, "±", "difference")]
    shown = table("variant", *columns, right=tuple(columns))
    order = sorted(made["variants"], key=lambda name: -made["variants"][name]["weighted_tau"]["mean"])
    for name in order:
        cells = []
        for metric, digits in _DIGITS.items():
            value = made["variants"][name][metric]
            difference = signed(value["difference"], digits) + ("*" if value["beyond"] else " ")
            cells += [f"{value['mean']:.{digits}f}", f"{value['std']:.{digits}f}", difference]
        shown.add_row(name, *cells)
    console = stdout()
    console.print(shown, markup=False)
    caption = (
        f"{made['seeds']} seeds, {made['folds']} folds of sources, {made['judged_tasks']} of {made['tasks']} "
        f"tasks judged, {made['networks']:,} networks. Differences are to the full objective; * greater than both "
        "spreads together."
    )
    console.print(caption, markup=False, highlight=False, soft_wrap=True)
    for name, reason in made["left_out"].items():
        console.print(f"left out: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
