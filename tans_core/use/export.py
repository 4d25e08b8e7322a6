"""Exports a fine-tuned network: ONNX, `torch.export`, or a folder in the style of Hugging Face.

In ONNX and `torch.export` the normalisation and the temperature are inside the graph, and the batch is dynamic. Each
export is compared with the network itself on images of the run; the differences go into the card beside it.

Axes: B images, n sample images, K classes, 3 channels (RGB), S = side of the input in pixels.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError
from tans_core.io import atomic_path, sha256_bytes, write_json
from tans_core.use.model import SAMPLES, TunedModel
from tans_core.use.predict import read_inputs

Format = Literal["onnx", "torch", "hf"]
FORMATS: tuple[str, ...] = get_args(Format)
TOLERANCE = 1e-4
"""Largest difference of a logit, relative to the largest logit where that is above 1."""
_BATCHES = (1, 32)
_IMAGES = 100
_MOST_IN_BATCH = 65_536
_OPSET = 18
_NAMES = {"onnx": "model.onnx", "torch": "model.pt2", "hf": "hf"}
_PACKAGES = {"onnx": ("torch", "onnx", "onnxscript", "onnxruntime"), "torch": ("torch",), "hf": ("torch", "timm")}

Answer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Maps images (B, 3, S, S) uint8 to logits and probabilities, (B, K) float32 each."""


class Exported(NamedTuple):
    """What was written: the file or folder, its card, and the card's content."""

    path: Path
    card: Path
    content: dict[str, Any]


class Graph(nn.Module):
    """The exported graph: images (B, 3, S, S) uint8 to logits and calibrated probabilities, (B, K) float32 each."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: TunedModel) -> None:
        super().__init__()
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocess.mean, model.preprocess.std))
        self.network, self.temperature = model.network, model.card.temperature
        # As `normalise` computes it.
        self.register_buffer("scale", 1.0 / (255.0 * std))
        self.register_buffer("offset", mean / std)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images.float() * self.scale - self.offset)
        return logits, torch.softmax(logits / self.temperature, dim=1)


def export(model: TunedModel, form: str, out: Path | None = None, images: Path | None = None) -> Exported:
    """Write a network in another format, and the card that says how to use it and how far it differs.

    Args:
        model: of a run.
        form: one of `FORMATS`.
        out: the file, or the folder of `hf`; by default in `export/` of the run.
        images: what it is compared on, as for `tans predict`; by default the images that the run keeps.

    Raises:
        ParamsError: no such format, a package is missing, or `out` is something else than an earlier export.
        DataError: `images` cannot be read.
        WeightsError: the network cannot be exported, or the export differs by more than `TOLERANCE`.
    """
    if form not in FORMATS:
        raise ParamsError(f"format: got {form!r}, want one of {', '.join(FORMATS)}.")
    target = out or model.folder / "export" / _NAMES[form]
    _check_target(target, form)
    if model.device.type != "cpu":
        model = TunedModel.load(model.folder).to("cpu")  # the caller's stays where it is
    samples = read_inputs(model, images or model.folder / SAMPLES, _IMAGES)
    if form == "hf":
        from tans_core.use.hub import write_hub_folder

        content = write_hub_folder(model, target, lambda answer: _compare(model, answer, samples))
        return Exported(target, target / "config.json", content)
    with _quiet():
        data, answer = (_onnx if form == "onnx" else _torch)(Graph(model).eval(), samples)
    parity = _compare(model, answer, samples)
    content = {**_described(model), "format": form, "file": target.name, "sha256": sha256_bytes(data)}
    content |= {"parity": parity, "packages": {name: metadata.version(name) for name in _PACKAGES[form]}}
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
    card = target.with_name(f"{target.name}.json")
    write_json(content, card)
    return Exported(target, card, content)


def _check_target(target: Path, form: str) -> None:
    """Refuse to replace what is no export: a folder of images may have the name that is meant for one."""
    if form != "hf" and target.is_dir():
        raise ParamsError(f"--out {target}: a folder. Want the name of a file, such as {target / _NAMES[form]}.")
    if form != "hf" and target.exists() and not target.with_name(f"{target.name}.json").is_file():
        raise ParamsError(f"--out {target}: exists, and is no export. Choose another name, or delete it.")
    if form == "hf" and target.exists() and not _is_hub_folder(target):
        raise ParamsError(f"--out {target}: exists, and is no folder of an export. Choose another name, or delete it.")


def _is_hub_folder(folder: Path) -> bool:
    names = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    return "config.json" in names and names <= {"README.md", "config.json", "model.safetensors", "predict.json"}


def _torch(graph: Graph, samples: Tensor) -> tuple[bytes, Answer]:
    program = _program(graph, samples)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    loaded = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    return buffer.getvalue(), lambda images: loaded(images)


def _onnx(graph: Graph, samples: Tensor) -> tuple[bytes, Answer]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  which torch needs
    except ImportError as error:
        raise ParamsError(f"format onnx: {error}. Run `pip install 'tans[export]'`.") from error
    program = torch.onnx.export(
        _program(graph, samples),
        (),
        input_names=["images"],
        output_names=["logits", "probabilities"],
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return data, answer


def _program(graph: Graph, samples: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_MOST_IN_BATCH)
    # Two different images: a batch of one would become a constant.
    example = samples[[0, -1]].contiguous()
    try:
        with torch.no_grad():
            return torch.export.export(graph, (example,), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch's tracer may fail in any way on a network of a library
        first = str(error).strip().split("\n")[0][:300]
        raise WeightsError(
            f"torch.export cannot trace this network ({type(error).__name__}: {first}). Nothing was written. Load the "
            "run in Python with `tans.load`, or fine-tune another network: `tans finetune PATH --model ID`."
        ) from error


def _compare(model: TunedModel, answer: Answer, samples: Tensor) -> dict[str, Any]:
    """Return the largest differences from the network itself, for batches of one and of 32.

    Raises:
        WeightsError: the logits differ by more than `TOLERANCE`.
    """
    parity: dict[str, Any] = {"images": len(samples), "tolerance": TOLERANCE}
    for size in _BATCHES:
        # Exactly this size: the images are repeated.
        rows = torch.arange(-(-len(samples) // size) * size) % len(samples)
        differences = {"logits": 0.0, "probabilities": 0.0}
        largest = 1.0
        for batch in samples[rows].split(size):
            with torch.inference_mode():
                logits = model(batch)
            wanted = {"logits": logits, "probabilities": torch.softmax(logits / model.card.temperature, dim=1)}
            largest = max(largest, float(logits.abs().max()))
            for name, got in zip(wanted, answer(batch), strict=True):
                differences[name] = max(differences[name], float((got.detach() - wanted[name]).abs().max()))
        if not differences["logits"] <= TOLERANCE * largest:
            raise WeightsError(
                f"{model.folder}: the export does not give the network's answers: logits differ by "
                f"{differences['logits']:.2g}, want at most {TOLERANCE * largest:.2g} (batch of {size}). Nothing was "
                "written. Try another `--format`, or load the run in Python with `tans.load`."
            )
        parity[f"batch_{size}"] = differences
    return parity


def _described(model: TunedModel) -> dict[str, Any]:
    side, card = model.preprocess.image_size_px, model.card
    return {
        "input": {
            "name": "images",
            "shape": ["batch", 3, side, side],
            "dtype": "uint8",
            "meaning": "RGB in 0..255, not normalised; the normalisation is in the graph",
        },
        "outputs": {"logits": ["batch", len(card.class_names)], "probabilities": ["batch", len(card.class_names)]},
        "prepare": {
            "stored_size_px": card.stored_size_px,
            "image_size_px": side,
            "interpolation": model.preprocess.interpolation,
            "crop": model.preprocess.crop,
        },
        "class_names": list(card.class_names),
        "temperature": card.temperature,
        "test_accuracy": card.test_accuracy,
        "model": card.model,
        "task": card.task,
        "licence": card.licence,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's notices on its own use of its parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
