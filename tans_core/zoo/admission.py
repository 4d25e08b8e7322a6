"""Newcomers: models from outside, as `card.json` and `weights.safetensors` in a folder of the inbox.

Nothing of a newcomer is executed, unpickled or followed: two regular files of bounded size are copied, then only the copies are
looked at. What they say is checked against the search space; `tans_core.gates.arrivals` judges the values.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from tans_core.errors import WeightsError
from tans_core.io import sha256_bytes, sha256_file, write_json
from tans_core.networks.elastic import Architecture, ElasticSpace
from tans_core.zoo.card import ModelCard

CARD_FILE, WEIGHTS_FILE = "card.json", "weights.safetensors"
MAX_CARD_BYTES = 256 * 1024
MAX_HEADER_BYTES = 1024 * 1024
MAX_WEIGHTS_BYTES = 512 * 1024 * 1024
# A folder that changed a moment ago may still be on its way in.
SETTLE_S = 2.0

_TEXT = re.compile(r"^[^\x00-\x1f\x7f]{1,200}$")
_TASK = re.compile(r"^[\w][\w .-]{0,62}$")
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


@dataclass(frozen=True)
class Newcomer:
    """A model that may enter: its id is the hash of its card and weights, and `folder` holds both under that id.

    Attributes:
        id: the same wherever and whenever it is read.
        card: with that id, exact costs, and the path that the weights will have below data/.
        folder: `card.json` and `weights.safetensors`, copies of our own.
    """

    id: str
    card: ModelCard
    folder: Path


def waiting(inbox: Path, settle_s: float = SETTLE_S) -> list[Path]:
    """Return the inbox's entries by name, without hidden ones and those that changed within the last `settle_s` seconds."""
    if not inbox.is_dir():
        return []
    entries = [path for path in sorted(inbox.iterdir()) if not path.name.startswith(".")]
    return [path for path in entries if time.time() - _changed(path) >= settle_s]


def read_newcomer(source: Path, staging: Path, space: ElasticSpace) -> Newcomer:
    """Copy a newcomer and check all of its form.

    Args:
        source: an entry of the inbox, of any kind.
        staging: a folder of our own; the copy goes to `staging/<id>`.
        space: the search space of the zoo.

    Raises:
        WeightsError: it is not a folder of two regular files, they are too large or damaged, the card is not a model card of this
            space, or the weights are not those of its architecture. The message lists every problem of the part at fault.
    """
    if source.is_symlink() or not source.is_dir():
        raise WeightsError(f"{source.name}: not a folder. Want a folder with {CARD_FILE} and {WEIGHTS_FILE}.")
    folder = staging / "reading"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _copy(source, folder, CARD_FILE, MAX_CARD_BYTES)
    _copy(source, folder, WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
    card = _read_card((folder / CARD_FILE).read_bytes(), space)
    _check_tensors(folder / WEIGHTS_FILE, card, space)
    name = _identify(card, folder / WEIGHTS_FILE)
    card = replace(card, id=name, weights=f"arrivals/{name}/{WEIGHTS_FILE}")
    write_json(card.to_dict(), folder / CARD_FILE)
    target = staging / name
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)
    return Newcomer(name, card, target)


def admit(newcomer: Newcomer, arrivals: Path) -> Path:
    """Move a newcomer to `arrivals/<id>`, whole or not at all; one that is there already stays. Return its folder."""
    target = arrivals / newcomer.id
    arrivals.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(newcomer.folder)
    else:
        newcomer.folder.rename(target)
    return target


def quarantine(source: Path, folder: Path, reason: str, details: dict[str, Any] | None = None) -> Path:
    """Move an entry of the inbox to `folder/<name>/newcomer` beside a `reason.json`; return `folder/<name>`.

    The entry is moved as it is, a link as a link. A name that is taken gets a number.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:80].lstrip(".") or "newcomer"
    target, number = folder / name, 1
    while target.exists():
        number += 1
        target = folder / f"{name}-{number}"
    target.mkdir(parents=True)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    # The reason first: whatever lies in quarantine says why.
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
    """Return when an entry, or one of its two files, last changed: ctime, which a copy that keeps times changes too."""
    paths = [path, path / CARD_FILE, path / WEIGHTS_FILE]
    moments = []
    for one in paths:
        try:
            moments.append(one.lstat().st_ctime)
        except OSError:
            continue
    return max(moments, default=0.0)


def _copy(source: Path, folder: Path, name: str, limit: int) -> None:
    path = source / name
    try:
        kind = path.lstat()
    except FileNotFoundError:
        found = ", ".join(sorted(one.name for one in source.iterdir())[:5]) or "nothing"
        raise WeightsError(
            f"{source.name}: lacks {name}; it holds {found}. Weights are taken as safetensors only."
        ) from None
    except OSError as error:
        raise WeightsError(f"{source.name}/{name}: cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(kind.st_mode):
        raise WeightsError(f"{source.name}/{name}: not a regular file. Links and devices are not followed.")
    try:
        # Not through a link that took the file's place, and without waiting for a pipe that did.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise WeightsError(f"{source.name}/{name}: cannot be read ({error.strerror}).") from error
    with os.fdopen(handle, "rb") as reader:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise WeightsError(f"{source.name}/{name}: not a regular file.")
        size = os.fstat(handle).st_size
        if not 0 < size <= limit:
            raise WeightsError(f"{source.name}/{name}: got {size:,} bytes, want 1 to {limit:,}.")
        with (folder / name).open("wb") as writer:
            left = limit
            while left > 0 and (block := reader.read(min(left, 1 << 20))):
                writer.write(block)
                left -= len(block)


def _read_card(data: bytes, space: ElasticSpace) -> ModelCard:
    try:
        # Refuses NaN and depths that would exhaust the stack.
        raw = from_json(data, allow_inf_nan=False)
        if not isinstance(raw, dict):
            raise WeightsError(f"{CARD_FILE}: got {type(raw).__name__}, want an object.")
        ModelCard.from_dict(raw)
        card = TypeAdapter(ModelCard).validate_json(data, strict=True)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise WeightsError(f"{CARD_FILE}: {'; '.join(lines)}.") from error
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{CARD_FILE}: not a model card as JSON ({error}).") from error
    problems = _card_problems(card, space)
    if not problems:
        architecture = _architecture(card, space)
        cost = space.cost(architecture, card.image_size_px, len(card.class_names))
        for name, said, exact in (("params_m", card.params_m, cost.params_m), ("macs_m", card.macs_m, cost.macs_m)):
            if not abs(said - exact) <= 0.02 * exact:
                problems.append(f"{name}: the card says {said:g}, the architecture has {exact:g}")
        if not problems:
            return replace(card, architecture=architecture.to_dict(), params_m=cost.params_m, macs_m=cost.macs_m)
    raise WeightsError(f"{CARD_FILE}: {'; '.join(problems)}.")


def _card_problems(card: ModelCard, space: ElasticSpace) -> list[str]:
    problems = []
    if card.space != space.name:
        problems.append(f"space: got {card.space[:40]!r}, want {space.name!r}")
    for name in ("id", "source", "licence"):
        if not _TEXT.match(getattr(card, name)):
            problems.append(f"{name}: want 1 to 200 printable characters")
    if not _TASK.match(card.home_task):
        problems.append("home_task: want up to 63 letters, digits, spaces, '-', '_' and '.'")
    names = card.class_names
    if not 2 <= len(names) <= 1000 or len(set(names)) != len(names) or not all(_TEXT.match(name) for name in names):
        problems.append("class_names: want 2 to 1000 different names of 1 to 200 printable characters")
    if not 16 <= card.image_size_px <= 512:
        problems.append(f"image_size_px: got {card.image_size_px}, want 16 to 512")
    return problems


def _architecture(card: ModelCard, space: ElasticSpace) -> Architecture:
    try:
        architecture = Architecture.from_dict(card.architecture)
    except OverflowError as error:
        raise WeightsError(f"{CARD_FILE}: architecture: {error}.") from error
    space.check(architecture)
    return architecture


def _check_tensors(path: Path, card: ModelCard, space: ElasticSpace) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 0 < length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8):
        raise WeightsError(
            f"{WEIGHTS_FILE}: not safetensors: a header of {length:,} bytes, want 1 to {MAX_HEADER_BYTES:,}."
        )
    # Names and shapes only: no memory is given to a network that may be refused.
    with torch.device("meta"):
        wanted = space.build(Architecture.from_dict(card.architecture), len(card.class_names)).state_dict()
    try:
        with safe_open(path, framework="pt") as tensors:
            found = {
                name: (tensors.get_slice(name).get_dtype(), tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118
            }
    except SafetensorError as error:
        raise WeightsError(f"{WEIGHTS_FILE}: not readable as safetensors ({str(error)[:200]}).") from error
    problems = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"has an unknown {name[:80]!r}" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        want = (_DTYPES[wanted[name].dtype], list(wanted[name].shape))
        if found[name] != want:
            problems.append(f"{name}: got {found[name][0]} {found[name][1]}, want {want[0]} {want[1]}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise WeightsError(
            f"{WEIGHTS_FILE}: not the weights of the card's architecture: {'; '.join(problems[:5])}{more}."
        )


def _identify(card: ModelCard, weights: Path) -> str:
    described = {key: value for key, value in card.to_dict().items() if key not in ("id", "weights")}
    text = json.dumps(described, sort_keys=True, ensure_ascii=True) + sha256_file(weights)
    return f"arrival-{sha256_bytes(text.encode())[:16]}"
