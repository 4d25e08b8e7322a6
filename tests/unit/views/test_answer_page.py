"""The page of an answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tans_core.evaluation.space_map import QUERY, Kind, Place, map_answer
from tans_core.results import Retrieval
from tans_core.retrieval.candidate import Candidate
from tans_core.views.answer_page import NearTask, pareto, write_answer_page
from tests.factories.tasks import grating_task
from tests.unit.views.test_run_page import HOSTILE, Tags


def candidate(rank: int, model: str, score: float, macs_m: float, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "home_task": HOSTILE,
        "source": "source",
        "licence": "MIT",
        "similarity": 0.5,
        "capacity": score - 0.5,
        "start": 0.25,
        "fit": 0.25,
        "trust": 0.9,
        "predicted_score": score,
        "plus_minus": 0.4,
        "score": score,
        "home_accuracy": 0.75,
        "params_m": macs_m / 10,
    }
    return Candidate(rank=rank, model=model, macs_m=macs_m, **{**values, **changes})


BEST = candidate(1, "a", 1.5, 40.0, home_accuracy=None)
POOL = [BEST, candidate(2, "b", 1.0, 10.0), candidate(3, "c", 0.5, 20.0), candidate(4, "d", 0.25, 10.1)]


def page(folder: Path, shown: list[Candidate], pool: list[Candidate] = POOL, **changes: Any) -> str:
    places = [Place(Kind.MODEL, one.model, one.home_task, one.source) for one in pool]
    vectors = np.eye(4, dtype=np.float32)
    mapped = map_answer(places, vectors[: len(pool)], {HOSTILE: vectors[0], "leaves": vectors[1]}, vectors[0])
    image = np.full((3, 20, 20), 200, dtype=np.uint8)
    values: dict[str, Any] = {
        "title": HOSTILE,
        "found": Retrieval(tuple(shown), None, "release-1", None, None),
        "limits": "--max-macs-m 40",
        "images": 1200,
        "own": [image],
        "pool": pool,
        "fitting": len(pool),
        "mapped": mapped,
        "nearest": [NearTask(name, cosine, (HOSTILE, "elm"), [image, image], None) for name, cosine in
                    mapped.nearest[QUERY]],
    }  # fmt: skip
    write_answer_page(folder / "answer.html", **{**values, **changes})
    return (folder / "answer.html").read_text()


def test_page_explains_ranks_tasks_and_the_second_and_fetches_nothing(tmp_path: Path) -> None:
    text = page(tmp_path, POOL[:3])
    found = Tags(text)
    assert "script" not in found.tags and HOSTILE not in text
    assert len(found.links) == 5 and all(link.startswith("data:image/png;base64,") for link in found.links)
    assert re.findall(r"https?://", text) == []
    ranked = text.partition('class="ranking"')[2].partition("</ol>")[0]
    assert re.findall(r"<h3><bdi>(\w)</bdi>", ranked) == ["a", "b", "c"]
    reasons = re.findall(r"<p>(.+?)</p>", ranked)
    assert reasons[0].startswith("Its weights are general")
    assert "its size and shape (+0.69 over the average network)" in reasons[0]
    assert reasons[1].endswith("0.50 behind the first, at 0.25 times the compute.") and "reaches 75%" in reasons[1]
    # Which of the two is better is told by 0.5 against 0.4.
    second = text.partition('id="second"')[2].partition("</section>")[0]
    assert "differ by 0.50, more than the interval" in second and "× 0.25" in second and "-0.50" in second
    assert text.count('class="task near"') == 2 and text.count('class="ranked"') == 3 and text.count('class="dot"') == 1
    assert "Limits: --max-macs-m 40." in text and "1,200" in text


def test_answer_of_one_network_without_tasks_of_a_far_data_set(tmp_path: Path) -> None:
    alone = [candidate(1, "a", 1.0, 5.0, trust=0.1)]
    text = page(tmp_path, alone, alone, nearest=[], own=[], limits="")
    assert 'id="second"' not in text and "unlike all tasks" in text
    assert "The tasks of this release are not on this machine." in text and "No limits were set." in text


def test_probed_networks_may_be_ahead_of_their_predictions(tmp_path: Path) -> None:
    probed = [candidate(1, "a", 0.5, 10.0, probe=0.5), candidate(2, "b", 0.8, 10.0)]
    text = page(tmp_path, probed, probed)
    assert "explain 50% of the differences" in text and "0.30 ahead of the first, at about the same compute" in text
    # The interval was measured on predicted scores.
    assert "±" not in text and "interval" not in text and "held 80" not in text
    assert re.findall(r'<i style="left: ([\d.]+)%; right: ([\d.]+)%">', text) == [("0.0", "100.0"), ("100.0", "0.0")]


def test_page_warns_of_images_that_the_zoo_was_trained_on(tmp_path: Path) -> None:
    task = grating_task().info
    text = page(tmp_path, POOL, found=Retrieval(tuple(POOL), task, "release-1", None, None, {"trees": 12}))
    assert "12 are in the task &#39;trees&#39;" in text
    assert "trained on images" not in page(tmp_path, POOL)


def test_plot_shows_the_scores_after_probing(tmp_path: Path) -> None:
    probed = [candidate(1, "a", 1.75, 10.0, predicted_score=0.5, probe=0.5), candidate(2, "b", 0.25, 8.0)]
    text = page(tmp_path, probed, probed)
    assert set(re.findall(r"<title>(\w): score ([^,]+),", text)) == {("a", "1.75"), ("b", "0.25")}
    assert "<td>+1.75</td>" in text and "Scores are those after networks were run" in text


def test_page_counts_the_networks_within_the_limits_and_says_how_many_it_shows(tmp_path: Path) -> None:
    text = page(tmp_path, POOL[:1], fitting=12_345)
    assert "<dd>12,345</dd>" in text and "one of the best\n4." in text


@pytest.mark.parametrize(("left_out", "front"), [("", ["b", "a"]), ("b", ["d", "c", "a"]), ("a", ["b"])])
def test_front_has_no_network_that_is_beaten_at_the_same_compute(left_out: str, front: list[str]) -> None:
    assert [one.model for one in pareto([one for one in POOL if one.model != left_out])] == front
