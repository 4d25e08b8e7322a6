"""Addresses of fine-tuned networks: predict with one, and get the files of its run."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tans_core.errors import DataError, TansError
from tans_core.http import examples
from tans_core.http.context import Here
from tans_core.http.uploads import receive
from tans_core.http.work import environment, error_in, export_command, how_it_ended
from tans_core.use.images import list_images
from tans_core.use.model import USE_FILE, TunedModel, UseCard
from tans_core.use.predictions import Predictions

router = APIRouter(tags=["fine-tuning"])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_FILES = {
    "weights.safetensors": "weights.safetensors",
    "card.json": "card.json",
    "predict.json": USE_FILE,
    "report.html": "report.html",
    "test.json": "test.json",
    "curve.csv": "curve.csv",
    "curve.png": "curve.png",
    "model.onnx": "export/model.onnx",
    "model.onnx.json": "export/model.onnx.json",
}
_ONNX = "model.onnx"
_TYPES = {".safetensors": "application/octet-stream", ".onnx": "application/octet-stream"}
_ANSWERS = 2_000_000
"""Probabilities of one answer at most."""
_EXPORT_S = 600.0
# A report is a page of this address, and names come from outside.
_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
}


class File(BaseModel):
    name: str = Field(description="For GET /v1/runs/{run}/files/{name}.")
    bytes: int | None = Field(description="Its size; null for one that is made when it is first asked for.")


class Run(BaseModel):
    """A fine-tuned network."""

    run: str
    model: str = Field(description="The network that it started from.")
    task: str = Field(description="The data set.")
    class_names: tuple[str, ...]
    accuracy: float = Field(description="On the test split, 0..1.")
    val_accuracy: float = Field(description="On the validation split, 0..1.")
    licence: str = Field(description="Of the weights, and of everything that they descend from.")
    files: list[File]


class Guess(BaseModel):
    image: str = Field(description="Its name in the upload.")
    label: str | None = Field(description="The most probable class; null if the image could not be read.")
    probability: float | None = Field(description="Of this class, calibrated, 0..1.")
    probabilities: dict[str, float] | None = Field(description="Of each class.")
    error: str | None = Field(description="Why the image could not be read.")
    truth: str | None = Field(description="The class that its folder tells, if it does.")


class Guesses(BaseModel):
    run: str
    class_names: list[str]
    images: int
    unreadable: int = Field(description="How many images could not be read.")
    accuracy: float | None = Field(description="On the images whose folder tells their class.")
    predictions: list[Guess]
    skipped: dict[str, int] = Field(description="Counts of files that were not opened, by reason.")


def _found(here: Here, run: str) -> Path:
    folder = here.project / "runs" / run
    if not _NAME.fullmatch(run) or folder.is_symlink() or not (folder / USE_FILE).is_file():
        raise HTTPException(404, f"There is no run {run!r} of a fine-tuning.\nGET /v1/jobs lists fine-tunings.")
    return folder


Found = Annotated[Path, Depends(_found)]


@router.post("/v1/predict", openapi_extra=examples.PICTURES, responses={200: examples.GUESSED}, response_model=Guesses)
async def predict(here: Here, request: Request, folder: Found) -> Response:
    """Predict the classes of an image, or of a zip of images of any layout. Nothing of them is kept."""
    with here.slots.admitted():
        async with here.room() as room:
            path = await receive(request, room, here.options, pictures=True)
            most = here.options.max_images
            return await here.slots.work(lambda: _answer(folder.name, _predict(folder, path, most)))


@router.get("/v1/runs/{run}")
def run(folder: Found) -> Run:
    """Describe a fine-tuned network, and list its files."""
    card = UseCard.model_validate_json((folder / USE_FILE).read_bytes())
    paths = {name: folder / below for name, below in _FILES.items()}
    files = [File(name=name, bytes=path.stat().st_size) for name, path in paths.items() if path.is_file()]
    if not paths[_ONNX].is_file() and _exports():
        files.append(File(name=_ONNX, bytes=None))
    return Run(
        run=folder.name,
        model=card.model,
        task=card.task,
        class_names=card.class_names,
        accuracy=card.test_accuracy,
        val_accuracy=card.val_accuracy,
        licence=card.licence,
        files=files,
    )


@router.get("/v1/runs/{run}/files/{name}", response_class=FileResponse)
async def file(here: Here, folder: Found, name: str) -> FileResponse:
    """Return a file of a fine-tuned network. `model.onnx` is made when it is first asked for, which takes seconds."""
    if name not in _FILES:
        raise HTTPException(404, f"There is no file {name!r}.\nWant one of {', '.join(_FILES)}.")
    path = folder / _FILES[name]
    if name.startswith(_ONNX) and not path.is_file():
        async with here.exporting:
            if not path.is_file():
                with here.slots.admitted():  # one export alone takes the place of an upload
                    await _export(here.project, folder)
    if not path.is_file():
        older = "it is of an earlier version of TANS.\nFine-tune again: POST /v1/finetune."
        raise HTTPException(404, f"The run {folder.name} has no {name}: {older}")
    shown = "inline" if path.suffix in (".html", ".png") else "attachment"
    return FileResponse(
        path, media_type=_TYPES.get(path.suffix), filename=name, content_disposition_type=shown, headers=_HEADERS
    )


def _predict(folder: Path, path: Path, most: int) -> Predictions:
    stamp = (folder / "weights.safetensors").stat()
    model = _model(folder, stamp.st_mtime_ns)
    most = min(most, max(1, _ANSWERS // len(model.class_names)))
    count = len(list_images(path).entries)
    if count > most:
        raise DataError(f"{path.name}: {count:,} images; want at most {most:,} of them at a time.\nSend fewer.")
    try:
        return model.predict(path)
    except DataError as error:
        raise type(error)(str(error).replace(f"{path.parent}/", "")) from error


@lru_cache(maxsize=4)
def _model(folder: Path, _changed: int) -> TunedModel:
    return TunedModel.load(folder)


def _answer(run: str, predictions: Predictions) -> Response:
    plain: dict[str, Any] = predictions.to_dict()
    rows = [{**row, "image": row["name"]} for row in plain.pop("predictions")]
    guesses = Guesses.model_validate({**plain, "run": run, "predictions": rows})
    return Response(guesses.model_dump_json(), media_type="application/json")


def _exports() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


async def _export(project: Path, folder: Path) -> None:
    """Export a network in a process of its own: torch's tracer changes settings of the whole process."""
    if not _exports():
        raise HTTPException(501, "This service cannot export ONNX.\nInstall there: pip install 'tans[export]'")
    try:
        with anyio.fail_after(_EXPORT_S):
            done = await anyio.run_process(export_command(project, folder.name), check=False, env=environment())
    except TimeoutError:
        text = f"The export took more than {_EXPORT_S / 60:.0f} minutes and was ended.\nAsk again when less is to do."
        raise HTTPException(503, text) from None
    if done.returncode:
        text = done.stderr.decode(errors="replace")
        raise error_in(text) or TansError(how_it_ended(done.returncode, 0))
