"""Reads the TANS authors' files (zoo, queries and test sets), checks them, and converts their units.

Axes: M networks, T = 45 topology width, n images or rows of a list, E functional width, F feature width, W any width.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from tans_core.embeddings.store import vectors
from tans_core.errors import DataError
from tans_core.published.torch_file import read_torch_file

Vectors = npt.NDArray[np.float32]
Bits = npt.NDArray[np.bool_]
Features = dict[tuple[str, str], Vectors]
"""(n, F) float32 by name of the data set and split: `train`, `val` or `query`."""

# Choices of 20 kernel sizes, 20 expand ratios and 5 depths, (T, 3). A Once-for-All MobileNetV3 has five stages of at
# most four blocks: the first `depth` blocks of a stage exist, and the slots of the others have arbitrary values.
_CHOICES = np.array([(3, 5, 7)] * 20 + [(3, 4, 6)] * 20 + [(2, 3, 4)] * 5)
# Width and type of a row in each of the zoo's lists.
_ZOO_LISTS = {"topol": (45, torch.float32), "acc": (1, torch.float64), "f_emb": (None, torch.float32)}
_ZOO_LISTS |= {"n_params": (1, torch.float64)}
_PERCENT_FROM, _COUNT_FROM = 1.5, 1e4
QUERY_KEYS = {"x_query_train": "train", "x_query_test": "val"}
TEST_PREFIX = "meta_test_"
_MAX_NAME, _MAX_ROWS = 200, 500_000
_NAME = f"must be a name: printable text, at most {_MAX_NAME} characters"
# A small file can claim a tensor of any size, or refer to one tensor a million times.
_FREE_BYTES, _BYTES_PER_FILE_BYTE = 256 * 2**20, 8
_NO_NUMBERS = (torch.bool, torch.complex32, torch.complex64, torch.complex128)
_EXAMPLES, _MAX_PROBLEMS = 3, 20


def source_of(name: str) -> str:
    """Return a data set's source: its name without the ending `_<first class>_<last class>`."""
    return re.sub(r"(?<=.)_\d+_\d+\Z", "", name)


def read_zoo(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """Read `p_mod_zoo.pt`, a dict of five parallel lists. Return the table `models`, and the file's units.

    Raises:
        DataError: the file cannot be read or is invalid; one line for each kind of problem.
    """
    data, problems = _read_dict(path, "dataset", *_ZOO_LISTS)
    homes = data["dataset"] if isinstance(data["dataset"], list | tuple) else [data["dataset"]]
    nameless = np.array([not _is_name(name) for name in homes], dtype=bool)
    problems.rows(f"dataset: {_NAME}", nameless)
    topology, accuracy, functional, params = lists = [
        as_rows(data[key], key, problems, width, dtype) for key, (width, dtype) in _ZOO_LISTS.items()
    ]
    counts = {key: len(rows) for key, rows in zip(("dataset", *_ZOO_LISTS), (homes, *lists), strict=True) if len(rows)}
    if len(set(counts.values())) > 1:
        problems.append("its lists differ in length: " + ", ".join(f"{key} {n:,}" for key, n in counts.items()))
    chosen, exists = slots(topology)
    if (unknown := exists & ~chosen.any(axis=2)).any():
        places = [f"row {row} slot {slot} ({topology[row, slot]:g})" for row, slot in np.argwhere(unknown)[:_EXAMPLES]]
        problems.append(f"topol: not in the search space: {some(places, int(unknown.sum()))}")
    percent, counted = accuracy.max(initial=0) > _PERCENT_FROM, params.max(initial=0) > _COUNT_FROM
    most, least = 100 if percent else 1, _COUNT_FROM if counted else 0
    problems.rows(f"acc: not in 0 to {most}", ((accuracy < 0) | (accuracy > most))[:, 0])
    problems.rows(f"n_params: at most {least:,.0f}, while others are above", (params <= least)[:, 0])
    best: dict[str, float] = {}
    for name, value in zip(homes, accuracy[:, 0].tolist(), strict=False) if percent and not nameless.any() else ():
        best[name] = max(value, best.get(name, 0.0))
    if low := [repr(name) for name, value in best.items() if 0 < value <= 1]:
        problems.append(f"acc: percent elsewhere, but at most 1 in all networks of data sets {some(low)}")
    problems.check()
    columns: dict[str, Any] = {"id": [f"published.{row:06d}" for row in range(len(homes))], "home_task": homes}
    columns |= {"source": [source_of(home) for home in homes], "val_accuracy": accuracy[:, 0] / most}
    columns |= {"params_m": params[:, 0] / (1e6 if counted else 1), "topology": vectors(topology)}
    columns["functional"] = vectors(functional)
    units = {"acc": "percent" if percent else "fractions", "n_params": "counts" if counted else "millions"}
    return pa.table(columns), units


def read_queries(path: Path) -> Features:
    """Read `p_m_train.pt`: features `train` and `val` of each data set, of one width. Raises as `read_zoo` does."""
    data, problems = _read_dict(path)
    features, width = Features(), None
    for name, entry in data.items():
        if not _is_name(name) or not isinstance(entry, dict) or not set(QUERY_KEYS) <= set(entry):
            problems.append(f"{name!r:.60}: {kind_of(entry)}, must be a name and a dict of {', '.join(QUERY_KEYS)}")
            continue
        for key, split in QUERY_KEYS.items():
            rows = features[name, split] = as_rows(entry[key], f"{name!r} {key}", problems, width)
            width = width or rows.shape[1] or None
            problems.room -= rows.nbytes
    problems.check()
    return features


def read_test(path: Path, width: int | None) -> Features:
    """Read the features `query`, (n, W), of a `meta_test_<name>.pt`, no images. Raises as `read_zoo` does."""
    data, problems = _read_dict(path, "query")
    name = path.stem.removeprefix(TEST_PREFIX)
    if not _is_name(name):
        problems.append(f"{name!r:.60}: {_NAME}")
    rows = as_rows(data["query"], "query", problems, width)
    problems.check()
    return {(name, "query"): rows}


def masked_topology(raw: Vectors) -> Vectors:
    """Return one-hot codes, zero for skipped blocks, so that equal networks have equal codes.

    From the published integers, (M, 45), to (M, 135) float32: one of three choices for each kernel, ratio and depth.
    Raises ValueError if the width is not 45.
    """
    chosen, exists = slots(raw)
    return (chosen & exists[:, :, None]).reshape(len(raw), -1).astype(np.float32)


def slots(raw: Vectors) -> tuple[Bits, Bits]:
    """Return the choice in each slot of (M, 45), (M, 45, 3) bool, and whether its block exists, (M, 45) bool."""
    if raw.ndim != 2 or raw.shape[1] != len(_CHOICES):
        raise ValueError(f"topology: {raw.shape}, must be (M, {len(_CHOICES)})")
    blocks = (np.arange(4) < raw[:, 40:, None]).reshape(len(raw), 20)
    return raw[:, :, None] == _CHOICES, np.concatenate([blocks, blocks, np.ones((len(raw), 5), dtype=bool)], axis=1)


class Problems(list[str]):
    """Problems of one file. `room` is the largest size, in bytes, of a list's numbers that is still read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.room = max(_FREE_BYTES, _BYTES_PER_FILE_BYTE * path.stat().st_size)

    def rows(self, what: str, wrong: Bits) -> None:
        """Add a problem that lists the rows marked in (n,) bool, if there are any."""
        if wrong.any():
            rows = np.flatnonzero(wrong)
            self.append(f"{what}: {some([f'row {row}' for row in rows[:_EXAMPLES]], len(rows))}")

    def check(self) -> None:
        """Raise DataError if there is a problem."""
        if self:
            more = [f"{len(self) - _MAX_PROBLEMS:,} more problems"] * (len(self) > _MAX_PROBLEMS)
            raise DataError("\n".join(f"{self.path}: {problem}" for problem in [*self[:_MAX_PROBLEMS], *more]))


def some(places: Sequence[str], count: int | None = None) -> str:
    """List the first places and the number of others."""
    more = (len(places) if count is None else count) - _EXAMPLES
    return ", ".join(places[:_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def as_rows(
    value: object, what: str, problems: Problems, width: int | None, dtype: torch.dtype = torch.float32
) -> npt.NDArray[Any]:
    """Return (n, W), all finite, of a matrix or a list of rows; if invalid, add a problem of `what`, return no row.

    `value` is a tensor (n, W), or a list of tensors (W,) or (1, W), of lists of W numbers or, if W is 1, of numbers.
    `width` is W if it is known; None takes the width of most rows.
    """
    parts: Sequence[Any] = value if isinstance(value, list | tuple) else ()
    if isinstance(value, Tensor) and value.ndim > 0 and len(value) <= _MAX_ROWS:
        parts = value.unbind()
    # By identity: an object that many rows share is read once.
    read = {key: _row(part) for key, part in {id(part): part for part in parts}.items()}
    rows = [read[id(part)] for part in parts]
    wanted = width or max(Counter(map(len, rows)).items(), key=lambda item: item[1], default=(0, 0))[0]
    wrong = np.array([len(row) != wanted for row in rows], dtype=bool)
    if not 0 < dtype.itemsize * len(rows) * wanted <= problems.room:
        problems.append(f"{what}: {kind_of(value)}, must be rows of numbers, no more than fit a file of its size")
    elif wrong.any():
        problems.rows(f"{what}: not {wanted} wide, such as {kind_of(parts[int(wrong.argmax())])}", wrong)
    else:
        matrix: npt.NDArray[Any] = torch.stack([row.to(dtype) for row in rows]).numpy()
        wrong = np.logical_not(np.isfinite(matrix).all(axis=1))
        problems.rows(f"{what}: NaN, infinite or no number", wrong)
        if not wrong.any():
            return matrix
    return np.empty((0, wanted))


def _row(part: Any) -> Tensor:
    """Return (W,) numbers of a row, NaN for other objects; none for a tensor that is not a row of numbers."""
    if isinstance(part, Tensor):
        is_row = part.dtype not in _NO_NUMBERS and part.numel() == max(part.shape, default=1)
        return part.detach().resolve_neg().reshape(-1) if is_row else torch.empty(0)
    numbers = [_number(item) for item in (part if isinstance(part, list | tuple) else [part])]
    return torch.tensor(numbers, dtype=torch.float64)


def _number(value: object) -> float:
    """Return a number, or that of a tensor with one element; NaN for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1 and value.dtype not in _NO_NUMBERS:
        value = value.item()
    # An int can have hundreds of digits.
    valid = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1000
    return float(value) if valid else math.nan  # type: ignore[arg-type]


def kind_of(value: object) -> str:
    """Describe a value in a few words, of limited length for any file."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)!s:.60}"
    size = f" of {len(value):,}" if isinstance(value, list | tuple | dict | str) else ""
    return f"a {type(value).__name__}{size}"


def _read_dict(path: Path, *keys: str) -> tuple[dict[Any, Any], Problems]:
    """Return the dict in a file, and the empty list of its problems; raise DataError if keys are missing."""
    data = read_torch_file(path)
    if not isinstance(data, dict) or not data or not set(keys) <= set(data):
        names = ", ".join(f"{key!r:.40}" for key in list(data)[:8]) if isinstance(data, dict) else ""
        got = f"a dict of {names}" if isinstance(data, dict) else kind_of(data)
        raise DataError(f"{path}: {got}, must be a dict of {', '.join(keys) or 'data sets'}")
    return data, Problems(path)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip()) and len(name) <= _MAX_NAME and name.isprintable()
