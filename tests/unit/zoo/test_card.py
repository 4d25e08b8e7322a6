"""Model cards of earlier and newer versions, and errors in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tans_core.errors import WeightsError
from tans_core.licences import TEXTS, lacking, satisfied
from tans_core.networks.registry import get_family
from tans_core.zoo.card import Ancestor, Licences, ModelCard, descend
from tests.factories.embeddings import card
from tests.factories.tasks import grating_task

VERSION_0 = """
{
  "architecture": {"stages": [
    [{"kernel": 3, "ratio": 0.5}],
    [{"kernel": 5, "ratio": 1.0}, {"kernel": 3, "ratio": 0.25}],
    [{"kernel": 5, "ratio": 0.5}]
  ]},
  "class_names": ["0", "1", "2"],
  "home_task": "optdigits",
  "id": "optdigits.elastic-residual.003",
  "image_size_px": 32,
  "licence": "MIT",
  "macs_m": 7.803168,
  "mean": [0.3, 0.3, 0.3],
  "params_m": 0.176115,
  "source": "scikit-learn-digits",
  "space": "elastic-residual",
  "std": [0.25, 0.25, 0.25],
  "test_accuracy": 0.96,
  "val_accuracy": 0.97,
  "weights": "zoo/optdigits/supernet.safetensors"
}
"""


def of_version_0(**changes: Any) -> dict[str, Any]:
    return {**json.loads(VERSION_0), **changes}


def version_1(**changes: Any) -> dict[str, Any]:
    return {**json.loads(card("m", "leaves").to_json()), **changes}


def test_card_of_version_0_is_read() -> None:
    read = ModelCard.from_json(VERSION_0)
    assert (read.version, read.family, read.home_task) == (1, "elastic-residual", "optdigits")
    assert read.class_names == ("0", "1", "2")
    assert read.preprocess.model_dump() == {
        "image_size_px": 32,
        "mean": (0.3, 0.3, 0.3),
        "std": (0.25, 0.25, 0.25),
        "statistics": "task",
        "interpolation": "bicubic",
        "crop": 1.0,
    }
    assert (read.val_accuracy, read.test_accuracy) == (0.97, 0.96)
    assert read.weights == "zoo/optdigits/supernet.safetensors"
    assert ModelCard.from_json(read.to_json()) == read == ModelCard.from_dict(of_version_0(), strict=True)


def test_network_of_a_card_of_version_0_is_built_and_costs_what_the_card_says() -> None:
    read = ModelCard.from_json(VERSION_0)
    family = get_family(read.family)
    network = family.build(read.architecture, len(read.class_names)).eval()
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    cost = family.cost(read.architecture, read.preprocess.image_size_px, len(read.class_names))
    assert (cost.params_m, cost.macs_m) == (read.params_m, read.macs_m)


def test_weights_of_a_card_of_version_0_do_not_pass_for_free_ones() -> None:
    read = ModelCard.from_json(VERSION_0)
    unknown = "LicenseRef-unknown-lineage"
    accepted = ["Apache-2.0", "MIT"]
    assert not satisfied(read.licence, accepted)
    assert lacking(read.licence, accepted) == (unknown,)
    assert satisfied(read.licence, [*accepted, unknown])
    assert read.licences.texts[unknown] == TEXTS[unknown] != ""
    assert [one.kind for one in read.lineage] == ["weights", "task"]


@pytest.mark.parametrize(
    ("prose", "expression", "texts"),
    [
        ("CC0-1.0 AND MIT", "CC0-1.0 AND MIT", {}),
        ("unstated by its authors", "LicenseRef-unstated", {}),
        ("free for research", "LicenseRef-free-for-research", {"LicenseRef-free-for-research": "free for research"}),
    ],
)
def test_licence_of_a_card_of_version_0_becomes_an_expression_that_keeps_its_words(
    prose: str, expression: str, texts: dict[str, str]
) -> None:
    read = ModelCard.from_dict(of_version_0(licence=prose))
    assert read.licences.weights == read.licences.data == read.lineage[1].licence == expression
    assert texts.items() <= read.licences.texts.items()
    assert read.unreadable_licences == ()


def test_card_of_version_0_that_lacks_a_field_or_has_another_names_them_all() -> None:
    raw = of_version_0(colour="red", size=3)
    for name in ("space", "licence"):
        del raw[name]
    with pytest.raises(WeightsError) as caught:
        ModelCard.from_dict(raw)
    assert "missing ['licence', 'space'], unknown ['colour', 'size']" in str(caught.value)
    assert "optdigits.elastic-residual.003" in str(caught.value)
    with pytest.raises(WeightsError, match=r"licences.weights: .*licences.data: .*lineage.1.licence: "):
        ModelCard.from_dict(of_version_0(licence=3))


def newer() -> dict[str, Any]:
    raw = version_1(version=2, distilled_from={"id": "teacher"})
    raw["preprocess"]["padding"] = [1, 2]
    raw["licences"]["patents"] = None
    raw["lineage"][0]["year"] = 2027
    return raw


def test_card_of_a_newer_version_keeps_what_this_one_does_not_know() -> None:
    read = ModelCard.from_dict(newer())
    again = ModelCard.from_json(read.to_json())
    copied = again.model_copy(update={"id": "other", "lineage": descend(again.lineage, grating_task().info)})
    for one in (read, ModelCard.from_dict(newer(), strict=True), again, copied, ModelCard.from_dict(copied.to_dict())):
        raw = json.loads(one.to_json())
        assert raw["version"] == 2
        assert raw["distilled_from"] == {"id": "teacher"}
        assert raw["preprocess"]["padding"] == [1, 2]
        assert "patents" in raw["licences"] and raw["licences"]["patents"] is None
        assert raw["lineage"][0]["year"] == 2027
    assert json.loads(read.to_json()) == newer()


def test_all_fields_that_are_missing_or_of_another_kind_are_named() -> None:
    raw = version_1(params_m="many", class_names="ab", version=None)
    for name in ("home_task", "weights"):
        del raw[name]
    del raw["preprocess"]["std"]
    raw["lineage"][0]["kind"] = "rumour"
    with pytest.raises(WeightsError) as caught:
        ModelCard.from_dict(raw)
    lines = str(caught.value).removeprefix("model card 'm': ").split("; ")
    assert [line.partition(":")[0] for line in lines] == [
        "version",
        "class_names",
        "preprocess.std",
        "home_task",
        "lineage.0.kind",
        "params_m",
        "weights",
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"val_accuracy": "0.5"}, "val_accuracy"),
        ({"val_accuracy": True}, "val_accuracy"),
        ({"version": 3.0}, "version"),
        ({"version": "1"}, "version"),
        ({"id": 7}, "id"),
        ({"class_names": ["a", 1]}, "class_names.1"),
        ({"architecture": "none"}, "architecture"),
        ({"preprocess": {**version_1()["preprocess"], "image_size_px": 16.0}}, "preprocess.image_size_px"),
        ({"preprocess": {**version_1()["preprocess"], "mean": ["0.1", 0.2, 0.3]}}, "preprocess.mean.0"),
    ],
)
def test_strict_reading_takes_no_text_for_a_number_and_no_number_for_another(
    change: dict[str, Any], named: str
) -> None:
    ModelCard.from_dict(version_1(val_accuracy=1), strict=True)  # a whole number is a number
    with pytest.raises(WeightsError, match=f"model card .*: {named}: "):
        ModelCard.from_dict(version_1(**change), strict=True)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400])
@pytest.mark.parametrize("strict", [False, True])
def test_numbers_that_are_none_are_refused(text: str, strict: bool) -> None:
    for base in (version_1(), of_version_0()):
        raw = json.loads(json.dumps({**base, "val_accuracy": 0.123}).replace("0.123", text))
        with pytest.raises(WeightsError):
            ModelCard.from_dict(raw, strict=strict)
    preprocess = json.loads(json.dumps({**version_1()["preprocess"], "std": [0.1, 0.1, 0.123]}).replace("0.123", text))
    with pytest.raises(WeightsError):
        ModelCard.from_dict(version_1(preprocess=preprocess), strict=strict)


def test_deep_cards_are_a_weights_error() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(WeightsError):
        ModelCard.from_dict(version_1(architecture=deep))


def test_licence_of_a_card_holds_all_that_its_weights_descend_from() -> None:
    made = card(
        "m",
        "leaves",
        licences={"code": "BSD-3-Clause", "weights": "MIT", "data": "CC0-1.0"},
        lineage=[{"kind": "weights", "name": "b", "source": "s", "licence": "OFL-1.1 OR ISC"}],
    )
    assert made.licence == "BSD-3-Clause AND CC0-1.0 AND (ISC OR OFL-1.1) AND MIT"


@pytest.mark.parametrize("part", ["code", "weights", "data", "lineage"])
def test_no_licence_of_a_card_escapes_what_a_user_accepts(part: str) -> None:
    licences = dict.fromkeys(("code", "weights", "data"), "MIT")
    lineage = {"kind": "task", "name": "leaves", "source": "s", "licence": "MIT"}
    assert satisfied(card("m", "leaves", licences=licences, lineage=[lineage]).licence, ["MIT"])
    if part == "lineage":
        lineage["licence"] = "ISC"
    else:
        licences[part] = "ISC"
    assert lacking(card("m", "leaves", licences=licences, lineage=[lineage]).licence, ["MIT"]) == ("ISC",)


def test_licences_of_a_lineage_are_those_of_its_tasks_and_weights_with_their_terms() -> None:
    home = Licences(code="BSD-3-Clause", weights="LicenseRef-a", data="MIT")
    lineage = [
        Ancestor(kind="weights", name="w", source="s", licence="LicenseRef-b OR Zlib"),
        Ancestor(kind="task", name="t", source="s", licence="CC0-1.0 AND LicenseRef-unstated"),
    ]
    texts = {"LicenseRef-a": "terms of a", "LicenseRef-b": "terms of b", "LicenseRef-unused": "nobody's"}
    found = Licences.of_lineage(lineage, texts, home)
    assert found.code == "BSD-3-Clause"
    assert found.data == "CC0-1.0 AND LicenseRef-unstated AND MIT"
    assert found.weights == "CC0-1.0 AND LicenseRef-a AND (LicenseRef-b OR Zlib) AND LicenseRef-unstated AND MIT"
    wanted = {
        "LicenseRef-unstated": TEXTS["LicenseRef-unstated"],
        "LicenseRef-a": "terms of a",
        "LicenseRef-b": "terms of b",
    }
    assert found.texts == wanted
    assert Licences.of_lineage([]).weights == "LicenseRef-unstated"


def test_a_run_keeps_unknown_fields_of_its_start_and_the_terms_of_its_code() -> None:
    home = Licences.model_validate({"code": "LicenseRef-c", "weights": "MIT", "data": "MIT", "patents": "none"})
    found = Licences.of_lineage([], {"LicenseRef-c": "terms of c"}, home)
    assert found.model_dump()["patents"] == "none"
    assert found.texts == {"LicenseRef-c": "terms of c"}


def test_ancestors_are_listed_once() -> None:
    info = grating_task().info
    once = descend([], info)
    assert once == (Ancestor(kind="task", name=info.name, source=info.source, licence=info.licence),)
    assert descend(once, info) == once
