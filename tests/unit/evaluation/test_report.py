from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tans_core.evaluation.compare import Budget, FitRow
from tans_core.evaluation.meta_test import Evaluation, Story
from tans_core.evaluation.report import _why, render_report, sample_strips
from tans_core.evaluation.strategies import Choice
from tans_core.retrieval.candidate import Candidate
from tans_core.tasks.pixels import SquareImages
from tests.factories.tasks import grating_task

HOSTILE = "</td><script>alert('$x_1$')</script>\"onload=\"&amp;"


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "img", "source", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def candidate(rank: int, trust: float = 1.0, **parts: float) -> Candidate:
    score = sum(parts.values())
    return Candidate(
        rank=rank,
        model=HOSTILE,
        home_task=HOSTILE,
        source=HOSTILE,
        licence=HOSTILE,
        similarity=0.25,
        trust=trust,
        predicted_score=score,
        plus_minus=1.0,
        score=score,
        home_accuracy=0.9,
        params_m=0.1,
        macs_m=1.0,
        **parts,
    )


@pytest.fixture(scope="module")
def html(evaluation: Evaluation) -> str:
    return render_report(evaluation)


@pytest.fixture(scope="module")
def evaluation(make_rows: Callable[..., list[FitRow]]) -> Evaluation:
    rows = [dataclasses.replace(row, label=HOSTILE + row.label) for row in make_rows(tasks=(HOSTILE, "plain"))]
    candidates = tuple(candidate(rank, capacity=2.0 - rank, start=0.75, fit=-0.25) for rank in (1, 2))
    choices = tuple(
        Choice(name, (HOSTILE,), (HOSTILE,), HOSTILE)
        for name in ("picked", "refined", "scratch", "base", "random", "largest", "nearest")
    )
    stories = []
    for name in (HOSTILE, "plain"):
        task = grating_task(classes=14, train=56)
        info = dataclasses.replace(
            task.info, name=name, source=HOSTILE, class_names=(HOSTILE, *task.info.class_names[1:])
        )
        stories.append(Story(dataclasses.replace(task, info=info), candidates, choices))
    return Evaluation(tuple(rows), tuple(stories), Budget(40, 32, 4), 2, 10, 3)


def test_hostile_names_are_shown_and_never_run(html: str) -> None:
    page = Page(html)
    assert not page.open
    assert "<script" not in html
    assert not any(tag == "script" or any(key.startswith("on") for key in keys) for tag, keys in page.tags)
    assert any(HOSTILE in text for text in page.text)


def test_page_needs_nothing_from_outside(html: str) -> None:
    for tag, attributes in Page(html).tags:
        for key in ("src", "srcset", "href", "action", "data"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, key, value[:80])
    assert not re.search(r"url\(|@import|https?://", html)


def test_every_picture_says_what_it_shows_and_every_table_has_headers(html: str) -> None:
    page = Page(html)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1 + 2 * (1 + 12)
    assert all(picture.get("alt") for picture in pictures)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == 1 + 2 * 2
    assert {attributes.get("scope") for tag, attributes in page.tags if tag == "th"} == {"col", "row"}
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links: list[Any] = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(link[1:] in targets for link in links)


def test_parts_of_the_score_are_told(html: str) -> None:
    text = " ".join(Page(html).text)
    assert (
        "1.50 deviations above a task's mean model: +1.00 by its capacity, +0.75 as a start for any task, -0.25" in text
    )
    assert "It leads the next by 1.00 in score; 2 of the first 2 share its home task." in text
    for heading in ("Score", "Capacity", "Start", "Fit"):
        assert heading in Page(html).text


def test_pick_for_images_far_from_all_that_was_tried_says_so() -> None:
    near, far = (_why([candidate(1, trust, capacity=-0.5, start=0.0, fit=0.0)]) for trust in (0.9, 0.1))
    assert near.startswith("The predictor puts it 0.50 deviations below a task's mean model")
    assert "lie far" not in near
    assert "are far from those of all training tasks" in far


def test_classes_beyond_those_shown_are_counted(html: str) -> None:
    assert "and 2 more classes" in html


def test_strips_show_training_images_of_their_class_alone() -> None:
    task = grating_task(classes=3)
    images = task.pixels(16).copy()
    images[task.splits != "train"] = 0
    strips = sample_strips(task)
    assert [strip["name"] for strip in strips] == ["direction 0", "direction 1", "direction 2"]
    assert sample_strips(dataclasses.replace(task, images=SquareImages.of(images))) == strips
    images[(task.splits == "train") & (task.labels == 1)] = 7
    changed = sample_strips(dataclasses.replace(task, images=SquareImages.of(images)))
    assert [a == b for a, b in zip(changed, strips, strict=True)] == [True, False, True]


def test_an_empty_class_has_no_strip() -> None:
    task = grating_task(classes=3)
    labels = np.where((task.splits == "train") & (task.labels == 1), 0, task.labels)
    assert [strip["name"] for strip in sample_strips(dataclasses.replace(task, labels=labels))] == [
        "direction 0",
        "direction 2",
    ]
