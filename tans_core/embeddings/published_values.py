"""Turns the lists of a published file into arrays, and collects all that is wrong with them.

Axes: n rows, W width of a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

# The published widths are 1536, 512 and 45; a row of more than this is no embedding.
MAX_WIDTH = 65_536
MAX_ROWS = 10_000_000
# A few bytes of a file can claim a tensor of any size, or name one tensor a million times.
_FREE_BYTES = 256 * 2**20
_BYTES_PER_FILE_BYTE = 8
_EXAMPLES = 3


class Problems:
    """What is wrong with one file: one line for each kind of problem, with the first places where it stands."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, place: str = "") -> None:
        places = self._places.setdefault(what, [])
        self._counts[what] = self._counts.get(what, 0) + 1
        if place and len(places) < _EXAMPLES:
            places.append(place)

    def add_rows(self, what: str, rows: npt.NDArray[np.bool_], prefix: str = "") -> None:
        """Add a problem of each row that is marked in (n,) bool."""
        for row in np.flatnonzero(rows):
            self.add(what, f"{prefix}row {row}")

    def lines(self) -> list[str]:
        return [f"{self.file}: {what}{self._where(what)}" for what in self._places]

    def __len__(self) -> int:
        return len(self._places)

    def _where(self, what: str) -> str:
        places, count = self._places[what], self._counts[what]
        more = f" and {count - len(places):,} more" if count > len(places) else ""
        return f": {', '.join(places)}{more}" if places else ""


def room_for(file_bytes: int) -> int:
    """Return how many bytes of float32 are read of a file: far more than an honest one of its size can hold."""
    return max(_FREE_BYTES, _BYTES_PER_FILE_BYTE * file_bytes)


def as_number(value: object) -> float | None:
    """Return a number, or what a tensor of one element holds; None for anything else."""
    if type(value) is float:
        return value
    if isinstance(value, Tensor):
        if not _is_plain(value) or value.numel() != 1 or value.dtype == torch.bool:
            return None
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an int of hundreds of digits
        return math.inf


def as_numbers(value: object, what: str, problems: Problems) -> Floats | None:
    """Return (n,) float64 of a list of numbers or a tensor, finite; None, and problems, where that cannot be.

    Args:
        value: a list of numbers and tensors of one element, or a tensor (n,) or (n, 1).
        what: its name in the problems.
        problems: added to.
    """
    rows = _rows(value)
    if rows is None:
        problems.add(f"{what}: {kind_of(value)}, must be a list of numbers")
        return None
    if isinstance(rows, Tensor):
        # Never row by row: a stride of 0 lets a few bytes stand for millions of rows, and each would become a tensor.
        single = rows.dtype != torch.bool and rows.numel() == len(rows)
        numbers = rows.detach().reshape(-1).to(torch.float64).numpy() if single else np.full(len(rows), math.nan)
        found, wrong = numbers, np.full(len(rows), not single)
    else:
        read = [as_number(row) for row in rows]
        found = np.array([math.nan if number is None else number for number in read], dtype=np.float64)
        wrong = np.array([number is None for number in read], dtype=bool)
    problems.add_rows(f"{what}: not a number", wrong)
    infinite: npt.NDArray[np.bool_] = np.logical_and(~np.isfinite(found), ~wrong)
    problems.add_rows(f"{what}: NaN or infinite", infinite)
    return None if wrong.any() or infinite.any() else found


def as_vectors(
    value: object, what: str, problems: Problems, room_bytes: int, width: int | None = None, prefix: str = ""
) -> Vectors | None:
    """Return (n, W) float32 of a list of vectors or a matrix, finite; None, and problems, where that cannot be.

    Args:
        value: a list of n tensors (W,) or (1, W) or lists of W numbers, or a tensor (n, W).
        what: its name in the problems.
        problems: added to.
        room_bytes: the most that the vectors may take (`room_for` the file).
        width: W where it is known; else that of most rows.
        prefix: stands before the row in a problem's place.
    """
    rows = _rows(value)
    place = prefix.rstrip(" ,")
    if rows is None:
        problems.add(f"{what}: {kind_of(value)}, must be a list of vectors or a matrix", place)
        return None
    if len(rows) == 0:
        problems.add(f"{what}: no row", place)
        return None
    if isinstance(rows, Tensor) and (rows.ndim == 1 or rows.dtype == torch.bool):
        problems.add(f"{what}: {kind_of(rows)}, must be a matrix of numbers", place)
        return None
    if len(rows) > MAX_ROWS:
        problems.add(f"{what}: {len(rows):,} rows, must be {MAX_ROWS:,} at most", place)
        return None
    # The rows of a tensor are all alike, and a few bytes can stand for millions of them.
    widths = _widths(rows) if not isinstance(rows, Tensor) else [rows.shape[1]]
    expected = width if width is not None else Counter(widths).most_common(1)[0][0]
    wrong = [(row, got) for row, got in enumerate(widths) if got != expected or got is None]
    for row, got in wrong:
        if got is None:
            problems.add(f"{what}: not a vector of real numbers", f"{prefix}row {row} ({kind_of(rows[row])})")
        else:
            problems.add(f"{what}: not {expected} wide", f"{prefix}row {row} ({got:,} wide)")
    if wrong or expected is None:
        return None
    if not 0 < expected <= MAX_WIDTH:
        problems.add(f"{what}: {len(rows):,} x {expected:,}, must be 1 to {MAX_WIDTH:,} wide", place)
        return None
    if 4 * len(rows) * expected > room_bytes:
        problems.add(f"{what}: {len(rows):,} x {expected:,} numbers, more than a file of its size holds", place)
        return None
    found = np.empty((len(rows), expected), dtype=np.float32)
    if isinstance(rows, Tensor):
        found[:] = rows.detach().to(torch.float32).numpy()
    else:
        first: dict[int, int] = {}
        for number, row in enumerate(rows):
            same = first.setdefault(id(row), number)
            found[number] = _vector(row) if same == number else found[same]
    broken: npt.NDArray[np.bool_] = np.logical_not(np.isfinite(found).all(axis=1))
    problems.add_rows(f"{what}: NaN, infinite, or beyond float32", broken, prefix)
    return None if broken.any() else found


def kind_of(value: object) -> str:
    """Say what a value is, in a few words that a hostile file cannot stretch."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor {tuple(value.shape)!s:.60}"
    if isinstance(value, list | tuple | dict | str):
        return f"a {type(value).__name__} of {len(value):,}"
    if value is None:
        return "nothing"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def is_listing(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, list | tuple)


def _rows(value: object) -> Sequence[Any] | Tensor | None:
    if is_listing(value):
        return value
    if isinstance(value, Tensor) and _is_plain(value) and value.ndim in (1, 2):
        # A stride of 0 lets a few bytes stand for any number of rows.
        return value if value.shape[0] <= MAX_ROWS else None
    return None


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )


def _widths(rows: Sequence[Any]) -> list[int | None]:
    # By identity: one long list, named by many rows, is looked through once.
    known: dict[int, int | None] = {}
    for row in rows:
        if id(row) not in known:
            known[id(row)] = _width(row)
    return [known[id(row)] for row in rows]


def _width(row: object) -> int | None:
    """Return W of a vector; None of what is no vector of real numbers."""
    if isinstance(row, Tensor):
        whole = _is_plain(row) and row.dtype != torch.bool and 0 < row.ndim <= 4
        return row.numel() if whole and row.numel() == max(row.shape) else None
    if is_listing(row) and len(row) <= MAX_WIDTH and all(as_number(number) is not None for number in row):
        return len(row)
    return None


def _vector(row: Any) -> npt.NDArray[Any]:
    if isinstance(row, Tensor):
        # Through torch, which knows bfloat16.
        made: Vectors = row.detach().reshape(-1).to(torch.float32).numpy()
        return made
    with np.errstate(over="ignore"):
        return np.array([as_number(number) for number in row], dtype=np.float64).astype(np.float32)
