"""A writer publishes and rolls back while readers search: no error, and no answer of two releases."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

import tans_core as tans
from tans_core.index.releases import add_models
from tans_core.io import write_json
from tans_core.retrieval.placement import place_models
from tans_core.zoo.weights import save_tensors
from tests.factories.http_service import JSON, ZIP, served, zipped

READERS, SWITCHES, SEARCHES = 3, 6, 20


def with_newcomer(root: Path) -> str:
    """Put a release with one more network into production, and return its id."""
    retriever = tans.Service.open(root).retriever
    card, folder = tans.list_models(root)[0], root / "data/arrivals/again"
    again = card.model_copy(update={"id": "again", "weights": "arrivals/again/weights.safetensors"})
    save_tensors(retriever.load_model(card.id, len(card.class_names)).state_dict(), folder / "weights.safetensors")
    write_json(again.to_dict(), folder / "card.json")
    rows = place_models(retriever.release, [folder])
    return add_models(root / "serving", rows, {again.weights: folder / "weights.safetensors"}).id


def test_no_answer_is_of_two_releases(project: Path, photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("runs"))
    first = tans.list_releases(root)[-1]["id"]
    query = tans.embed(photos, root=root).model_dump_json()
    expected = {first: [one.to_dict() for one in tans.retrieve(photos, root=root, top_k=100)]}
    second = with_newcomer(root)
    expected[second] = [one.to_dict() for one in tans.retrieve(photos, root=root, top_k=100)]
    assert len(expected[second]) == len(expected[first]) + 1
    images, counts, ended = zipped(photos), Counter[str](), threading.Event()
    (tmp_path / "temporary").mkdir()
    with served(root, tmp_path / "temporary", at_once=2, waiting=READERS) as running:

        def search(reader: int) -> None:
            with httpx.Client(base_url=running.client.base_url, timeout=600) as client:
                number = 0
                while number < SEARCHES or not ended.is_set():
                    number += 1
                    # Images are slower: some of the searches that last while the release changes.
                    content, headers = (images, ZIP) if number % 20 == reader else (query, JSON)
                    answer = client.post("/v1/retrieve?top_k=100", content=content, headers=headers)
                    assert answer.status_code == 200, answer.text
                    found: dict[str, Any] = answer.json()
                    assert found["candidates"] == expected[found["release"]]
                    counts[found["release"]] += 1

        with ThreadPoolExecutor(READERS) as readers:
            searches = [readers.submit(search, reader) for reader in range(READERS)]
            try:
                for number in range(SWITCHES):
                    live = second if number % 2 else first
                    before = counts[live]
                    tans.rollback(live, root)
                    assert running.client.get("/health/ready").json()["release"] == live
                    # A reader gets an answer of it, or has failed.
                    while counts[live] == before and not any(one.done() for one in searches):
                        time.sleep(0.01)
            finally:
                ended.set()
            for one in searches:
                one.result()
        assert running.left() == []
    assert set(counts) == {first, second}
    assert counts.total() >= READERS * SEARCHES
