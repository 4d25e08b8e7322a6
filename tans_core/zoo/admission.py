"""Newcomers: models from outside, as `card.json` and `weights.safetensors` in a folder of the inbox.

Nothing in a newcomer is executed or unpickled, and no link is followed. Two regular files of bounded size are copied,
and only the copies are read. Card and weights are checked against the family here, their values in
`tans_core.gates.arrivals`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from tans_core.errors import WeightsError
from tans_core.io import sha256_bytes, sha256_file, write_json
from tans_core.networks.registry import get_family
from tans_core.networks.trace import Cost
from tans_core.zoo.card import ModelCard

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
MAX_CARD_BYTES = 256 * 1024
MAX_HEADER_BYTES = 1024 * 1024
MAX_WEIGHTS_BYTES = 512 * 1024 * 1024
MAX_MACS_M = 25_000.0
"""For one image: a newcomer is run on a few hundred."""
MAX_RECIPE = {"lr": 1.0, "head_factor": 100.0, "weight_decay": 1.0}
MAX_LAYER_M = 4.0
"""Values of the input or of a layer for one image, in millions: a newcomer is run on some hundred images at once."""
# A folder that changed more recently may still be being copied.
SETTLE_S = 2.0

_TEXT = re.compile(r"^[^\x00-\x1f\x7f]{1,200}$")
# Valid folder names, since data sets and classes are named after folders.
_CLASS = re.compile(r"^[^\x00-\x1f\x7f]{1,255}$")
_HOME = re.compile(r"^(?!\.{1,2}$)[^\x00-\x1f\x7f/\\]{1,255}$")
_OTHER_FORMATS = {
    b"\x80": "a Python pickle",
    b"PK\x03\x04": "a zip, as `torch.save` writes it",
    b"\x1f\x8b": "a gzip",
    b"\x89HDF": "HDF5",
}
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.bool: "BOOL"}


@dataclass(frozen=True)
class Newcomer:
    """A model with a valid form; its id is the hash of its card and weights.

    Attributes:
        id: independent of where and when it is read.
        card: with that id, exact costs, and the future path of the weights below data/.
        folder: named by the id; contains our copies of `card.json` and `weights.safetensors`.
    """

    id: str
    card: ModelCard
    folder: Path


def waiting(inbox: Path, settle_s: float = SETTLE_S) -> list[Path]:
    """Return the inbox's entries by name, except hidden ones and those changed in the last `settle_s` seconds."""
    if not inbox.is_dir():
        return []
    entries = [path for path in sorted(inbox.iterdir()) if not path.name.startswith(".")]
    return [path for path in entries if time.time() - _changed(path) >= settle_s]


def read_newcomer(source: Path, staging: Path) -> Newcomer:
    """Copy a newcomer and check its form: files, card, names and shapes of its tensors.

    Args:
        source: an entry of the inbox, of any kind.
        staging: a private folder; the copy goes to `staging/<id>`.

    Raises:
        WeightsError: it is not a folder of two regular files, they are too large or damaged, the card is not a model
            card of a known family, or the weights are not those of its architecture. Lists all problems of the first
            part that fails.
    """
    if source.is_symlink() or not source.is_dir():
        raise WeightsError(f"{source.name}: not a folder. Want a folder with {CARD_FILE} and {WEIGHTS_FILE}.")
    folder = staging / "reading"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _copy(source, folder, CARD_FILE, MAX_CARD_BYTES)
    _copy(source, folder, WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    card = _read_card((folder / CARD_FILE).read_bytes())
    _check_tensors(folder / WEIGHTS_FILE, card)
    name = identify(card, folder / WEIGHTS_FILE)
    card = card.model_copy(update={"id": name, "weights": f"arrivals/{name}/{WEIGHTS_FILE}"})
    write_json(card.to_dict(), folder / CARD_FILE)
    target = staging / name
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    return Newcomer(name, card, target)


def admit(newcomer: Newcomer, arrivals: Path) -> Path:
    """Move a newcomer to `arrivals/<id>`, whole or not at all, unless it is already there. Return its folder."""
    target = arrivals / newcomer.id
    arrivals.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(newcomer.folder)
    else:
        newcomer.folder.rename(target)
    return target


def quarantine(source: Path, folder: Path, reason: str, details: dict[str, Any] | None = None) -> Path:
    """Move an entry of the inbox to `folder/<name>/newcomer` beside a `reason.json`; return `folder/<name>`.

    The entry is moved as it is, a link as a link. If the name is taken, a number is added.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:80].lstrip(".") or "newcomer"
    target, number = folder / name, 1
    while target.exists():
        number += 1
        target = folder / f"{name}-{number}"
    target.mkdir(parents=True)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # The reason is written first, so that every entry in quarantine has one.
    write_json({"name": source.name, "reason": reason, "moment": moment, **(details or {})}, target / "reason.json")
    source.rename(target / "newcomer")
    return target


def discard(source: Path) -> None:
    """Remove an entry of the inbox that was admitted."""
    if source.is_dir() and not source.is_symlink():
        shutil.rmtree(source)
    else:
        source.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    """Return when an entry or one of its two files last changed: its ctime, which even `cp -p` updates."""
    paths = [path, path / CARD_FILE, path / WEIGHTS_FILE]
    moments = []
    for file in paths:
        try:
            moments.append(file.lstat().st_ctime)
        except OSError:
            continue
    return max(moments, default=0.0)


def _copy(source: Path, folder: Path, name: str, limit: int) -> None:
    path = source / name
    try:
        status = path.lstat()
    except FileNotFoundError:
        contents = ", ".join(sorted(entry.name for entry in source.iterdir())[:5]) or "nothing"
        raise WeightsError(
            f"{source.name}: lacks {name}; it holds {contents}. Weights are taken as safetensors only."
        ) from None
    except OSError as error:
        raise WeightsError(f"{source.name}/{name}: cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(f"{source.name}/{name}: not a regular file. Links and devices are not followed.")
    try:
        # The file may have been replaced since `lstat`: do not follow a link, do not wait for a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise WeightsError(f"{source.name}/{name}: cannot be read ({error.strerror}).") from error
    with os.fdopen(descriptor, "rb") as reader:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise WeightsError(f"{source.name}/{name}: not a regular file.")
        size = os.fstat(descriptor).st_size
        if not 0 < size <= limit:
            raise WeightsError(f"{source.name}/{name}: got {size:,} bytes, want 1 to {limit:,}.")
        with (folder / name).open("wb") as writer:
            remaining = limit
            while remaining > 0 and (block := reader.read(min(remaining, 1 << 20))):
                writer.write(block)
                remaining -= len(block)


def _read_card(data: bytes) -> ModelCard:
    try:
        # Refuses NaN, and nesting that would exhaust the stack.
        raw = from_json(data, allow_inf_nan=False)
        json.loads(data.decode(), object_pairs_hook=_refuse_repeated)
    except ValueError as error:
        raise WeightsError(f"{CARD_FILE}: not a model card as JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise WeightsError(f"{CARD_FILE}: got {type(raw).__name__}, want an object.")
    try:
        card = ModelCard.from_dict(raw, strict=True)
        problems = card_problems(card)
        if not problems:
            cost = _cost(card)
    except WeightsError as error:
        raise WeightsError(f"{CARD_FILE}: {error}") from error
    if not problems:
        for name, stated, exact in (("params_m", card.params_m, cost.params_m), ("macs_m", card.macs_m, cost.macs_m)):
            if not abs(stated - exact) <= 0.02 * exact:
                problems.append(f"{name}: got {stated:g}, want {exact:g} (2 % allowed), counted from the architecture")
        if cost.macs_m > MAX_MACS_M:
            problems.append(f"architecture: {cost.macs_m:,.0f} M MACs an image, want at most {MAX_MACS_M:,.0f} M")
        if cost.largest_layer_m > MAX_LAYER_M:
            problems.append(
                f"architecture: its largest layer gives {cost.largest_layer_m:.1f} M values an image, "
                f"want at most {MAX_LAYER_M:g} M"
            )
    if problems:
        raise WeightsError(f"{CARD_FILE}: {'; '.join(problems)}.")
    # Terms that TANS knows are written down too, so that a card can be read without TANS.
    licences = card.licences.model_copy(update={"texts": {**card.terms, **card.licences.texts}})
    return card.model_copy(update={"params_m": cost.params_m, "macs_m": cost.macs_m, "licences": licences})


def _cost(card: ModelCard) -> Cost:
    family = get_family(card.family)
    try:
        return family.cost(card.architecture, card.preprocess.image_size_px, card.outputs)
    except WeightsError:
        raise
    except Exception as error:  # a third-party family may fail on an untrusted card in any way
        raise WeightsError(f"architecture: family {card.family!r} fails ({type(error).__name__}: {error}).") from error


def card_problems(card: ModelCard) -> list[str]:
    """Return the reasons to refuse a card, except its costs and weights; empty if there are none."""
    problems = []
    size = len(json.dumps(card.to_dict(), ensure_ascii=False, indent=2).encode())
    if size > MAX_CARD_BYTES:
        problems.append(f"{size:,} bytes, want at most {MAX_CARD_BYTES:,}")
    for name in ("id", "source"):
        if not _TEXT.match(getattr(card, name)):
            problems.append(f"{name}: want 1 to 200 printable characters")
    if not _HOME.match(card.home_task):
        problems.append("home_task: want 1 to 255 printable characters, and no '/' or '\\'")
    names = card.class_names
    if not card.general and not (
        2 <= len(names) <= 1000 and len(set(names)) == len(names) and all(_CLASS.match(name) for name in names)
    ):
        problems.append(
            f"class_names: got {len(names):,} names, want 2 to 1000 different ones of 1 to 255 printable characters; "
            "or [] for a network without a classifier"
        )
    for name in ("val_accuracy", "test_accuracy"):
        value = getattr(card, name)
        if (value is None) != card.general:
            wanted = "null, since the card has no class_names" if card.general else "a number"
            problems.append(f"{name}: got {'null' if value is None else f'{value:g}'}, want {wanted}")
    if not any(ancestor.kind == "task" and ancestor.name == card.home_task for ancestor in card.lineage):
        problems.append(f"lineage: lacks the home task {card.home_task[:40]!r}")
    for name, limit in MAX_RECIPE.items() if card.recipe else ():
        if getattr(card.recipe, name) > limit:
            problems.append(f"recipe.{name}: got {getattr(card.recipe, name):g}, want at most {limit:g}")
    problems += [f"licence {licence[:80]!r}: not an SPDX expression" for licence in card.unreadable_licences]
    if not card.unreadable_licences:
        lacking = [name for name, text in card.terms.items() if not text.strip()]
        problems += [f"licences.texts: lacks the terms of {name[:80]}" for name in lacking]
    return problems


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing repeated keys: JSON readers differ in which value they take."""
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"given twice: {', '.join(repr(name[:80]) for name in repeated[:5])}")
    return dict(pairs)


def _check_tensors(path: Path, card: ModelCard) -> None:
    with path.open("rb") as file:
        beginning = file.read(8)
    length = struct.unpack("<Q", beginning)[0] if len(beginning) == 8 else 0
    size = path.stat().st_size
    if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
        looks_like = next((kind for magic, kind in _OTHER_FORMATS.items() if beginning.startswith(magic)), None)
        fault = f"a header of {length:,} bytes, want 1 to {MAX_HEADER_BYTES:,}"
        if looks_like:
            fault = f"begins like {looks_like}"
        elif 0 < length <= MAX_HEADER_BYTES:
            fault = f"cut short: a header of {length:,} bytes in a file of {size:,}"
        raise WeightsError(f"{WEIGHTS_FILE}: not safetensors: {fault}. `safetensors.torch.save_file` writes them.")
    # Names and shapes only: a network that may be refused gets no memory.
    wanted = get_family(card.family).outline(card.architecture, card.outputs).state_dict()
    if card.general:
        wanted = {name: value for name, value in wanted.items() if not name.startswith("classifier.")}
    try:
        with safe_open(path, framework="pt") as tensors:
            stored = {
                name: (tensors.get_slice(name).get_dtype(), tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118
            }
    except SafetensorError as error:
        raise WeightsError(f"{WEIGHTS_FILE}: not readable as safetensors ({str(error)[:200]}).") from error
    problems = [f"lacks the tensor {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"has an unknown tensor {name[:80]!r}" for name in sorted(stored.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & stored.keys()):
        want = (_DTYPES.get(wanted[name].dtype, "another type"), list(wanted[name].shape))
        if stored[name] != want:
            problems.append(f"{name}: got {stored[name][0]} {stored[name][1]}, want {want[0]} {want[1]}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError(
            f"{WEIGHTS_FILE}: not the weights of the card's architecture: {'; '.join(problems[:5])}{more}."
        )


def identify(card: ModelCard, weights: Path) -> str:
    """Return a newcomer's id: a hash of its card and of its weights file."""
    described = {key: value for key, value in card.to_dict().items() if key not in ("id", "weights")}
    # Early cards had no recipe, and early recipes lacked these fields: leaving out defaults keeps their ids.
    if described["recipe"] is None:
        del described["recipe"]
    else:
        later = {"head": "fresh", "lr_floor": 1.0, "frozen_steps": 0}
        described["recipe"] = {k: v for k, v in described["recipe"].items() if k not in later or v != later[k]}
    text = json.dumps(described, sort_keys=True, ensure_ascii=True) + sha256_file(weights)
    return f"arrival-{sha256_bytes(text.encode())[:16]}"
