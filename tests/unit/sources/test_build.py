from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tans_core.errors import DataError, ParamsError, TooFewImagesError
from tans_core.licences import Licence
from tans_core.sources.base import Sample
from tans_core.sources.build import Prepared, build_task, planned, prepare
from tans_core.tasks.assemble import assemble
from tans_core.tasks.duplicates import contradictory, find_copies, near_copies, repeated
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import Task, read_task, write_task
from tests.factories.images import encoded, equal_images, noise, write_class_folders

GREEK = {"characters": "greek-lower", "count": 4, "images": 240, "look": "poster"}


def build(source: str = "matplotlib", name: str = "greek", workers: int = 0, **options: object) -> Task:
    return build_task(
        name,
        source,
        options or GREEK,
        "meta-train",
        stored_size_px=24,
        max_train=100,
        max_val=20,
        max_test=40,
        min_images_per_class=4,
        seed=11,
        workers=workers,
    )


def rows(labels: list[str], groups: list[str] | None = None, splits: list[str | None] | None = None) -> list[Prepared]:
    groups, splits = groups or [""] * len(labels), splits or [None] * len(labels)
    samples = (
        Sample(noise(20, 20, seed=index), label, group, f"{index}.png", split)
        for index, (label, group, split) in enumerate(zip(labels, groups, splits, strict=True))
    )
    return [prepare(sample, 16) for sample in samples]


def put_together(prepared: list[Prepared], minimum: int = 1) -> Task:
    return assemble(
        prepared,
        planned("t", prepared, minimum, 0),
        lambda chosen: SquareImages.of(prepared[index].image for index in chosen),
        name="t",
        source="s",
        licence=Licence("MIT"),
        role="meta-train",
        stored_size_px=16,
        limits=(None, None, None),
        seed=0,
    )


def test_caps_hold_and_counts_are_those_of_the_rows() -> None:
    task = build()
    assert task.info.counts == {"train": 100, "val": 20, "test": 40}
    assert task.images.sides.tolist() == [24] * 160
    for split in ("train", "val", "test"):
        assert np.bincount(task.labels[task.where(split)], minlength=4).min() >= 5


def test_no_typeface_and_no_content_lies_in_two_splits() -> None:
    from tans_core.sources.fonts import TEXT_FACES

    task = build()
    groups = [TEXT_FACES[path.split("/")[0]] for path in task.paths]
    for group in set(groups):
        assert len({split for split, name in zip(task.splits, groups, strict=True) if name == group}) == 1
    assert len(set(task.sha256)) == len(task.sha256)


def test_seed_decides_and_workers_do_not(tmp_path: Path) -> None:
    folders = []
    for number, workers in enumerate((0, 2)):
        folders.append(tmp_path / str(number))
        write_task(build(workers=workers), folders[-1])
    for file in ("images.parquet", "task.json"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()
    assert build(name="other").sha256 != build().sha256


def test_written_task_is_read_back_equal(tmp_path: Path) -> None:
    task = build()
    write_task(task, tmp_path / "greek")
    again = read_task(tmp_path / "greek")
    assert again.info == task.info and again.paths == task.paths and again.sha256 == task.sha256
    assert equal_images(again.images, task.images)
    np.testing.assert_array_equal(again.labels, task.labels)
    np.testing.assert_array_equal(again.splits, task.splits)
    np.testing.assert_array_equal(again.sizes, task.sizes)


def test_parquet_says_to_hugging_face_what_its_columns_are(tmp_path: Path) -> None:
    write_task(build(), tmp_path / "greek")
    schema = pq.read_schema(tmp_path / "greek" / "images.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": ["α", "β", "γ", "δ"]}
    assert set(features) == set(schema.names)
    assert {field.name for field in schema.field("image").type} == {"bytes", "path"}


def test_hugging_face_datasets_opens_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    task = build()
    write_task(task, tmp_path / "greek")
    table = datasets.Dataset.from_parquet(str(tmp_path / "greek" / "images.parquet"), cache_dir=str(tmp_path / "cache"))
    assert table.features["label"].names == list(task.info.class_names)
    np.testing.assert_array_equal(np.asarray(table[0]["image"]).transpose(2, 0, 1), task.images[0])


def test_normalisation_is_that_of_the_train_images() -> None:
    task = build()
    train = task.pixels(24, split="train").astype(np.float64) / 255
    np.testing.assert_allclose(task.info.mean, train.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(task.info.std, train.std(axis=(0, 2, 3)), atol=1e-6)


def test_images_of_every_side_count_the_same_in_the_normalisation(tmp_path: Path) -> None:
    for index, label in enumerate(("ash", "oak")):
        (tmp_path / label).mkdir()
        for number in range(30):
            side = (4, 24)[number % 2]
            pixels = noise(side, side, seed=30 * index + number) // 4 + (180 if side == 4 else 0)
            (tmp_path / label / f"{number}.png").write_bytes(encoded(pixels.astype(np.uint8)))
    task = build("image-folder", path=str(tmp_path))
    train = [task.images[index] / 255 for index in task.where("train")]
    assert {image.shape[-1] for image in train} == {4, 24}
    # As if each image were enlarged, pixel by pixel, to one size.
    alike = np.stack([np.kron(image, np.ones((24 // image.shape[-1],) * 2)) for image in train])
    np.testing.assert_allclose(task.info.mean, alike.mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(task.info.std, alike.std(axis=(0, 2, 3)), atol=1e-6)


def test_rows_are_shuffled_within_splits() -> None:
    assert len(set(build().labels[:20].tolist())) >= 3


def test_copies_go_and_contradictions_go_altogether() -> None:
    made = rows(["a", "a", "b", "b"])
    copy = Prepared(**{**made[0].__dict__, "path": "copy"})
    lie = Prepared(**{**made[1].__dict__, "path": "lie", "label": "b"})
    again = Prepared(**{**made[1].__dict__, "path": "again"})
    images = [*made, copy, lie, again]
    kept, pairs = contradictory(images, [image.content for image in images])
    assert kept == [0, 2, 3, 4]
    assert pairs == [("1.png", "lie"), ("again", "lie")]
    found = find_copies([images[index] for index in kept])
    assert found.kept == [0, 1, 2] and found.copies == ["copy"]


def test_keys_that_repeat_come_in_the_order_of_their_first() -> None:
    assert repeated(["a", "b", "c", "b", "a", "b"]) == [[0, 4], [1, 3, 5]]
    assert repeated(["a", "b"]) == repeated([]) == []


def test_equal_pixels_are_near_copies_even_where_they_show_nothing() -> None:
    hashes, blank = np.array([5, 9, 5], dtype=np.uint64), np.zeros((3, 256), dtype=np.uint8)
    first, second, third = near_copies(hashes, blank, [b"a", b"a", b"b"]).tolist()
    assert first == second != third
    assert near_copies(hashes, blank, [b"a", b"b", b"c"]).tolist() == [0, 1, 2]


def test_equal_pixels_in_another_shape_are_other_content() -> None:
    flat = np.zeros((8, 2, 3), np.uint8)
    wide = np.zeros((2, 8, 3), np.uint8)
    contents = {prepare(Sample(image, "a", "", "p"), 16).content for image in (flat, wide)}
    assert len(contents) == 2


def test_scarce_classes_are_named() -> None:
    with pytest.raises(TooFewImagesError, match=r"1 of 2 classes has fewer than 3 usable images: 'b' \(2\)"):
        put_together(rows(["a", "a", "a", "b", "b"]), minimum=3)


def test_one_class_is_no_task() -> None:
    with pytest.raises(DataError, match="at least two"):
        put_together(rows(["a"] * 6))


def test_a_class_that_cannot_be_split_by_its_groups_is_refused(tmp_path: Path) -> None:
    # One image a class: nothing is left for val and test.
    write_class_folders(tmp_path, {"ash": 1, "oak": 1})
    with pytest.raises(TooFewImagesError):
        build("image-folder", path=str(tmp_path))


def test_an_image_folder_is_a_source_too(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ash": 30, "oak": 30})
    task = build("image-folder", path=str(tmp_path))
    assert task.info.class_names == ("ash", "oak") and task.info.source == "image-folder"
    assert set(task.splits) == {"train", "val", "test"}


def test_given_splits_need_train_and_test() -> None:
    kept = put_together(rows(["a", "b"] * 4, splits=["train", "train", "train", "train", "val", "val", "test", "test"]))
    assert kept.info.counts == {"train": 4, "val": 2, "test": 2}
    with pytest.raises(DataError, match="want train and test"):
        put_together(rows(["a", "b"] * 2, splits=["val", "val", "test", "test"]))


def test_unknown_sources_and_options_are_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="did you mean 'matplotlib'"):
        build("matplotlob")
    with pytest.raises(
        ParamsError, match=r"kindd: unknown key \(did you mean 'kind'\?\); options\.images: got 'x', want int"
    ):
        build(kindd="characters", images="x")
    with pytest.raises(ParamsError, match=r"want one of .*greek-lower"):
        build(characters="greek-lowr")
