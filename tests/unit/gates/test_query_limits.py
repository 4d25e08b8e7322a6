"""All commands that read a user's images use params.yaml as it is now, not as it was when the release was made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tans_core
from tans_core.dataset import QueryLimits
from tans_core.errors import GateError, ParamsError, TooFewImagesError
from tans_core.gates.query import QueryVerdict
from tans_core.params import QueryGateParams
from tests.factories.images import write_class_folders
from tests.factories.project import SIZE_PX
from tests.factories.query_cases import QUERY_CASES, change_params, copy_release


@pytest.fixture
def published(project: Path, tmp_path: Path) -> Path:
    return copy_release(project, tmp_path / "published")


def by_scan(path: Path, root: Path) -> QueryVerdict:
    return tans_core.scan(path, root=root).scanned.verdict


def by_retrieve(path: Path, root: Path) -> QueryVerdict:
    found = tans_core.retrieve(path, root=root)
    assert found.scan is not None
    return found.scan.verdict


def by_finetune(path: Path, root: Path) -> QueryVerdict:
    model = tans_core.list_models(root)[0].id
    run = tans_core.finetune(path, model=model, epochs=1, root=root)
    assert run.scan is not None
    return run.scan.verdict


# All read images by one function, so each threshold once, and each other request once for each kind of threshold.
@pytest.mark.parametrize(
    ("key", "ask"),
    [
        *((key, by_scan) for key in QueryGateParams.model_fields),
        *((key, ask) for key in ("max_leak_share", "max_imbalance") for ask in (by_retrieve, by_finetune)),
    ],
)
def test_every_threshold_of_params_is_obeyed_after_publishing(
    key: str, ask: Callable[[Path, Path], QueryVerdict], published: Path, tmp_path: Path
) -> None:
    case = QUERY_CASES[key]
    images = case.make(tmp_path / "images")
    change_params(published, gates__query={key: case.lets_pass})
    verdict = ask(images, published)
    assert verdict.passed and not any(case.words in line for line in verdict.warnings)
    change_params(published, gates__query={key: case.objects})
    if not case.stops:
        verdict = ask(images, published)
        assert verdict.passed and any(case.words in line for line in verdict.warnings)
    elif ask is by_scan:
        verdict = ask(images, published)
        assert verdict.error is GateError and any(case.words in line for line in verdict.failures)
    else:
        with pytest.raises(GateError) as caught:
            ask(images, published)
        assert case.words in str(caught.value)


@pytest.mark.parametrize("ask", [by_scan, by_retrieve, by_finetune])
def test_limits_of_the_data_section_are_obeyed_after_publishing(
    ask: Callable[[Path, Path], QueryVerdict], published: Path, tmp_path: Path
) -> None:
    images = write_class_folders(tmp_path / "images", {"ash": 12, "oak": 14})
    assert ask(images, published).passed
    change_params(published, data={"min_images_per_class": 13})
    if ask is by_scan:
        assert ask(images, published).error is TooFewImagesError
    else:
        with pytest.raises(TooFewImagesError, match=r"'ash' \(12\)"):
            ask(images, published)


def test_without_params_a_release_is_asked_with_the_usual_thresholds(published: Path, tmp_path: Path) -> None:
    change_params(published, gates__query={"min_median_side_px": 20})
    images = write_class_folders(tmp_path / "images", {"ash": 12, "oak": 12}, side=12)
    with pytest.raises(GateError, match="want at least 20"):
        by_retrieve(images, published)
    (published / "params.yaml").unlink()
    assert by_retrieve(images, published).passed
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        by_scan(images, published)


def test_images_are_kept_at_the_size_of_the_release_that_answers(published: Path, tmp_path: Path) -> None:
    change_params(published, data={"stored_size_px": 64})
    images = write_class_folders(tmp_path / "images", {"ash": 12, "oak": 12}, side=70)
    assert tans_core.scan(images, root=published).scanned.report.stored_size_px == 64
    assert tans_core.retrieve(images, root=published).task.stored_size_px == SIZE_PX


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"gates__query": {"max_leek_share": 0.1}}, r"max_leek_share: unknown key \(did you mean 'max_leak_share'\?\)"),
        ({"gates__query": {"max_copy_share": 2}}, r"gates\.query\.max_copy_share: got 2: .*less than or equal to 1"),
        ({"gates": {"query": "strict"}}, r"gates\.query: got 'strict'"),
        ({"data": {"stored_size_px": None}}, "data"),
        ({"data": {"max_bad_share": "few"}}, "data.*few"),
    ],
)
def test_limits_that_cannot_be_used_are_named(
    sections: dict[str, Any], words: str, project: Path, tmp_path: Path
) -> None:
    root = copy_release(project, tmp_path / "published")
    change_params(root, **sections)
    with pytest.raises(ParamsError, match=words) as caught:
        QueryLimits.of(root)
    assert str(root / "params.yaml") in str(caught.value)


@pytest.mark.parametrize("gates", ["gates:", "gates: {query: }", "gates: {min_images_per_task: 10}"])
def test_thresholds_that_are_not_written_are_the_usual_ones(gates: str, tmp_path: Path) -> None:
    data = "data: {stored_size_px: 32, min_images_per_class: 2, max_bad_share: 0.5}\n"
    (tmp_path / "params.yaml").write_text(data + gates)
    assert QueryLimits.of(tmp_path) == QueryLimits(32, 2, 0.5, QueryGateParams())


@pytest.mark.parametrize("data", ["data:", "data: [1]", "data: {min_images_per_class: 2, max_bad_share: 0.5}"])
def test_data_section_without_its_limits_is_refused(data: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"{data}\ngates: {{}}\n")
    with pytest.raises(ParamsError, match=r"params\.yaml: data"):
        QueryLimits.of(tmp_path)
