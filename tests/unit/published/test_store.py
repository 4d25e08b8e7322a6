"""The published files in all variants: what is read equals what was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.embeddings.store import FeatureRows, read_table
from tans_core.errors import DataError, StoreError
from tans_core.published.files import masked_topology, source_of
from tans_core.published.fit import PublishedData
from tans_core.published.store import import_published, read_published
from tests.factories.published import (
    FEATURES,
    VARIANTS,
    WIDTH,
    Content,
    save,
    topology_row,
    unseen_set,
    zoo_and_queries,
)

PROJECT = Path(__file__).resolve().parents[3]


def imported(folder: Path, zoo: Content, queries: Content) -> PublishedData:
    import_published(*save(folder, zoo, queries), folder / "store")
    return read_published(folder / "store")


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_reads_back_as_what_it_stands_for(tmp_path: Path, name: str) -> None:
    zoo, queries = zoo_and_queries()
    plain, plain_queries = zoo_and_queries()
    VARIANTS[name](zoo, queries)
    if name in ("ragged", "skipped slots"):
        plain, plain_queries = zoo, queries
    read = imported(tmp_path, zoo, queries)
    assert read.tasks == tuple(sorted(plain_queries))
    assert [read.tasks[home] for home in read.home.tolist()] == plain["dataset"]
    assert read.topology.tolist() == plain["topol"]
    torch.testing.assert_close(read.functional, torch.stack(plain["f_emb"]), rtol=0, atol=0)
    torch.testing.assert_close(read.accuracy, torch.tensor(plain["acc"]))
    torch.testing.assert_close(read.params_m, torch.tensor(plain["n_params"]))
    for number, task in enumerate(read.tasks):
        for key, features in (("x_query_train", read.train_features), ("x_query_test", read.val_features)):
            torch.testing.assert_close(features[number], torch.stack(plain_queries[task][key]), rtol=0, atol=0)


def test_shapes_types_and_sources(tmp_path: Path) -> None:
    read = imported(tmp_path, *zoo_and_queries(datasets=5, nets=3))
    assert read.topology.shape == (15, 45) and read.functional.shape == (15, WIDTH)
    assert {t.dtype for t in (read.topology, read.functional, read.accuracy, read.params_m)} == {torch.float32}
    assert read.home.dtype == torch.int64 and read.home.min() == 0 and read.home.max() == 4
    assert read.sources == ("cells2", "leaf-shapes_ann", "leaf-shapes_ann", "old-coins", "street_signs")
    assert read.train_features[0].shape == (8, FEATURES) and read.val_features[0].shape == (6, FEATURES)
    assert read.test_tasks == () and read.test_features == ()


def test_tables_have_the_columns_of_the_stages(tmp_path: Path) -> None:
    imported(tmp_path, *zoo_and_queries(datasets=2))
    models = read_table(tmp_path / "store", "models")
    expected = ["id", "home_task", "source", "val_accuracy", "params_m", "topology", "functional"]
    assert models.column_names == expected
    assert models["id"].to_pylist()[::19] == ["published.000000", "published.000019"]
    features = FeatureRows.read(tmp_path / "store")
    assert set(features.splits) == {"train", "val"} and set(features.labels.tolist()) == {-1}
    assert len(features.of("leaf-shapes_ann_0_5")) == 14


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("gemstones-images_lsind18_18_36", "gemstones-images_lsind18"),
        ("recognizance1_0_5", "recognizance1"),
        ("a_1_2_3", "a_1"),
        ("whole", "whole"),
        ("_0_1", "_0_1"),
    ],
)
def test_source_is_what_stands_before_the_classes(name: str, source: str) -> None:
    assert source_of(name) == source


def test_units_are_said(tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    plain = import_published(*save(tmp_path / "a", zoo, queries), tmp_path / "a/store")
    VARIANTS["percent and counts as NumPy ints"](zoo, queries)
    other = import_published(*save(tmp_path / "b", zoo, queries), tmp_path / "b/store")
    assert plain["units"] == {"acc": "fractions", "n_params": "millions"}
    assert other["units"] == {"acc": "percent", "n_params": "counts"}
    np.testing.assert_allclose(other["accuracy"], plain["accuracy"])
    np.testing.assert_allclose(other["params_m"], plain["params_m"])
    assert [plain[key] for key in ("tasks", "sources", "networks", "warnings")] == [12, 4, 120, []]


def test_what_is_odd_but_harmless_is_warned_of(tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries(datasets=3)
    VARIANTS["skipped slots"](zoo, queries)
    zoo["dataset"] = ["whole" if name == "cells2_2_7" else name for name in zoo["dataset"]]
    queries["whole"] = queries.pop("cells2_2_7")
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("whole", "leaf-shapes_ann_50_60"):
        torch.save(unseen_set(), tests / f"meta_test_{name}.pt")
    made = import_published(*save(tmp_path, zoo, queries), tmp_path / "store", tests)
    slots, names, seen, shared = made["warnings"]
    assert "30 networks" in slots and "these are ignored" in slots
    assert "1 names do not end in _<first class>_<last class>" in names and "'whole'" in names
    assert "not unseen: 'whole'" in seen and "'leaf-shapes_ann'" in shared


def test_test_sets_are_read_by_name(tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    contents = {"unseen-b_0_2": unseen_set(1), "unseen-a_0_2": unseen_set(2)}
    contents["unseen-b_0_2"]["query"] = torch.stack(contents["unseen-b_0_2"]["query"])
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "notes.txt").touch()
    for name, content in contents.items():
        torch.save(content, tests / f"meta_test_{name}.pt")
    steps: list[str] = []
    made = import_published(*save(tmp_path, zoo, queries), tmp_path / "store", tests, steps.append)
    read = read_published(tmp_path / "store")
    assert read.test_tasks == ("unseen-a_0_2", "unseen-b_0_2")
    assert torch.equal(read.test_features[0], torch.stack(contents["unseen-a_0_2"]["query"]))
    assert torch.equal(read.test_features[1], contents["unseen-b_0_2"]["query"])
    assert (made["test_tasks"], made["test_features"]) == (2, 14)
    assert steps[2:4] == ["reading meta_test_unseen-a_0_2.pt", "reading meta_test_unseen-b_0_2.pt"]
    # Another import without them leaves none behind.
    import_published(*save(tmp_path, zoo, queries), tmp_path / "store")
    assert read_published(tmp_path / "store").test_tasks == ()


def test_images_of_test_sets_stay_on_disk(tmp_path: Path) -> None:
    for folder, images in (("small", 1), ("large", 400)):
        (tmp_path / folder).mkdir()
        torch.save(unseen_set(images=images, image_size_px=128), tmp_path / folder / "meta_test_x_0_2.pt")
    size = (tmp_path / "large/meta_test_x_0_2.pt").stat().st_size
    zoo, queries = save(tmp_path, *zoo_and_queries())
    script = f"""
import resource
from pathlib import Path
from tans_core.published.store import import_published
for folder in ("small", "large"):
    import_published(Path({str(zoo)!r}), Path({str(queries)!r}), Path("store"), Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{script}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert size > 70_000_000
    assert after - before < size / 3


def test_the_same_files_make_the_same_digests(tmp_path: Path) -> None:
    files = save(tmp_path, *zoo_and_queries())
    for store in ("one", "two"):
        import_published(*files, tmp_path / store)
    for table in ("models", "task_features"):
        one, two = ((tmp_path / store / f"{table}.digest").read_text() for store in ("one", "two"))
        assert one == two


def test_store_that_no_import_made_is_left_alone(tmp_path: Path) -> None:
    files = save(tmp_path, *zoo_and_queries(datasets=2))
    (tmp_path / "store").mkdir()
    (tmp_path / "store/index.lance").mkdir()
    (tmp_path / "file").touch()
    for store in ("store", "file"):
        with pytest.raises(StoreError, match="--store"):
            import_published(*files, tmp_path / store)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["index.lance"]
    import_published(*files, tmp_path / "good")
    (tmp_path / "good/mine.txt").touch()
    with pytest.raises(StoreError, match=r"'mine\.txt'"):
        import_published(*files, tmp_path / "good")


def test_store_that_is_missing_or_torn_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tans space import"):
        read_published(tmp_path)
    imported(tmp_path, *zoo_and_queries(datasets=2))
    (tmp_path / "store/task_features.lance").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="task_features are missing"):
        read_published(tmp_path / "store")


def test_failed_import_leaves_the_earlier_store_as_it_was(tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    files = save(tmp_path, zoo, queries)
    import_published(*files, tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()}
    zoo["acc"][3] = float("inf")
    save(tmp_path, zoo, queries)
    with pytest.raises(DataError, match="row 3"):
        import_published(*files, tmp_path / "store")
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 3


def test_masked_topology_is_that_of_a_slow_reading() -> None:
    rng = np.random.default_rng(3)
    raw = np.array([topology_row(rng) for _ in range(50)], dtype=np.float32)
    codes = masked_topology(raw)
    assert codes.shape == (50, 20 * 3 + 20 * 3 + 15) and codes.dtype == np.float32
    for row, code in zip(raw.astype(int).tolist(), codes, strict=True):
        expected = []
        for start, kinds in ((0, (3, 5, 7)), (20, (3, 4, 6))):
            for slot in range(20):
                exists = slot % 4 < row[40 + slot // 4]
                expected += [float(exists and row[start + slot] == kind) for kind in kinds]
        for stage in range(5):
            expected += [float(row[40 + stage] == depth) for depth in (2, 3, 4)]
        assert code.tolist() == expected


def test_equal_networks_have_equal_codes_and_others_do_not() -> None:
    first = np.array([topology_row(np.random.default_rng(0))], dtype=np.float32)
    first[0, 40:] = 3
    skipped, block, depth = first.copy(), first.copy(), first.copy()
    skipped[0, [3, 7, 23]] = [7, 0, 99]
    block[0, 2] = 3 if first[0, 2] != 3 else 5
    depth[0, 44] = 4
    assert np.array_equal(masked_topology(skipped), masked_topology(first))
    assert not np.array_equal(masked_topology(block), masked_topology(first))
    assert not np.array_equal(masked_topology(depth), masked_topology(first))
    with pytest.raises(ValueError, match="45"):
        masked_topology(first[:, :44])
