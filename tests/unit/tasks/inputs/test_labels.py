"""Labels of several classes, and classes that have a column each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tans_core.errors import DataError
from tans_core.tasks.inputs.table import list_table
from tests.factories.tables import facts, write_csv


def _labelled(*labels: str) -> str:
    return "path;label\n" + "".join(f"i/{number}.png;{label}\n" for number, label in enumerate(labels))


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (("cat", "dog", "cat|dog", "dog|cat", "cat,dog"), 3),
        (("cat|dog", "dog|bird", "bird|cat"), 3),
        (("['cat']", "['dog']", "['cat', 'dog']"), 1),
        (("cat", "dog", "bird", "cat, dog"), 1),
        *((("cat", "dog", f"cat{mark}dog", f"dog{mark}cat", "cat"), 2) for mark in (" ", "/", " + ", "&")),
    ],
)
def test_several_labels_a_row_are_refused_with_their_number(
    labels: tuple[str, ...], several: int, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"{several} of {len(labels)} rows have several labels.*multi-label"):
        list_table(write_csv(tmp_path, _labelled(*labels)))


@pytest.mark.parametrize(
    "labels",
    [
        ("Smith, John", "Smith, Ann"),
        ("red, small", "red, large", "blue, small", "blue, large"),
        ("sea", "lion", "sea lion", "mountain lion"),
        ("1", "2", "1/2"),
    ],
)
def test_names_with_separators_are_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    assert set(list_table(write_csv(tmp_path, _labelled(*labels))).class_names) == set(labels)


def test_a_column_a_class_is_read_as_classes(tmp_path: Path) -> None:
    text = "filename,cat,dog,bird,age\ni/0.png,1,0,0,3\ni/1.png,0,1.0,0,5\ni/2.png,0,0,1,7\ni/3.png,0,0,0,9\n"
    table = list_table(write_csv(tmp_path, text))
    assert facts(table) == [("i/0.png", "cat", None), ("i/1.png", "dog", None), ("i/2.png", "bird", None)]
    assert table.bad == [("i/3.png", "no label")]


def test_a_column_a_class_with_several_ones_a_row_is_refused(tmp_path: Path) -> None:
    text = "filename,cat,dog\ni/0.png,1,0\ni/1.png,0,1\ni/2.png,1,1\n"
    with pytest.raises(DataError, match="1 of 3 rows have several labels, such as 'cat, dog'"):
        list_table(write_csv(tmp_path, text))
