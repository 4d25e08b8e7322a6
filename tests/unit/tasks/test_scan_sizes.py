"""A scan of images of all sizes: each is kept at its own size, or at the stored size if it is larger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tans_core.tasks.decode import fit_box
from tans_core.tasks.scan import scan
from tests.factories.images import encoded, equal_images, noise, write_class_folders
from tests.unit.tasks.test_scan import SIZE, scan_folder


def test_images_of_all_sizes_are_kept_at_their_own_or_the_stored_size_whatever_the_workers(tmp_path: Path) -> None:
    sizes = [(1, 1), (8, 8), (12, 9), (16, 16), (17, 17), (40, 30), (300, 300), (20, 4), (5, 200), (64, 64)]
    for seed, label in enumerate(("ash", "oak")):
        (tmp_path / "x" / label).mkdir(parents=True)
        for number in range(30):
            pixels = noise(*sizes[number % len(sizes)], seed=100 * seed + number)
            (tmp_path / "x" / label / f"{number}.png").write_bytes(encoded(pixels))
    (task, one), *others = (
        scan_folder(tmp_path / "x", workers=workers, seed=4, resume=resume)
        for workers, resume in ((0, None), (2, None), (3, tmp_path / "resume"))
    )
    kept = dict(zip(task.paths, task.images, strict=True))
    assert len(kept) == 60 - len(one.copies) and set(task.images.sides.tolist()) == {1, 8, 9, 12, 15, 16}
    for path, image in kept.items():
        np.testing.assert_array_equal(image, fit_box(np.asarray(Image.open(tmp_path / "x" / path)), SIZE))
    for other, report in others:
        assert equal_images(other.images, task.images) and other.paths == task.paths and other.info == task.info
        np.testing.assert_array_equal(other.splits, task.splits)
        assert replace(report, seconds=0) == replace(one, seconds=0)


def test_tiny_images_take_the_room_of_tiny_images(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "x", {"ash": 150, "oak": 150}, side=8)
    with scan(root, stored_size_px=512, resume=tmp_path / "resume") as found:
        pixels = 300 * 3 * 8 * 8
        assert found.pixels(np.arange(300)).data.nbytes == found.task("x").images.data.nbytes == pixels
        # Beside the pixels: hashes, thumbnails, and the frame of a file for every few images.
        assert sum(path.stat().st_size for path in (tmp_path / "resume").glob("*.arrow")) < 300 * 1000
        assert {image.shape for images in found.examples.values() for image in images} == {(3, 8, 8)}


def test_examples_are_few_and_small(tmp_path: Path) -> None:
    root = write_class_folders(
        tmp_path / "x", {"ash": 10, "elm": 3, **{f"oak {n:02d}": 1 for n in range(60)}}, side=100
    )
    with scan(root, stored_size_px=256) as found:
        examples = {label: [image.shape for image in images] for label, images in found.examples.items()}
        assert examples.pop("ash") == [(3, 64, 64)] * 8 and examples.pop("elm") == [(3, 64, 64)] * 3
        assert examples == {f"oak {n:02d}": [(3, 64, 64)] for n in range(58)}
        assert found.task("x").images.sides.tolist() == [100] * 73
