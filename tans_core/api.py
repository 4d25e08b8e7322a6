"""The Python API: what `tans` does, as functions. `import tans_core as tans` offers all of it.

Units: parameters and multiply-accumulates in millions, accuracies and similarities as fractions, times in seconds.
Errors are the classes of `tans_core.errors`; their messages say what to do next.
Whatever needs torch, LanceDB or pyarrow is imported inside the functions: importing this module is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.dataset import ScanRun, check_save_name, open_dataset, path_of, query_gate, scan_path
from tans_core.errors import ParamsError
from tans_core.io import write_json
from tans_core.project import SAVED_TASKS, find_root, name_of, new_run_folder, provenance, reproduce, task_infos
from tans_core.results import FinetuneRun, Retrieval
from tans_core.retrieval.candidate import REFINED

if TYPE_CHECKING:
    from tans_core.dataset import Scanned
    from tans_core.index.releases import Release
    from tans_core.retrieval.retriever import Constraints, Retriever
    from tans_core.tasks.task import Task, TaskInfo
    from tans_core.zoo.card import ModelCard


__all__ = [
    "FinetuneRun",
    "Retrieval",
    "ScanRun",
    "build",
    "finetune",
    "list_models",
    "list_releases",
    "list_tasks",
    "model_card",
    "publish",
    "retrieve",
    "rollback",
    "scan",
]


def retrieve(
    dataset: str | Path | Task,
    *,
    max_params_m: float | None = None,
    max_macs_m: float | None = None,
    licences: Sequence[str] | None = None,
    top_k: int | None = None,
    refine: int = 0,
    root: str | Path | None = None,
) -> Retrieval:
    """Find the pretrained networks to start from for a data set, without running them on it unless asked to.

    Args:
        dataset: the name of a task of the project, a `Task`, or a path: a folder of class folders, a zip or tar of one, a CSV of
            paths and labels, a Parquet file with images (`scan`).
        max_params_m: the most parameters, in millions.
        max_macs_m: the most multiply-accumulates of one image, in millions.
        licences: licences that the weights may have; None takes any.
        top_k: how many models at most; None takes `retrieval.top_k` of the release.
        refine: how many of the first are run on the images (a forward pass) before all are ranked again; 0 runs none.
        root: the project's folder; None takes the nearest one that holds params.yaml, from here upwards.

    Returns:
        At most `top_k` candidates, best first. `runs/<id>` keeps them.

    Raises:
        NoReleaseError: nothing was published yet.
        UnknownTaskError: `dataset` is neither a path nor a task.
        DataError: the path cannot be used; the subclasses say why.
        GateError: the gate refuses the images.
        NoModelFitsError: no model satisfies the constraints.
    """
    from tans_core.index.releases import open_production
    from tans_core.retrieval.retriever import Constraints, Retriever

    project = find_root(root)
    limits = Constraints(max_params_m=max_params_m, max_macs_m=max_macs_m, licences=_as_tuple(licences))
    with query_gate(dataset, project) as gate:
        release = open_production(project / "serving")
        retriever = Retriever.open(release)
        task, scan = open_dataset(dataset, project, release.params, gate)
    return _retrieve(dataset, task, scan, release, retriever, limits, top_k, project, refine)


def finetune(
    dataset: str | Path | Task,
    model: str | None = None,
    *,
    rank: int = 1,
    refine: int = REFINED,
    epochs: int | None = None,
    seed: int = 0,
    max_params_m: float | None = None,
    max_macs_m: float | None = None,
    licences: Sequence[str] | None = None,
    root: str | Path | None = None,
    progress: bool = False,
) -> FinetuneRun:
    """Fine-tune one model on a data set: all weights, a fresh classifier, the best weights by validation.

    Args:
        dataset: as for `retrieve`.
        model: a model's id; None retrieves first, under the constraints, and takes the model at `rank`.
        rank: which of the retrieved models, from 1; only without `model`.
        refine: as for `retrieve`, for what is retrieved: it costs a forward pass each, little beside the training, and on sources
            left out it orders better. 0 takes the ranking as it is.
        epochs: how long; None takes `finetune.epochs` of the release.
        seed: of the fresh classifier, the order of the images and the augmentation.
        max_params_m, max_macs_m, licences: constraints on what is retrieved; only without `model`.
        root: as for `retrieve`.
        progress: show a progress bar on stderr.

    Returns:
        The run. Its folder holds the weights as safetensors and their card.

    Raises:
        NoReleaseError, UnknownTaskError, DataError, NoModelFitsError: as for `retrieve`.
        ParamsError: no such rank, or epochs below 1.
        StoreError: no such model.
        WeightsError: the model's weights cannot be loaded.
    """
    from tans_core.finetuning.finetune import finetune as train
    from tans_core.finetuning.run import write_run
    from tans_core.index.releases import open_production
    from tans_core.retrieval.retriever import Constraints, Retriever

    if epochs is not None and epochs < 1:
        raise ParamsError(f"epochs: got {epochs}, want at least 1.")
    project = find_root(root)
    limits = Constraints(max_params_m=max_params_m, max_macs_m=max_macs_m, licences=_as_tuple(licences))
    with query_gate(dataset, project) as gate:
        release = open_production(project / "serving")
        retriever = Retriever.open(release)
        task, scan = open_dataset(dataset, project, release.params, gate)
    if model is None:
        found = _retrieve(dataset, task, scan, release, retriever, limits, rank, project, refine)
        if not 1 <= rank <= len(found):
            raise ParamsError(f"rank: got {rank}, want 1 to {len(found)}: as many models as satisfy the constraints.")
        model = found[rank - 1].model
    settings: dict[str, Any] = {**release.params["finetune"], "seed": seed}
    if epochs is not None:
        settings["epochs"] = epochs
    network = retriever.load_model(model, task.info.num_classes, seed=seed)
    # Validated once an epoch: what the best weights are chosen by.
    result = train(network, task, **settings, eval_points=settings["epochs"], progress=progress)
    folder = new_run_folder(project, "finetune")
    _write_scan(scan, folder)
    asked = {**settings, "dataset": name_of(dataset), "model": model}
    write_run(folder, result=result, task=task, card=retriever.card(model), settings=asked, release=release.id)
    return FinetuneRun(
        model=model,
        task=task.info,
        release=release.id,
        folder=folder,
        curve=result.curve,
        best_val_accuracy=result.best_val_accuracy,
        test_accuracy=result.test_accuracy,
        seconds=result.seconds,
        scan=scan,
    )


def scan(
    path: str | Path,
    *,
    save: str | None = None,
    max_images: int | None = None,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    root: str | Path | None = None,
) -> ScanRun:
    """Read every image of a path once, judge what was found, and write `scan.json` and `scan.html` to `runs/<id>`.

    A scan that is killed goes on where it was when it is run again.

    Args:
        path: a folder of class folders, with or without train/val/test above them; a zip or tar of one; a CSV of paths and
            labels; a Parquet file with images, or a folder of such files.
        save: keep the images as a task of this name, unless the gate refuses them.
        max_images: open at most so many files, evenly over classes.
        drop_empty_classes: leave out classes without a usable image, instead of stopping.
        follow_links: follow links that lead outside `path`, to files and folders.
        root: as for `retrieve`.

    Returns:
        The run; `passed` says whether the gate lets the images pass.

    Raises:
        ParamsError: params.yaml cannot be read, or the name to save under cannot be had.
        DataError: the path cannot be scanned; the subclasses say why.
    """
    from tans_core.gates.query import start_query_gate
    from tans_core.index.settings import read_params
    from tans_core.tasks.task import write_task

    project = find_root(root)
    if save is not None:
        check_save_name(save, project)
    with start_query_gate() as gate:
        task, scanned = scan_path(
            path_of(path),
            project,
            read_params(project),
            gate,
            max_images=max_images,
            drop_empty_classes=drop_empty_classes,
            follow_links=follow_links,
            name=save,
        )
    folder = new_run_folder(project, "scan")
    scanned.write(folder)
    if task is not None:
        write_task(task, project / SAVED_TASKS / task.info.name)
    return ScanRun(scanned, folder, task.info if task else None)


def build(
    *stages: str,
    root: str | Path | None = None,
    on_line: Callable[[str], None] = print,
    jobs: int | None = None,
) -> None:
    """Build what params.yaml describes: tasks, zoo, space, index, evaluation. Only what changed runs (`dvc repro`).

    Args:
        stages: DVC stages to bring up to date, with what they need; all by default.
        root: the project's folder.
        on_line: gets the output line by line.
        jobs: how many independent stages run at a time; as many as there are cores, at most eight, where None.

    Raises:
        TansError: a stage failed: of the class of its exit code (GateError: a gate refused data).
    """
    reproduce(find_root(root), stages, on_line, jobs)


def publish(root: str | Path | None = None) -> str:
    """Copy the built space and index into `serving/` as a release, make it the production one, and return its id.

    Raises:
        StoreError: something is not built, or the parts do not belong together.
    """
    from tans_core.index.releases import publish as publish_release

    project = find_root(root)
    return publish_release(project, project / "serving").id


def rollback(to: str | None = None, root: str | Path | None = None) -> str:
    """Make an earlier release the production one: `to`, or the one before. Return its id.

    Raises:
        StoreError: there is no such release.
    """
    from tans_core.index.releases import rollback as roll_back

    return roll_back(find_root(root) / "serving", to).id


def list_releases(root: str | Path | None = None) -> list[dict[str, Any]]:
    """Return each release, oldest first, as a dict of id, created (UTC, ISO 8601), models (a count) and production (bool)."""
    from tans_core.index.releases import list_releases as list_all

    return [asdict(one) for one in list_all(find_root(root) / "serving")]


def list_tasks(root: str | Path | None = None) -> list[TaskInfo]:
    """Return each task that was built, by name: source, licence, role, class names, counts."""
    return task_infos(find_root(root))


def list_models(root: str | Path | None = None) -> list[ModelCard]:
    """Return the cards of the models in production, by id.

    Raises:
        NoReleaseError: nothing was published yet.
    """
    return list(_open(find_root(root)).cards.values())


def model_card(model: str, root: str | Path | None = None) -> ModelCard:
    """Return one model's card.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: no such model in production.
    """
    return _open(find_root(root)).card(model)


def _open(project: Path) -> Retriever:
    from tans_core.index.releases import open_production
    from tans_core.retrieval.retriever import Retriever

    return Retriever.open(open_production(project / "serving"))


def _retrieve(
    dataset: str | Path | Task,
    task: Task,
    scan: Scanned | None,
    release: Release,
    retriever: Retriever,
    constraints: Constraints,
    top_k: int | None,
    project: Path,
    refine: int = 0,
) -> Retrieval:
    if refine < 0:
        raise ParamsError(f"refine: got {refine}, want 0 or more.")
    if top_k is not None and top_k < 1:
        raise ParamsError(f"top_k: got {top_k}, want at least 1.")
    wanted = release.params["retrieval"]["top_k"] if top_k is None else top_k
    candidates = tuple(retriever.retrieve(task, constraints, wanted, refine))
    folder = new_run_folder(project, "retrieve")
    write_json([candidate.to_dict() for candidate in candidates], folder / "candidates.json")
    write_json({**asdict(constraints), "top_k": wanted, "refine": refine}, folder / "params.json")
    write_json(provenance(dataset, release.id), folder / "provenance.json")
    _write_scan(scan, folder)
    return Retrieval(candidates, task.info, release.id, folder, scan)


def _write_scan(scan: Scanned | None, folder: Path) -> None:
    if scan is not None:
        scan.write(folder)


def _as_tuple(licences: Sequence[str] | None) -> tuple[str, ...] | None:
    if licences is None:
        return None
    return (licences,) if isinstance(licences, str) else tuple(licences)
