"""Wrong files: the error names the problem and its place, and no code in the file is run."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.errors import DataError
from tans_core.published.store import import_published
from tans_core.published.torch_file import read_torch_file
from tests.factories.published import FEATURES, Content, Payload, save, unseen_set, zoo_and_queries
from tests.factories.published_damage import DAMAGES, damaged


def refusal(zoo: Path, queries: Path, tests: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        import_published(zoo, queries, zoo.parent / "store", tests)
    assert not (zoo.parent / "store").exists()
    return str(caught.value)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_said_in_words(tmp_path: Path, name: str) -> None:
    begun = time.monotonic()
    said = refusal(*damaged(tmp_path, name))
    assert all(words in said for words in DAMAGES[name].words), said
    assert str(tmp_path) in said
    assert "nothing was written" in said and "docs/published.md" in said
    assert len(said) < 4000 and "add_safe_globals" not in said
    assert time.monotonic() - begun < 30


def test_all_problems_are_listed_not_the_first_alone(tmp_path: Path) -> None:
    together = (
        "accuracy NaN",
        "embedding of another width",
        "kernel size",
        "parameters zero",
        "queries empty",
    )
    said = refusal(*damaged(tmp_path, *together, "name unprintable"))
    assert "6 problems, " in said
    for name in together:
        assert all(words in said for words in DAMAGES[name].words), said


def test_problem_of_many_rows_is_one_line(tmp_path: Path) -> None:
    zoo, queries = zoo_and_queries()
    zoo["acc"] = [float("nan")] * 120
    said = refusal(*save(tmp_path, zoo, queries))
    assert "1 problem," in said and "acc: NaN, infinite or no number: row 0, row 1, row 2 and 117 more" in said


@pytest.mark.parametrize("means", ["system", "open", "exec"])
@pytest.mark.parametrize("place", ["zoo", "queries", "test", "bare", "legacy", "protocol 4"])
def test_payload_is_refused_and_never_run(tmp_path: Path, means: str, place: str) -> None:
    target = tmp_path / "ran"
    zoo, queries = zoo_and_queries(datasets=2)
    payload, tests = Payload(target, means), None
    if place == "queries":
        queries["more_0_1"] = payload
    elif place != "test":
        zoo["more"] = payload
    files = save(tmp_path / "files", zoo, queries)
    if place == "test":
        tests = tmp_path / "tests"
        tests.mkdir()
        torch.save({**unseen_set(), "more": payload}, tests / "meta_test_x_0_2.pt")
    elif place == "bare":
        files[0].write_bytes(pickle.dumps(payload, 2))
    elif place == "legacy":
        torch.save(zoo, files[0], _use_new_zipfile_serialization=False)
    elif place == "protocol 4":
        torch.save(zoo, files[0], pickle_protocol=4)
    said = refusal(*files, tests)
    if place in ("zoo", "queries", "test"):
        assert "refused" in said and "None of it was run" in said
    assert not target.exists()


def test_the_payload_of_these_tests_is_live(tmp_path: Path) -> None:
    kinds = ("system", "open", "exec")
    torch.save([Payload(tmp_path / kind, kind) for kind in kinds], tmp_path / "payload.pt")
    script = f"import torch; torch.load({str(tmp_path / 'payload.pt')!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert all((tmp_path / kind).exists() for kind in kinds)


def test_numpy_itself_is_not_reached_by_scalars(tmp_path: Path) -> None:
    """An object scalar, which NumPy would make of any object that it is given, is no number."""

    class Scalar:
        def __reduce__(self) -> tuple[object, ...]:
            return np.float64(1).__reduce__()[0], (np.dtype("O"), [1])

    torch.save({"acc": Scalar()}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="not a plain number"):
        read_torch_file(tmp_path / "x.pt")


TEST_DAMAGES: dict[str, tuple[Content | list[int], str]] = {
    "no query": ({"x_train": torch.zeros(1)}, "a dict of 'x_train', must be a dict of query"),
    "no dict": ([1], "a list of 1, must be a dict of query"),
    "another width": ({"query": torch.zeros(3, 5)}, "query: not 16 wide, such as a float32 tensor (5,): row 0"),
    "NaN": ({"query": torch.full((2, FEATURES), torch.nan)}, "query: NaN, infinite or no number"),
    "empty": ({"query": []}, "query: a list of 0, must be rows"),
}


@pytest.mark.parametrize("name", TEST_DAMAGES)
def test_damaged_test_set_is_named_beside_good_ones(tmp_path: Path, name: str) -> None:
    content, words = TEST_DAMAGES[name]
    torch.save(unseen_set(), tmp_path / "meta_test_good_0_2.pt")
    torch.save(content, tmp_path / "meta_test_bad_0_2.pt")
    said = refusal(*save(tmp_path, *zoo_and_queries()), tmp_path)
    assert "1 problem," in said and "meta_test_bad_0_2.pt: " in said and words in said


def test_folder_without_test_sets_is_said(tmp_path: Path) -> None:
    files = save(tmp_path / "files", *zoo_and_queries())
    assert "no file meta_test_<name>.pt" in refusal(*files, tmp_path / "nowhere")
    assert "no file meta_test_<name>.pt" in refusal(*files, tmp_path)
