"""`tans space fit`: fit a space to files that the TANS authors published."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

if TYPE_CHECKING:
    from torch import Tensor

    from tans_core.published.fit import PublishedData
    from tans_core.published.paper import PaperSpace
    from tans_core.space.encoders import CrossModalSpace
    from tans_core.space.training import Precision

EXAMPLES = examples(
    ("tans space fit", "fit the networks that `tans space import` read"),
    ("tans space fit --objective paper", "the same, exactly as published"),
    ("tans space fit --objective paper --prediction-weight 100 --steps 2000", "so that its predictor learns too"),
    (
        "tans space fit --store data/mine --heldout 0 --json",
        "on every network of another store, none held out; as JSON",
    ),
)


class LossPrecision(StrEnum):
    """Number format in which the loss is computed."""

    FP32 = "fp32"
    BF16 = "bf16"


class Objective(StrEnum):
    """Encoders and loss that are fitted."""

    TANS = "tans"
    PAPER = "paper"


def fit(
    store: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The store that an import made; data/published by default.")
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="tans: what this project serves; paper: encoders and loss exactly as published.")
    ] = Objective.TANS,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Training steps, one batch each; by default 800 for tans, 1000 for paper."
        ),
    ] = None,
    prediction_weight: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="X", help="Weight of the loss of the paper's predictor; by default 1, as published."
        ),
    ] = None,
    precision: Annotated[
        LossPrecision, typer.Option(help="bf16 computes the loss under autocast, for a GPU and large spaces.")
    ] = LossPrecision.FP32,
    heldout: Annotated[
        float,
        typer.Option(min=0, max=0.9, metavar="X", help="Share of each data set's networks that are only measured."),
    ] = 0.25,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write the space to; beside the store by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, steps, and the held-out networks.")] = 0,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Fit a space to imported files, and measure how well it finds networks that it was not fitted on."""
    import shutil

    from tans_core.project import find_root

    if objective is Objective.TANS and prediction_weight is not None:
        raise typer.BadParameter("--prediction-weight needs --objective paper.")
    source = store if store is not None else find_root(root) / "data/published"
    folder = out if out is not None else source.with_name(f"{source.name}-space")
    _check_out(folder)
    with stderr().status("reading the store"):
        from tans_core.embeddings.store import read_digests
        from tans_core.io import atomic_folder
        from tans_core.published.fit import hold_out_at_random
        from tans_core.published.store import read_published
        from tans_core.runtime import clock, one_thread

        one_thread()
        data = read_published(source)
        digests = read_digests(source, "models", "task_features")
    unseen = hold_out_at_random(data.home, heldout, seed)
    resume, seconds = folder.with_name(f".{folder.name}.resume"), clock()
    run_fit = _fit_tans if objective is Objective.TANS else partial(_fit_paper, prediction_weight=prediction_weight)
    space, recipe, metrics = run_fit(data, unseen, seed, resume, steps, precision.value)
    result: dict[str, Any] = {
        "objective": str(objective),
        "recipe": recipe,
        "seed": seed,
        "made_from": digests,
        "tasks": len(data.tasks),
        "networks": len(data.home),
        "heldout_networks": int(unseen.sum()),
        "metrics": metrics,
    }
    with atomic_folder(folder) as temporary:
        space.save(temporary, result)
    shutil.rmtree(resume, ignore_errors=True)
    if as_json:
        print_json({**result, "seconds": round(seconds(), 3), "out": str(folder)})
        return
    _show(result)
    stdout().print(f"{folder}: space.safetensors, space.json", markup=False, highlight=False, soft_wrap=True)


def _fit_tans(
    data: PublishedData, unseen: Tensor, seed: int, resume: Path, steps: int | None, precision: Precision
) -> tuple[CrossModalSpace, dict[str, Any], dict[str, dict[str, float]]]:
    from dataclasses import asdict, replace

    from tans_core.published.fit import PUBLISHED_RECIPE, fit_tans

    recipe = replace(PUBLISHED_RECIPE, steps=steps or PUBLISHED_RECIPE.steps, precision=precision)
    space, metrics = fit_tans(data, unseen, recipe, seed, resume)
    return space, asdict(recipe), metrics


def _fit_paper(
    data: PublishedData,
    unseen: Tensor,
    seed: int,
    resume: Path,
    steps: int | None,
    precision: Precision,
    prediction_weight: float | None,
) -> tuple[PaperSpace, dict[str, Any], dict[str, dict[str, float]]]:
    from dataclasses import asdict

    from tans_core.published.paper import PaperRecipe, fit_paper, measure_paper

    weight = 1.0 if prediction_weight is None else prediction_weight
    recipe = PaperRecipe(steps=steps or 1000, prediction_weight=weight, precision=precision)
    space, _ = fit_paper(data, unseen, recipe, seed, resume)
    return space, asdict(recipe), measure_paper(space, data, unseen)


def _check_out(folder: Path) -> None:
    from tans_core.errors import StoreError
    from tans_core.io import read_json

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        # The pipeline's own space has no such key.
        made_by_fit = "made_from" in read_json(folder / "space.json")
    except (OSError, ValueError, LookupError, TypeError):
        made_by_fit = False
    if not made_by_fit:
        raise StoreError(f"{folder}: exists, and `tans space fit` did not make it. Name another folder: --out FOLDER.")


def _show(result: dict[str, Any]) -> None:
    counts = {
        "heldout": ("held out", result["heldout_networks"]),
        "insample": ("fitted on", result["networks"] - result["heldout_networks"]),
    }
    numbers = ("networks", "R@1", "R@5", "R@10", "mean rank", "Spearman", "regret", "by chance", "MSE")
    keys = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "spearman", "regret", "chance_regret", "mse")
    shown = table("", *numbers, right=numbers)
    for group, (name, count) in counts.items():
        if metrics := result["metrics"][group]:
            values = (f"{metrics[key]:.{2 if key == 'mean_rank' else 3}f}" if key in metrics else "" for key in keys)
            shown.add_row(name, f"{count:,}", *values)
    stdout().print(shown, markup=False)
