"""The Python API: the commands of `tans` as functions. `import tans_core as tans` offers all of them.

Units: parameters and multiply-accumulates in millions, accuracies and similarities as fractions, times in seconds.
Errors are the classes of `tans_core.errors`; their messages name the next step.
Modules that need torch, LanceDB or pyarrow are imported inside the functions, so importing this module is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tans_core.contributing import contribute
from tans_core.dataset import QueryLimits, ScanRun, check_save_name, path_of, scan_path
from tans_core.options import RetrieveOptions, takes
from tans_core.project import SAVED_TASKS, find_root, reproduce, run_folder, task_infos
from tans_core.pruning import prune
from tans_core.results import FinetuneRun, Retrieval
from tans_core.retrieval.query import Query
from tans_core.runs import export, finetune, load, predict
from tans_core.service import Service
from tans_core.use.predictions import Predictions

if TYPE_CHECKING:
    from tans_core.inbox import Outcome
    from tans_core.index.verify import FileFinding
    from tans_core.tasks.task import Task, TaskInfo
    from tans_core.zoo.card import ModelCard
    from tans_core.zoo.latency import Latency, Profile

__all__ = [
    "FinetuneRun",
    "Predictions",
    "Query",
    "Retrieval",
    "ScanRun",
    "Service",
    "add_network",
    "admit",
    "build",
    "contribute",
    "embed",
    "export",
    "finetune",
    "list_models",
    "list_releases",
    "list_tasks",
    "load",
    "model_card",
    "predict",
    "profile_networks",
    "prune",
    "publish",
    "remove_networks",
    "retrieve",
    "rollback",
    "scan",
    "verify",
]


@takes(RetrieveOptions)
def retrieve(
    dataset: str | Path | Task | Query, options: RetrieveOptions, *, root: str | Path | None = None
) -> Retrieval:
    """Find the pretrained networks to start from for a data set. They run on it only with `refine`.

    Args:
        dataset: the name of a task of the project, a `Task`, or a path: a folder of class folders, a zip or tar of
            one, a CSV of paths and labels, a Parquet file with images (`scan`); or what `embed` made of one of these.
        {options}
        root: the project's folder; None takes the nearest one that holds params.yaml, from here upwards.

    Returns:
        At most `top_k` candidates, best first, also written to `runs/<id>`.

    Raises:
        ParamsError: an option is wrong; nothing was read.
        NoReleaseError: nothing was published yet.
        NoModelFitsError: no model satisfies the constraints; nothing was read.
        UnknownTaskError: `dataset` is neither a path nor a task.
        DataError: the path cannot be used; the subclass gives the reason.
        GateError: the gate refuses the images.
    """
    return Service.open(root).retrieve(dataset, options)


def embed(dataset: str | Path | Task, *, group: str | None = None, root: str | Path | None = None) -> Query:
    """Return what a search needs of a data set, without its images. `Query.write` and `Query.read` keep it in a file.

    Args:
        dataset, group: as for `retrieve`; only the training images are used.
        root: as for `retrieve`. Its release must have the same encoders as the one that is searched.

    Raises:
        NoReleaseError, UnknownTaskError, DataError, GateError: as for `retrieve`.
    """
    return Service.open(root).embed(dataset, group)


def scan(
    path: str | Path,
    *,
    save: str | None = None,
    max_images: int | None = None,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    group: str | None = None,
    root: str | Path | None = None,
) -> ScanRun:
    """Read every image of a path once, check them, and write `scan.json` and `scan.html` to `runs/<id>`.

    A scan that was killed continues where it stopped when it is run again.

    Args:
        path: a folder of class folders, with or without train/val/test above them; a zip or tar of one; a CSV of
            paths and labels; a Parquet file with images, or a folder of such files.
        save: keep the images as a task of this name, unless the gate refuses them.
        max_images: open at most so many files, evenly over classes.
        drop_empty_classes: leave out classes without a usable image, instead of stopping.
        follow_links: follow links that lead outside `path`, to files and folders.
        group: keep images with the same value in this column of a table in one split; "folder": images of the same
            folder below a class; "none": no grouping. By default a column of a usual name, such as patient, is taken.
        root: as for `retrieve`.

    Returns:
        The run; `passed` is true if the gate accepts the images.

    Raises:
        ParamsError: params.yaml cannot be read, or the name to save under is invalid or in use.
        DataError: the path cannot be scanned; the subclass gives the reason.
    """
    from tans_core.gates.query import start_query_gate
    from tans_core.tasks.task import write_task

    project = find_root(root)
    if save is not None:
        check_save_name(save, project)
    with start_query_gate() as gate:
        task, scanned = scan_path(
            path_of(path),
            project,
            QueryLimits.of(project),
            gate,
            max_images=max_images,
            drop_empty_classes=drop_empty_classes,
            follow_links=follow_links,
            group=group,
            name=save,
        )
    with run_folder(project, "scan") as folder:
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
        stages: DVC stages to bring up to date, with the stages that they depend on; all by default.
        root: the project's folder.
        on_line: called with each line of output.
        jobs: how many independent stages run at a time; None takes the number of cores, at most eight.

    Raises:
        TansError: a stage failed. The class is that of its exit code (GateError: a gate refused data).
    """
    reproduce(find_root(root), stages, on_line, jobs)


def publish(root: str | Path | None = None, *, again: bool = False, judged: bool = False) -> str:
    """Copy the built space and index into `serving/` as a release, make it the production one, and return its id.

    It is compared with the release in production; `metrics/releases.jsonl` records the result.

    Args:
        root: the project's folder.
        again: also publish what was rolled back.
        judged: publish it only if it is better, or not worse and larger, as the flows do (`release` in params.yaml).

    Raises:
        StoreError: something is not built, or the parts are of different builds.
        WithdrawnReleaseError: this release or some of its networks were rolled back, and `again` is not set.
        RefusedReleaseError: with `judged`: it may not replace the release in production.
    """
    from tans_core.publishing import publish_built

    return publish_built(find_root(root), again=again, judged=judged).accepted().production


def rollback(to: str | None = None, root: str | Path | None = None) -> str:
    """Make an earlier release the production one: `to`, or the one before the current one. Return its id.

    Raises:
        StoreError: there is no such release.
    """
    from tans_core.index.releases import rollback as roll_back

    return roll_back(find_root(root) / "serving", to).id


def list_releases(root: str | Path | None = None) -> list[dict[str, Any]]:
    """Return each release, ordered by when it first went into production, as a dict of id, created (UTC, ISO 8601),
    models (a count), production and withdrawn (bool), parent (an id), and measures of its space (docs/metrics.md)."""
    from tans_core.index.listing import list_releases as list_all

    return [asdict(one) for one in list_all(find_root(root) / "serving")]


def list_tasks(root: str | Path | None = None) -> list[TaskInfo]:
    """Return each built task, ordered by name: source, licence, role, class names, counts."""
    return task_infos(find_root(root))


def list_models(root: str | Path | None = None) -> list[ModelCard]:
    """Return the cards of the models in production, ordered by id. Raises NoReleaseError if there is no release."""
    return list(Service.open(root).retriever.cards.values())


def model_card(model: str, root: str | Path | None = None) -> ModelCard:
    """Return one model's card.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: no such model in production.
    """
    return Service.open(root).retriever.card(model)


def admit(root: str | Path | None = None, *, again: bool = False) -> Outcome:
    """Admit the newcomers in the inbox, as the flow `zoo-refresh` does. Those that fail go into quarantine.

    Args:
        root: the project's folder.
        again: also admit newcomers that were rolled back.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError, WeightsError: the release cannot be read or written.
    """
    from tans_core.inbox import refresh

    return refresh(find_root(root), lambda newcomer, release: None, again=again)


def add_network(
    package: str,
    name: str,
    weights: str | Path,
    *,
    home_task: str | None = None,
    size_px: int | None = None,
    licence: str | None = None,
    images: str = "ImageNet-1k",
    images_licence: str = "LicenseRef-imagenet-terms",
    root: str | Path | None = None,
) -> ModelCard:
    """Add a network of timm or torchvision to those that are served. It must pass the gate for newcomers.

    Args:
        package: `timm` or `torchvision`.
        name: the network's name in the package.
        weights: safetensors, or a file of tensors that torch wrote. The names of the tensors are the package's.
        home_task: the task that the weights' classifier was trained on; None uses them as features for any task.
        size_px: side of the input in pixels; None takes the package's.
        licence: of the weights, an SPDX expression or their terms in words.
        images, images_licence: the images that the weights were trained on, if they are no task of the project.
        root: the project's folder.

    Raises:
        WeightsError: the package has no such network, or the file's weights do not fit it or are in the zoo already.
        GateError: the gate refuses it. It is in quarantine/ now, as after a WeightsError of admission.
        WithdrawnReleaseError: it was in production, and was rolled back. It is in quarantine/ now.
        NoReleaseError: nothing was published yet.
    """
    from tans_core.inbox import refresh
    from tans_core.zoo.hand_in import HandIn, hand_in

    project = find_root(root)
    request = HandIn(package, name, Path(weights), home_task, size_px, licence, images, images_licence)
    entry = hand_in(request, project / "inbox", project / "data/tasks")
    outcome = refresh(project, lambda newcomer, release: None, only=entry)
    if entry.name in outcome.errors:
        raise outcome.errors[entry.name]
    return outcome.admitted[entry.name].card


def remove_networks(models: Sequence[str], root: str | Path | None = None) -> str:
    """Take admitted newcomers out of service and move them to quarantine. Return the id of the new release.

    Raises:
        StoreError: there is no such model, or it was not admitted from the inbox.
    """
    from tans_core.inbox import remove

    return remove(find_root(root), models)


def verify(root: str | Path | None = None) -> list[FileFinding]:
    """Compare each stored file of weights with its recorded hash; one finding per file."""
    from tans_core.index.verify import verify_weights

    return list(verify_weights(find_root(root)))


def profile_networks(
    models: Sequence[str] = (),
    *,
    batch: int = 1,
    threads: int = 1,
    device: str = "auto",
    root: str | Path | None = None,
) -> tuple[Profile, dict[str, Latency], Path]:
    """Time networks in production on this machine.

    Args:
        models: ids; none means all.
        batch: images per batch.
        threads: CPU threads.
        device: `cpu`, `cuda`, or `auto`: `cuda` if there is one.
        root: the project's folder.

    Returns:
        The conditions of the measurement, the figures by id, and the file that they were written to.

    Raises:
        StoreError: no such model, or the file is of another machine.
        ParamsError: this machine has no such device.
    """
    from tans_core.runtime import device as best_device
    from tans_core.zoo.latency import Profile, add_latencies, measure_latencies, read_latencies

    service = Service.open(root)
    cards = [service.retriever.card(model) for model in models] or list(service.retriever.cards.values())
    profile = Profile.here(best_device().type if device == "auto" else device, threads, batch)
    read_latencies(service.project / "latency", profile)  # raises for a bad file before anything is timed
    latencies = measure_latencies(cards, lambda card: service.retriever.load_model(card.id, card.outputs), profile)
    return profile, latencies, add_latencies(service.project / "latency", profile, latencies)
