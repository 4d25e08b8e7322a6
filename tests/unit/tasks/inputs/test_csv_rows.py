"""Rows inside an open quote, and paths without a suffix."""

from __future__ import annotations

from pathlib import Path

import pytest

from tans_core.errors import DataError
from tans_core.tasks.inputs.rows import NO_FILE
from tans_core.tasks.inputs.table import list_table
from tests.factories.images import encoded, noise
from tests.factories.tables import facts, write_csv


def _thousand(tmp_path: Path, at: dict[int, tuple[str, str, str]]) -> Path:
    """A table of 1,000 rows of three columns; the rows at some numbers (that of the names is 1) are other ones."""
    rows = [at.get(number, (f"i/{number % 6}.png", "ab"[number % 2], "x")) for number in range(2, 1002)]
    return write_csv(tmp_path, "path,label,note\n" + "".join(",".join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "row", [("i/0.png", '"a', "x"), ("i/0.png", "a", '"x'), ('"i/0.png', "a", "x"), ("i/0.png", "a", '"5 inches')]
)
@pytest.mark.parametrize(("closes", "swallowed"), [(None, 995), (900, 894), (7, 1)])
def test_a_quote_that_swallows_rows_is_refused_with_its_row(
    row: tuple[str, str, str], closes: int | None, swallowed: int, tmp_path: Path
) -> None:
    path = _thousand(tmp_path, {6: row, **({closes: row} if closes else {})})
    with pytest.raises(DataError, match=f"row 6: a quote opens in it and swallows {swallowed:,} line"):
        list_table(path)


def test_a_quote_that_swallows_more_than_a_cell_can_hold_is_refused_too(tmp_path: Path) -> None:
    rows = "".join(f"i/{number % 6}.png,a,{'x' * 90}\n" for number in range(3000))
    path = write_csv(tmp_path, f'path,label,note\ni/0.png,"b,x\n{rows}')
    with pytest.raises(DataError, match=r"row 2: a quote opens in it and swallows 1,[\d]+ lines or more"):
        list_table(path)


def test_cells_of_several_lines_that_are_meant_stay(tmp_path: Path) -> None:
    text = 'path,label,note\ni/0.png,a,"one, two,\nthree, four, five\n\nsix"\ni/1.png,b,"say ""yes"""\n'
    assert facts(list_table(write_csv(tmp_path, text))) == [("i/0.png", "a", None), ("i/1.png", "b", None)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_quote_that_opens_in_the_first_line_is_refused_with_its_row(delimiter: str, tmp_path: Path) -> None:
    lines = ['path,label,"note', *(f"i/{number % 6}.png,{'ab'[number % 2]},x" for number in range(40))]
    path = write_csv(tmp_path, "\n".join(lines).replace(",", delimiter) + "\n")
    with pytest.raises(DataError, match="row 1: a quote opens in it and swallows 40 lines"):
        list_table(path)


def test_a_swallowed_row_of_another_kind_of_image_is_found(tmp_path: Path) -> None:
    path = _thousand(tmp_path, {6: ("i/0.png", "a", '"x'), 7: ("i/0.jpeg", "a", 'x"')})
    with pytest.raises(DataError, match="row 6: a quote opens in it and swallows 1 line"):
        list_table(path)


@pytest.mark.parametrize("column", ["image_id", "id", "filename"])
def test_names_without_a_suffix_are_found(column: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / f"images/000{number}.jpg").write_bytes(encoded(noise(seed=number), "JPEG"))
        (tmp_path / f"images/000{number}.txt").write_text("0 0 0 1 1")
    rows = "0000,a\n0001,b\nimages/0002,a\n0003,b\n0004,b\n"
    (tmp_path / "train.csv").write_text(f"{column},label\n{rows}")
    table = list_table(tmp_path / "train.csv")
    assert [label for _, label, _ in facts(table)] == ["a", "b", "b", "a"]
    assert {Path(entry.path or "").name for entry in table.entries} == {f"000{number}.jpg" for number in range(4)}
    assert table.bad == [("0004", NO_FILE)]
    assert "4 paths without a suffix, found by name" in table.notes[0]


def test_a_name_without_a_suffix_that_several_files_have_is_listed(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(encoded(noise(seed=1)))
    (tmp_path / "t.csv").write_text("id,label\ntrain/1,a\ntest/1,b\n1,b\n")
    table = list_table(tmp_path / "t.csv")
    assert len(table.entries) == 2
    assert table.bad == [
        ("1", "no such file, but 2 of this name, such as test/1.png and train/1.png: write the whole path")
    ]
