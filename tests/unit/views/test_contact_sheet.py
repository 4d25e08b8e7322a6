from __future__ import annotations

import numpy as np
from PIL import Image

from tans_core.tasks.pixels import Pixels, SquareImages
from tans_core.views.contact_sheet import contact_sheet

LABELS = np.array([0, 0, 0, 1, 1, 2])
LABELS_PX, GAP_PX = 150, 3


def plain(sides: list[int]) -> SquareImages:
    """One grey image of each side, each brighter than the one before."""
    return SquareImages.of([np.full((3, side, side), 40 * place + 10, np.uint8) for place, side in enumerate(sides)])


def cell(sheet: Image.Image, row: int, column: int, side: int) -> Pixels:
    left, top = LABELS_PX + column * (side + GAP_PX), row * (side + GAP_PX)
    return np.asarray(sheet.crop((left, top, left + side, top + side)))


def test_sheet_has_a_row_a_class_with_its_images_in_place() -> None:
    names = ["α", "leftwards arrow", "a very long name that does not fit"]
    sheet = contact_sheet(plain([40] * 6), LABELS, names, per_class=2)
    assert sheet.size == (LABELS_PX + 2 * 43, 3 * 43)
    assert [np.unique(cell(sheet, row, 0, 40)).tolist() for row in range(3)] == [[10], [130], [210]]
    assert np.unique(cell(sheet, 0, 1, 40)).tolist() == [50] and cell(sheet, 2, 1, 40).min() == 255
    assert all((np.asarray(sheet)[row * 43 :][:43, :LABELS_PX] < 200).any() for row in range(3))


def test_images_of_all_sides_are_drawn_alike() -> None:
    sheet = contact_sheet(plain([1, 8, 50, 500, 3, 64]), LABELS, ["a", "b", "c"])
    assert sheet.height == 3 * (64 + GAP_PX)
    drawn = [cell(sheet, row, column, 64) for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0))]
    assert [np.unique(picture).tolist() for picture in drawn] == [[10], [50], [90], [130], [170], [210]]


def test_tiny_images_are_large_enough_to_see() -> None:
    assert contact_sheet(plain([8] * 6), LABELS, ["a", "b", "c"]).height == 3 * (32 + GAP_PX)


def test_class_without_an_image_has_an_empty_row() -> None:
    sheet = contact_sheet(plain([32] * 2), np.array([0, 2]), ["a", "b", "c"])
    assert cell(sheet, 1, 0, 32).min() == 255 and cell(sheet, 2, 0, 32).max() == 50
