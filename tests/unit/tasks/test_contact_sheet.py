from __future__ import annotations

import numpy as np

from tans_core.tasks.contact_sheet import contact_sheet, sample_strip


def _images() -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([0, 0, 0, 1, 1, 2])
    images = np.stack([np.full((3, 8, 8), 40 * index + 10, np.uint8) for index in range(6)])
    return images, labels


def test_sheet_has_a_row_a_class_with_its_images_in_place() -> None:
    images, labels = _images()
    sheet = contact_sheet(
        images, labels, ["α", "leftwards arrow", "a very long name that does not fit"], per_class=2, scale=2
    )
    assert sheet.size == (150 + 2 * 19, 3 * 19)
    pixels = np.asarray(sheet)
    assert pixels[5, 155, 0] == 10 and pixels[5, 155 + 19, 0] == 50
    assert pixels[19 + 5, 155, 0] == 130
    assert (pixels[:, :150] < 200).any()


def test_strip_takes_the_classes_in_turn() -> None:
    images, labels = _images()
    strip = np.asarray(sample_strip(images, labels, count=4))
    assert strip[4, 4 :: 8 + 3, 0].tolist() == [10, 130, 210, 50]


def test_strip_of_fewer_images_than_wanted_is_shorter() -> None:
    images, labels = _images()
    assert sample_strip(images, labels, count=50).width == 6 * 11 - 3
