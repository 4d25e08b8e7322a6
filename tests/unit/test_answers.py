"""A request from its limits to its answer: nothing is computed twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from tans_core.options import RetrieveOptions
from tans_core.retrieval import retriever
from tans_core.retrieval.query import Query
from tans_core.service import Service
from tests.factories.project import UNSEEN


@pytest.fixture
def service(project: Path) -> Iterator[Service]:
    with Service.open(project) as opened:
        yield opened


@pytest.fixture
def passed(service: Service) -> list[int]:
    """How many images went through the backbone, a number for each call."""
    encoder, numbers = service.retriever.encoder, []
    backbone = encoder.backbone

    def features(images: Tensor) -> Tensor:
        numbers.append(len(images))
        return backbone.features(images)

    encoder.backbone = replace(backbone, features=features)
    return numbers


@pytest.mark.parametrize("options", [{}, {"refine": 3, "top_k": 2}])
def test_page_needs_no_second_pass_of_the_backbone(
    options: dict[str, Any], service: Service, passed: list[int], tmp_path: Path
) -> None:
    service.retrieve(UNSEEN, RetrieveOptions(**options))
    alone = [*passed]
    passed.clear()
    service.retrieve(UNSEEN, RetrieveOptions(**options), tmp_path / "answer.html")
    assert passed == alone and sum(passed) > 0


def test_query_needs_no_backbone(service: Service, passed: list[int], tmp_path: Path) -> None:
    query = service.embed(UNSEEN)
    passed.clear()
    found = service.retrieve(query, None, tmp_path / "answer.html")
    assert not passed and f"<dd>{query.images}</dd>" in (tmp_path / "answer.html").read_text()
    named = service.retrieve(UNSEEN)
    assert [(one.model, one.score) for one in found] == [(one.model, one.score) for one in named]


@pytest.mark.parametrize("kind", ["task", "path", "query"])
def test_limits_are_compared_once_a_request(
    kind: str, service: Service, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset: str | Path | Query = {"task": UNSEEN, "path": photos, "query": service.embed(UNSEEN)}[kind]
    compared, compare = [], retriever.require_some

    def counted(*given: Any) -> Any:
        compared.append(given)
        return compare(*given)

    monkeypatch.setattr(retriever, "require_some", counted)
    found = service.retrieve(dataset, RetrieveOptions(max_macs_m=9), tmp_path / "answer.html")
    assert len(compared) == 1 and all(one.macs_m <= 9 for one in found)


def test_networks_that_fit_in_one_release_are_not_looked_up_in_another(project: Path) -> None:
    one, other = (Service.open(project).retriever for _ in range(2))
    with pytest.raises(AssertionError, match="another release"):
        other.retrieve(Query.model_construct(), one.fitting())


def test_page_of_a_refined_answer_shows_refined_scores(service: Service, tmp_path: Path) -> None:
    page = tmp_path / "answer.html"
    found = service.retrieve(UNSEEN, RetrieveOptions(refine=4, top_k=16), page)
    told = dict(re.findall(r"<title>([^:<]+): score (-?[0-9.]+),", page.read_text()))
    assert told == {one.model: f"{one.score:.2f}" for one in found}
