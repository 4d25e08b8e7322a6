"""`tans space import`: its output, files and exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tans_core.published.store import read_published
from tests.factories.published import VARIANTS, Payload, save, unseen_set, zoo_and_queries
from tests.factories.published_damage import DAMAGES, damaged
from tests.unit.cli.conftest import Tans


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "files", *zoo_and_queries())


def test_import_says_what_it_found_and_where_it_is(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    VARIANTS["percent"](zoo, queries)
    VARIANTS["counts"](zoo, queries)
    VARIANTS["skipped slots"](zoo, queries)
    zoo_file, queries_file = save(tmp_path, zoo, queries)
    done = tans("space", "import", "--zoo", zoo_file, "--queries", queries_file, "--root", fresh)
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    for said in ("12 of 4 sources", "120, 10 per data set", "functional 24, image features 16", "96 train, 72 val"):
        assert said in words
    assert "the file has percent" in words and "the file has counts" in words
    assert "warning: 120 networks have other numbers" in words
    assert len(read_published(fresh / "data/published").tasks) == 12


def test_json_is_all_of_stdout(tans: Tans, files: tuple[Path, Path], tmp_path: Path) -> None:
    torch.save(unseen_set(), tmp_path / "meta_test_unseen_0_2.pt")
    store = tmp_path / "[store]"
    done = tans(
        *("space", "import", "--zoo", files[0], "--queries", files[1]),
        *("--tests", tmp_path, "--store", store, "--json"),
    )
    made = json.loads(done.out)
    assert (made["tasks"], made["networks"], made["test_tasks"], made["test_features"]) == (12, 120, 1, 7)
    assert made["units"] == {"acc": "fractions", "n_params": "millions"}
    assert made["store"] == str(store) and made["warnings"] == []
    assert read_published(store).test_tasks == ("unseen_0_2",)
    assert "[store]" in tans("space", "import", "--zoo", files[0], "--queries", files[1], "--store", store).out


@pytest.mark.parametrize("name", ["truncated", "whole module", "bomb", "accuracy in two units", "zoo without queries"])
def test_wrong_files_end_with_their_code_and_say_why(tans: Tans, fresh: Path, tmp_path: Path, name: str) -> None:
    zoo, queries = damaged(tmp_path / "x", name)
    done = tans("space", "import", "--zoo", zoo, "--queries", queries, "--root", fresh)
    assert done.code == 4 and done.out == ""
    assert done.err.startswith("DataError: ") and "Traceback" not in done.err
    assert all(words in done.err for words in DAMAGES[name].words)
    assert not (fresh / "data").exists()


def test_payload_is_refused(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    zoo["more"] = Payload(tmp_path / "ran")
    zoo_file, queries_file = save(tmp_path, zoo, queries)
    done = tans("space", "import", "--root", fresh, "--zoo", zoo_file, "--queries", queries_file)
    assert done.code == 4 and "refused: more than data" in done.err
    assert "Traceback" not in done.err and not (tmp_path / "ran").exists()


def test_store_of_something_else_is_left_alone(tans: Tans, files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "store/index.lance").mkdir(parents=True)
    done = tans("space", "import", "--zoo", files[0], "--queries", files[1], "--store", tmp_path / "store")
    assert done.code == 6 and "'index.lance'" in done.err and (tmp_path / "store/index.lance").is_dir()


def test_both_files_are_asked_for(tans: Tans, files: tuple[Path, Path]) -> None:
    done = tans("space", "import", "--zoo", files[0])
    assert done.code == 2 and "--queries" in done.err
