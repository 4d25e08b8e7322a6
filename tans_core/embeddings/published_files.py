"""What the TANS authors' files hold: the zoo, the queries, and the test sets; checked, with units made alike.

Axes: M networks, D data sets, n images of a data set, E functional width, F feature width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tans_core.embeddings.published_topology import WIDTH, check_topology
from tans_core.embeddings.published_values import (
    Floats,
    Problems,
    Vectors,
    as_numbers,
    as_vectors,
    is_listing,
    kind_of,
    room_for,
)
from tans_core.embeddings.torch_file import read_torch_file
from tans_core.errors import DataError, did_you_mean

ZOO_KEYS = ("dataset", "topol", "acc", "f_emb", "n_params")
QUERY_KEYS = {"x_query_train": "train", "x_query_test": "val"}
TEST_PREFIX = "meta_test_"
# A slug of Kaggle, then the first and the last class of the source that a data set was cut to.
_CUT = re.compile(r"(?P<source>.+)_\d+_\d+")
_MAX_NAME = 200
_PERCENT_FROM = 1.5
_COUNT_FROM = 1e4


@dataclass(frozen=True)
class Zoo:
    """`p_mod_zoo.pt`.

    Attributes:
        homes: M names of data sets.
        topology: (M, 45) float32, the integers as they stand.
        functional: (M, E) float32.
        accuracy: (M,) float64 in [0, 1].
        params_m: (M,) float64, millions.
        units: those of the file's `acc` (fractions or percent) and `n_params` (millions or counts).
        warnings: what is odd but harmless.
    """

    homes: tuple[str, ...]
    topology: Vectors
    functional: Vectors
    accuracy: Floats
    params_m: Floats
    units: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass
class Checked:
    """What was read of the files so far, and all that is wrong with them."""

    problems: list[str] = field(default_factory=list)

    def open(self, path: Path) -> Any:
        """Return what a file holds; None, and a problem, where it cannot be read."""
        try:
            return read_torch_file(path)
        except DataError as error:
            self.problems.append(str(error))
            return None

    def add(self, problems: Problems) -> None:
        self.problems += problems.lines()


def source_of(name: str) -> str:
    """Return the source that a data set was cut from: what stands before `_<first class>_<last class>`, or the whole name."""
    match = _CUT.fullmatch(name)
    return match["source"] if match else name


def is_cut(name: str) -> bool:
    """Say whether a data set's name ends in its first and its last class."""
    return _CUT.fullmatch(name) is not None


def read_zoo(path: Path, checked: Checked) -> Zoo | None:
    """Read `p_mod_zoo.pt`, a dict of five parallel lists; None where `checked` got problems of it."""
    data = checked.open(path)
    if data is None:
        return None
    problems = Problems(str(path))
    zoo = _zoo(data, problems, room_for(path.stat().st_size))
    checked.add(problems)
    return None if len(problems) else zoo


def read_queries(path: Path, checked: Checked) -> dict[str, dict[str, Vectors]] | None:
    """Read `p_m_train.pt`: of each data set, by name, (n, F) float32 of `train` and `val`.

    None where `checked` got problems of it.
    """
    data = checked.open(path)
    if data is None:
        return None
    problems, room = Problems(str(path)), room_for(path.stat().st_size)
    if not isinstance(data, dict) or not data:
        problems.add(f"{kind_of(data)}, must be a dict of data sets, each with {' and '.join(QUERY_KEYS)}")
    elif set(ZOO_KEYS) <= set(data):
        problems.add(f"a dict of {', '.join(ZOO_KEYS)}: this is the zoo, pass it as --zoo")
    else:
        found = _queries(data, problems, room)
    checked.add(problems)
    return None if len(problems) else found


def find_tests(folder: Path, checked: Checked) -> list[Path]:
    """Return the files `meta_test_<name>.pt` of a folder, by name."""
    if not folder.is_dir():
        checked.problems.append(f"{folder}: no such folder. Pass the folder of {TEST_PREFIX}<name>.pt as --tests.")
        return []
    found = sorted(path for path in folder.glob(f"{TEST_PREFIX}*.pt") if path.stem != TEST_PREFIX)
    if not found:
        checked.problems.append(f"{folder}: no file {TEST_PREFIX}<name>.pt in it. Unpack p_m_test.zip there.")
    return found


def read_test(path: Path, width: int | None, checked: Checked) -> tuple[str, Vectors] | None:
    """Read the name and the (n, F) float32 queries of one `meta_test_<name>.pt`; its images stay on disk.

    Args:
        path: the file.
        width: F of the data sets of the zoo, where it is known.
        checked: gets the problems.
    """
    data = checked.open(path)
    if data is None:
        return None
    problems, name = Problems(str(path)), path.stem.removeprefix(TEST_PREFIX)
    found = None
    if (bad := _bad_name(name)) is not None:
        problems.add(f"its name {name!r:.60} {bad}")
    elif not isinstance(data, dict) or "query" not in data:
        problems.add(f"{_listed(data)}, must be a dict with 'query'")
    else:
        found = as_vectors(data["query"], "query", problems, room_for(path.stat().st_size), width)
    checked.add(problems)
    return None if found is None else (name, found)


def _zoo(data: object, problems: Problems, room: int) -> Zoo | None:
    if not isinstance(data, dict):
        problems.add(f"{kind_of(data)}, must be a dict of {', '.join(ZOO_KEYS)}")
        return None
    if data and all(isinstance(value, dict) and set(value) & set(QUERY_KEYS) for value in data.values()):
        problems.add("a dict of data sets with queries: this is no zoo, pass it as --queries")
        return None
    absent = [key for key in ZOO_KEYS if key not in data]
    others = [key for key in data if isinstance(key, str) and len(key) <= _MAX_NAME][:100]
    for key in absent:
        problems.add(f"no key {key!r}{did_you_mean(key, others)}")
    counts = {key: _count(data[key]) for key in ZOO_KEYS if key in data}
    lengths = {count for count in counts.values() if count is not None}
    if len(lengths) > 1:
        said = ", ".join(f"{key} {count:,}" for key, count in counts.items() if count is not None)
        problems.add(f"its lists are not equally long: {said}")
    if not absent and lengths == {0}:
        problems.add("no network in it")
    homes = _names(data["dataset"], problems) if "dataset" in data else None
    topology = as_vectors(data["topol"], "topol", problems, room, WIDTH) if counts.get("topol") else None
    odd = check_topology(topology, problems) if topology is not None else 0
    functional = as_vectors(data["f_emb"], "f_emb", problems, room) if counts.get("f_emb") else None
    accuracy = as_numbers(data["acc"], "acc", problems) if "acc" in data else None
    params = as_numbers(data["n_params"], "n_params", problems) if "n_params" in data else None
    for key in ("topol", "f_emb"):
        if key in data and counts[key] is None:
            problems.add(f"{key}: {kind_of(data[key])}, must be a list")
    known = homes if homes is not None and len(lengths) == 1 else None
    scaled, accuracy_unit = _scale_accuracy(accuracy, known, problems)
    millions, params_unit = _scale_params(params, problems)
    if len(problems) or homes is None or topology is None or functional is None or scaled is None or millions is None:
        return None
    warnings = [f"{odd:,} networks hold other numbers in the slots of blocks that they skip; these play no part"] * (
        odd > 0
    )
    return Zoo(
        homes, topology, functional, scaled, millions, {"acc": accuracy_unit, "n_params": params_unit}, tuple(warnings)
    )


def _names(value: object, problems: Problems) -> tuple[str, ...] | None:
    if not is_listing(value):
        problems.add(f"dataset: {kind_of(value)}, must be a list of names")
        return None
    before = len(problems)
    for row, name in enumerate(value):
        if (bad := _bad_name(name)) is not None:
            problems.add(f"dataset: a name {bad}", f"row {row}")
    return tuple(value) if len(problems) == before else None


def _bad_name(name: object) -> str | None:
    if not isinstance(name, str):
        return f"is {kind_of(name)}, must be text"
    if not name.strip() or len(name) > _MAX_NAME:
        return f"is empty, or longer than {_MAX_NAME} characters"
    return None if name.isprintable() else "holds characters that cannot be printed"


def _scale_accuracy(
    accuracy: Floats | None, homes: tuple[str, ...] | None, problems: Problems
) -> tuple[Floats | None, str]:
    """Return accuracies in [0, 1] and the unit that they had; a predictor of percent would learn nothing, silently."""
    if accuracy is None or len(accuracy) == 0:
        return None, ""
    problems.add_rows("acc: below 0", accuracy < 0)
    if accuracy.max() <= _PERCENT_FROM:
        problems.add_rows("acc: above 1, and too little for percent", accuracy > 1)
        return accuracy, "fractions"
    problems.add_rows("acc: above 100", accuracy > 100)
    if homes is not None:
        names = np.array(homes)
        for name in np.unique(names):
            best = accuracy[names == name].max()
            if 0 < best <= 1:
                problems.add(
                    "acc: percent elsewhere, and at most 1 in all networks of a data set", f"{name!r} ({best:.3g})"
                )
    return accuracy / 100, "percent"


def _scale_params(params: Floats | None, problems: Problems) -> tuple[Floats | None, str]:
    """Return numbers of parameters in millions, and the unit that they had."""
    if params is None or len(params) == 0:
        return None, ""
    problems.add_rows("n_params: not above 0", params <= 0)
    if params.max() <= _COUNT_FROM:
        return params, "millions"
    problems.add_rows(
        f"n_params: counts elsewhere, and at most {_COUNT_FROM:,.0f} here", (params <= _COUNT_FROM) & (params > 0)
    )
    return params / 1e6, "counts"


def _queries(data: dict[Any, Any], problems: Problems, room: int) -> dict[str, dict[str, Vectors]]:
    found: dict[str, dict[str, Vectors]] = {}
    for name, entry in data.items():
        if (bad := _bad_name(name)) is not None:
            problems.add(f"the name of a data set {bad}", f"{name!r:.60}")
        elif not isinstance(entry, dict):
            problems.add("not a dict", f"{name!r} ({kind_of(entry)})")
        else:
            found[name] = {}
            for key, split in QUERY_KEYS.items():
                if key not in entry:
                    problems.add(f"no key {key!r}", repr(name))
                elif (vectors := as_vectors(entry[key], key, problems, room, prefix=f"{name!r} ")) is not None:
                    found[name][split] = vectors
                    room -= vectors.nbytes
    widths = {(name, key): vectors.shape[1] for name, splits in found.items() for key, vectors in splits.items()}
    usual = Counter(widths.values()).most_common(1)[0][0] if widths else 0
    for (name, split), width in widths.items():
        if width != usual:
            problems.add(f"features that are not {usual} wide like the most", f"{name!r} {split} ({width} wide)")
    return found


def _count(value: object) -> int | None:
    if is_listing(value):
        return len(value)
    return value.shape[0] if isinstance(value, Tensor) and value.ndim > 0 else None


def _listed(data: object) -> str:
    return f"a dict of {', '.join(map(repr, list(data)[:8]))}" if isinstance(data, dict) else kind_of(data)
