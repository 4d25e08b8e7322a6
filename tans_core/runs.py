"""Runs of fine-tuning, made and in use: the functions `finetune`, `load`, `predict` and `export` of the API.

All but `finetune` read only the run's folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tans_core.dataset import path_of, task_or_path
from tans_core.options import FinetuneOptions, takes
from tans_core.project import find_root
from tans_core.results import FinetuneRun
from tans_core.service import Service
from tans_core.use.predictions import Predictions

if TYPE_CHECKING:
    from tans_core.tasks.task import Task
    from tans_core.use.export import Exported
    from tans_core.use.model import TunedModel


@takes(FinetuneOptions)
def finetune(
    dataset: str | Path | Task, options: FinetuneOptions, *, root: str | Path | None = None, progress: bool = False
) -> FinetuneRun:
    """Fine-tune one model on a data set: all weights, a new classifier. The best weights by validation are kept.

    Args:
        dataset: as for `retrieve`.
        {options}
        root: as for `retrieve`.
        progress: show a progress bar on stderr.

    Returns:
        The run. Its folder holds the weights as safetensors and their card. With `top_k` it is the winner's.

    Raises:
        ParamsError: an option is wrong, or no model has this rank; nothing was read.
        StoreError: no such model; nothing was read.
        NoReleaseError, NoModelFitsError, UnknownTaskError, DataError, GateError: as for `retrieve`.
        WeightsError: the model's weights cannot be loaded.
    """
    return Service.open(root).finetune(dataset, options, progress)


def load(run: str | Path | FinetuneRun, *, root: str | Path | None = None) -> TunedModel:
    """Load a fine-tuned network with its preprocessing, its class names and calibrated probabilities.

    Only the run's folder is read: `weights.safetensors` and `predict.json`.

    Args:
        run: the folder of a run, its name in `runs/` of the project, or what `finetune` returned.
        root: the project's folder, as for `retrieve`.

    Returns:
        A `torch.nn.Module`, in eval mode, on the GPU if there is one. It maps images (B, 3, S, S) uint8 to logits;
        `probabilities`, `prepare` and `predict` are its methods.

    Raises:
        WeightsError: the folder is no run of a fine-tuning, or its files are damaged.
    """
    from tans_core.use.model import TunedModel

    folder = run.folder if isinstance(run, FinetuneRun) else path_of(run)
    if not folder.exists() and (named := find_root(root) / "runs" / folder).is_dir():
        folder = named
    return TunedModel.load(folder)


def predict(
    run: str | Path | FinetuneRun, images: str | Path, *, split: str | None = None, root: str | Path | None = None
) -> Predictions:
    """Predict the classes of images with a fine-tuned network. Images that cannot be read are rows with an error.

    Args:
        run: as for `load`; `load(run).predict(images)` is the same, and loads the network once for many calls.
        images: an image file; a folder, zip or tar of any layout; a CSV with a column of paths; Parquet with images.
            They need no labels; where the name of a folder or a column tells a class, it is the truth. Or the name of
            a task of the project, all its splits; `./name` is the path of this name.
        split: `train`, `val` or `test`: only the images of this split of the run, recognised by their pixels. On the
            data set of the run, `test` gives the reported test accuracy.
        root: as for `load`.

    Raises:
        WeightsError: as for `load`.
        ParamsError: no such split.
        DataError: the path cannot be read, or none of its images.
    """
    return load(run, root=root).predict(task_or_path(images, find_root(root))[0], split)


def export(
    run: str | Path | FinetuneRun,
    form: str = "onnx",
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    root: str | Path | None = None,
) -> Exported:
    """Write a fine-tuned network in another format, and compare it with the network on images.

    Args:
        run: as for `load`.
        form: `onnx`; `torch`, a program of `torch.export`; or `hf`, a folder in the style of Hugging Face.
        out: the file, or the folder of `hf`; by default in `export/` of the run.
        images: to compare on, as for `predict`; by default up to 100 of its test split, which the run keeps.
        root: as for `load`.

    Returns:
        `path`, `card` (a JSON file beside it; of `hf`, its config.json) and the card's `content`.

    Raises:
        ParamsError: no such format, or a package is missing.
        DataError: the images cannot be read.
        WeightsError: as for `load`; or the export differs from the network by more than 1e-4.
    """
    from tans_core.use.export import export as write

    compared = task_or_path(images, find_root(root))[0] if images else None
    return write(load(run, root=root), form, path_of(out) if out else None, compared)
