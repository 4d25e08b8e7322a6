"""Images are kept once at their own size, in memory and on disk, and returned at any other size."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tans_core.errors import DataError
from tans_core.sources.build import build_task
from tans_core.tasks.pixels import INTERPOLATIONS, Pixels, SquareImages
from tans_core.tasks.task import Task, read_info, read_task, write_task
from tests.factories.images import encoded, equal_images, noise
from tests.factories.tasks import grating_task

SIDES = [8, 3, 16, 1, 8]


def square(side: int, seed: int = 0) -> Pixels:
    """(3, s, s) noise."""
    return np.ascontiguousarray(noise(side, side, seed).transpose(2, 0, 1))


def mixed() -> SquareImages:
    return SquareImages.of(square(side, seed) for seed, side in enumerate(SIDES))


def built(folder: Path, sides: list[int], stored_size_px: int) -> Task:
    """Build a task of two classes whose originals have these sides, in turns."""
    for index, label in enumerate(("ash", "oak")):
        (folder / label).mkdir(parents=True)
        for number in range(10 * len(sides)):
            side = sides[number % len(sides)]
            (folder / label / f"{number}.png").write_bytes(encoded(noise(side, side, seed=1000 * index + number)))
    limits = {"max_train": 100, "max_val": 100, "max_test": 100, "min_images_per_class": 2}
    options = {"path": str(folder)}
    return build_task("t", "image-folder", options, "meta-train", stored_size_px=stored_size_px, seed=0, **limits)


def stored_sides(folder: Path) -> list[tuple[int, int]]:
    """The sizes of the PNGs in a task's Parquet."""
    cells = pq.read_table(folder / "images.parquet")["image"].to_pylist()
    return [Image.open(io.BytesIO(cell["bytes"]), formats=["PNG"]).size for cell in cells]


def test_small_originals_stay_small_in_memory_and_on_disk(tmp_path: Path) -> None:
    task = built(tmp_path / "x", [8], stored_size_px=64)
    assert task.info.stored_size_px == 64 and task.images.data.nbytes == 20 * 3 * 8 * 8
    for image, path in zip(task.images, task.paths, strict=True):
        with Image.open(tmp_path / "x" / path) as original:
            np.testing.assert_array_equal(image.transpose(1, 2, 0), np.asarray(original))
    write_task(task, tmp_path / "task")
    assert stored_sides(tmp_path / "task") == [(8, 8)] * 20
    assert equal_images(read_task(tmp_path / "task").images, task.images)


def test_larger_originals_are_reduced_to_the_stored_size_and_none_is_enlarged(tmp_path: Path) -> None:
    task = built(tmp_path / "x", [1, 5, 23, 24, 25, 90], stored_size_px=24)
    originals = task.sizes[:, 0]
    np.testing.assert_array_equal(task.images.sides, np.minimum(originals, 24))
    assert set(originals.tolist()) == {1, 5, 23, 24, 25, 90}
    write_task(task, tmp_path / "task")
    again = read_task(tmp_path / "task")
    assert stored_sides(tmp_path / "task") == [(side, side) for side in task.images.sides.tolist()]
    assert equal_images(again.images, task.images) and again.info == task.info


@pytest.mark.parametrize("crop", [1.0, 0.875, 0.5])
@pytest.mark.parametrize("size_px", [5, 8, 40])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_another_size_is_what_pillow_makes_of_the_middle(interpolation: str, size_px: int, crop: float) -> None:
    images = SquareImages.of([square(16, 1), square(16, 2)])
    margin = 8 * (1 - crop)
    for image, scaled in zip(images, images.at(size_px, interpolation, crop), strict=True):
        middle = Image.fromarray(image.transpose(1, 2, 0))
        box = (margin, margin, 16 - margin, 16 - margin)
        wanted = middle.resize((size_px, size_px), getattr(Image.Resampling, interpolation.upper()), box=box)
        np.testing.assert_array_equal(scaled.transpose(1, 2, 0), np.asarray(wanted))


def test_middle_alone_is_kept_by_a_crop() -> None:
    image = np.zeros((3, 16, 16), np.uint8)
    image[:, 4:12, 4:12] = 200
    (whole,), (middle,) = (SquareImages.of([image]).at(8, "box", crop) for crop in (1.0, 0.5))
    assert whole[0, 0, 0] == 0 and np.unique(middle).tolist() == [200]


def test_images_of_the_size_that_is_asked_for_are_not_copied() -> None:
    array = np.stack([square(8, seed) for seed in range(4)])
    images = SquareImages.of(array)
    assert np.shares_memory(images.data, array) and np.shares_memory(images.at(8), array)
    np.testing.assert_array_equal(images.at(8), array)
    np.testing.assert_array_equal(images.at(8, indices=[2, 0, 2]), array[[2, 0, 2]])
    assert not np.shares_memory(images.at(8, crop=0.5), array)


def test_images_of_all_sides_come_out_in_their_order() -> None:
    images = mixed()
    scaled = images.at(8)
    assert scaled.shape == (len(SIDES), 3, 8, 8) and scaled.dtype == np.uint8
    for place, image in enumerate(images):
        alone = SquareImages.of([image]).at(8)
        np.testing.assert_array_equal(scaled[place], alone[0])
        np.testing.assert_array_equal(images.at(8, indices=[place]), alone)
    np.testing.assert_array_equal(scaled[0], images[0])
    assert images.at(8, indices=[]).shape == SquareImages.of([]).at(8).shape == (0, 3, 8, 8)


def test_images_are_found_by_number_from_both_ends() -> None:
    images = mixed()
    assert [image.shape for image in images] == [(3, side, side) for side in SIDES]
    for place, side in enumerate(SIDES):
        np.testing.assert_array_equal(images[place], square(side, place))
        np.testing.assert_array_equal(images[place - len(SIDES)], images[place])
    taken = images.take([3, 0, 0])
    assert taken.sides.tolist() == [1, 8, 8] and np.array_equal(taken[2], images[0])


@pytest.mark.parametrize("index", [len(SIDES), -len(SIDES) - 1, 1000])
def test_number_that_no_image_has_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        mixed()[index]
    with pytest.raises(IndexError):
        mixed().at(4, indices=[index])


def test_pixels_that_do_not_make_the_sides_are_refused() -> None:
    data = square(4).reshape(-1)
    for sides in ([5], [3], [4, 1], []):
        with pytest.raises(ValueError, match="do not make"):
            SquareImages(data, np.array(sides, dtype=np.int32))
    oblong = [np.zeros((3, 16, 4), np.uint8), np.zeros((3, 2, 8), np.uint8)]
    # Together they have as many bytes as squares of their widths.
    with pytest.raises(ValueError, match=r"\(3, 16, 4\)"):
        SquareImages.of(oblong)
    with pytest.raises(ValueError, match="do not make"):
        SquareImages.of(np.zeros((2, 3, 4, 5), np.uint8))


def test_digests_do_not_depend_on_order_and_tell_pixels_and_sides_apart() -> None:
    images, order = mixed(), [4, 2, 0, 1, 3]
    assert images.take(order).digests == tuple(images.digests[place] for place in order)
    assert len(set(images.digests)) == len(SIDES)
    grey = [np.full((3, side, side), 90, np.uint8) for side in (2, 4)]
    assert len(set(SquareImages.of(grey).digests)) == 2


def test_task_scales_its_images_once_for_each_way_that_is_asked_for() -> None:
    task = grating_task()
    ways: list[dict[str, Any]] = [
        {"size_px": 8},
        {"size_px": 9},
        {"size_px": 8, "interpolation": "box"},
        {"size_px": 8, "crop": 0.5},
        {"size_px": 8, "split": "val"},
    ]
    first = [task.pixels(**way) for way in ways]
    assert all(task.pixels(**way) is pixels for way, pixels in zip(ways, first, strict=True))
    for one, other in ((0, 2), (0, 3)):
        assert not np.array_equal(first[one], first[other])
    np.testing.assert_array_equal(first[4], first[0][task.splits == "val"])
    np.testing.assert_array_equal(task.where("val"), np.flatnonzero(task.splits == "val"))
    with pytest.raises(ValueError, match="want one of train, val, test"):
        task.pixels(8, split="dev")


def test_task_with_other_images_forgets_what_was_scaled() -> None:
    task = grating_task()
    dark = SquareImages.of(np.zeros_like(task.pixels(16)))
    assert task.pixels(8).any() and not dataclasses.replace(task, images=dark).pixels(8).any()
    assert task.pixels(8).any()


def test_what_was_scaled_and_hashed_is_not_pickled() -> None:
    task = grating_task()
    before = pickle.dumps(task)
    task.pixels(64)
    assert task.images.digests
    assert len(pickle.dumps(task)) == len(before)
    again = pickle.loads(pickle.dumps(task))
    assert equal_images(again.images, task.images) and again.images.digests == task.images.digests
    np.testing.assert_array_equal(again.pixels(64), task.pixels(64))
    assert again.info == task.info


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (noise(9, 8), "9x8 RGB"),
        (noise(17, 17), "17x17 RGB"),
        (noise(8, 8)[:, :, 0], "8x8 L"),
    ],
)
def test_image_that_is_no_square_or_too_large_is_refused_with_its_row(
    tmp_path: Path, picture: Pixels, words: str
) -> None:
    write_task(grating_task(size=16), tmp_path / "task")
    path = tmp_path / "task/images.parquet"
    table = pq.read_table(path)
    cells = table["image"].to_pylist()
    cells[7]["bytes"] = encoded(picture)
    images = pa.array(cells, type=table.schema.field("image").type)
    pq.write_table(table.set_column(table.column_names.index("image"), "image", images), path)
    with pytest.raises(DataError, match=rf"images\.parquet, row 7: got {words}, want a square of at most 16 pixels"):
        read_task(tmp_path / "task")


def test_task_written_when_all_images_had_one_size_is_still_read(tmp_path: Path) -> None:
    task = grating_task(size=16)
    write_task(task, tmp_path / "task")
    path = tmp_path / "task/task.json"
    raw = json.loads(path.read_text())
    raw["image_size_px"] = raw.pop("stored_size_px")
    del raw["licence_texts"]
    raw["licence"] = "ask Ann before you use them"
    path.write_text(json.dumps(raw))
    info = read_info(tmp_path / "task")
    assert info.stored_size_px == 16 and info.licence.startswith("LicenseRef-")
    assert info.licence_texts == {info.licence: "ask Ann before you use them"}
    changed = dataclasses.replace(info, licence=task.info.licence, licence_texts=task.info.licence_texts)
    assert changed == task.info
    assert equal_images(read_task(tmp_path / "task").images, task.images)


def test_file_that_lacks_a_field_says_so(tmp_path: Path) -> None:
    write_task(grating_task(), tmp_path / "task")
    path = tmp_path / "task/task.json"
    raw = json.loads(path.read_text())
    del raw["stored_size_px"]
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"task\.json: not a task of this version .*stored_size_px"):
        read_info(tmp_path / "task")
