"""Hostile rows about tables of paths and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tans_core.errors import EmptyClassError, GateError
from tests.factories.hostile_row import Found, HostileRow, healthy

TABLE = "labels.csv"

Rows = list[tuple[str, str]]


def _table(change: Callable[[Rows], Iterable[tuple[str, str]]]) -> Callable[[Path], None]:
    """Make class folders and a table of their files, whose rows are changed before they are written."""

    def make(root: Path) -> None:
        healthy(root)
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
        rows = change([(name, name.split("/")[0]) for name in names])
        (root / TABLE).write_text("".join(f"{path},{label}\n" for path, label in [("path", "label"), *rows]))

    return make


def _relabelled(count: int, label: str) -> Callable[[Rows], Rows]:
    return lambda rows: rows + [(f"ash/{number}.png", label) for number in range(count)]


def _check_two_labels(found: Found) -> None:
    assert found.report.contradictory == 4 and not found.report.bad
    # Each by its path, and by its row.
    names = f"{TABLE}#2: ash/0.png", f"{TABLE}#62: ash/0.png"
    assert names in found.report.contradictions
    assert not any(path.endswith(("ash/0.png", "ash/1.png")) for path in found.task.paths)
    labels = dict(zip(found.manifest["name"].to_pylist(), found.manifest["label"].to_pylist(), strict=True))
    assert [labels[name] for name in names] == ["ash", "elm"]
    assert any("4 files of images under two labels" in warning for warning in found.warnings)


def _gone(rows: Rows) -> Rows:
    return [*rows, ("yew/0.png", "yew"), ("yew/1.png", "yew"), ("../yew.png", "yew")]


PASSING: dict[str, HostileRow] = {
    "table: one path under two labels": HostileRow(
        _table(_relabelled(2, "elm")), _check_two_labels, alone=True, file=TABLE
    ),
}

REFUSED: dict[str, HostileRow] = {
    "table: labels that contradict": HostileRow(
        _table(_relabelled(8, "elm")),
        error=GateError,
        words="16 files of images under two labels",
        alone=True,
        file=TABLE,
    ),
    "table: class of files that are not there": HostileRow(
        _table(_gone),
        error=EmptyClassError,
        words="'yew' (0 of 3: 2 x no such file below the table's folder; 1 x outside the table's folder)",
        alone=True,
        file=TABLE,
    ),
    "table: class of other classes' images": HostileRow(
        _table(_relabelled(2, "yew")), error=EmptyClassError, words="'yew' (0 of 2 files)", alone=True, file=TABLE
    ),
}
