from typing import Any

import numpy as np
import pytest

from tans_core.errors import NoModelFitsError, ParamsError
from tans_core.index.schema import index_table
from tans_core.index.search import Index
from tans_core.retrieval.constraints import RANGES, Constraints, nearest_miss
from tans_core.retrieval.limits import Beside, check_homes, require_some, within
from tans_core.space.encoders import Places
from tests.factories.embeddings import card

MODELS = [
    {"id": "tiny.mit", "params_m": 0.1, "macs_m": 1.0, "licence": "MIT", "home_task": "digits"},
    {"id": "small.both", "params_m": 0.5, "macs_m": 5.0, "licence": "MIT AND OFL-1.1", "home_task": "digits"},
    {"id": "large.choice", "params_m": 2.0, "macs_m": 40.0, "licence": "GPL-2.0-only OR BSD-3-Clause",
     "home_task": "leaves"},
    {"id": "large.font", "params_m": 2.5, "macs_m": 50.0, "licence": "OFL-1.1", "home_task": "ImageNet-1k"},
]  # fmt: skip
MORE = {
    "input_size_px": dict(zip((str(one["id"]) for one in MODELS), (32, 64, 96, 224), strict=True)),
    "home_accuracy": {"tiny.mit": 0.9, "small.both": 0.8125, "large.choice": 0.6},
}
PROFILE = "cpu-2-threads-batch-8"


def _index() -> Index:
    accuracies = MORE["home_accuracy"]
    cards = [
        card(
            str(one["id"]),
            str(one["home_task"]),
            licences=dict.fromkeys(("code", "weights", "data"), one["licence"]),
            lineage=(),
            params_m=one["params_m"],
            macs_m=one["macs_m"],
            val_accuracy=accuracies.get(str(one["id"])),
        )
        for one in MODELS
    ]
    places = np.eye(4, dtype=np.float32)
    return Index(index_table(cards, Places(places, places[0], -np.arange(4, dtype=np.float32)), "space"))


INDEX = _index()


def fitting(beside: Beside = MORE, **limits: Any) -> list[str]:
    kept = within(INDEX, Constraints.read(**limits), beside)
    rows = np.arange(4) if kept is None else np.flatnonzero(kept)
    found = {row["id"] for row in INDEX.rows(rows, ["id"])}
    return [str(one["id"]) for one in MODELS if one["id"] in found]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({}, ["tiny.mit", "small.both", "large.choice", "large.font"]),
        ({"max_params_m": 0.5}, ["tiny.mit", "small.both"]),
        ({"min_params_m": 0.5}, ["small.both", "large.choice", "large.font"]),
        ({"min_params_m": 0.5, "max_params_m": 0.5}, ["small.both"]),
        ({"min_macs_m": 2, "max_macs_m": 45}, ["small.both", "large.choice"]),
        ({"licences": "MIT"}, ["tiny.mit"]),
        ({"licences": ["mit", "ofl-1.1"]}, ["tiny.mit", "small.both", "large.font"]),
        ({"licences": "MIT, OFL-1.1"}, ["tiny.mit", "small.both", "large.font"]),
        ({"licences": ["MIT,OFL-1.1", "ISC"]}, ["tiny.mit", "small.both", "large.font"]),
        ({"licences": ["BSD-3-Clause"]}, ["large.choice"]),
        ({"licences": ["OFL-1.1"], "max_params_m": 1}, []),
        ({"min_weights_mb": 2, "max_weights_mb": 8}, ["small.both", "large.choice"]),
        ({"min_input_size_px": 64, "max_input_size_px": 96}, ["small.both", "large.choice"]),
        ({"min_home_accuracy": 0.8125}, ["tiny.mit", "small.both"]),
        ({"min_home_accuracy": 0}, ["tiny.mit", "small.both", "large.choice"]),
        ({"home": "digits,leaves"}, ["tiny.mit", "small.both", "large.choice"]),
        ({"not_home": ["digits", "ImageNet-1k"]}, ["large.choice"]),
        ({"home": "digits", "not_home": "digits"}, []),
    ],
)
def test_models_within_ranges_and_licences_fit(limits: dict[str, Any], wanted: list[str]) -> None:
    assert fitting(**limits) == wanted


def test_every_range_can_be_limited_and_nothing_else() -> None:
    ends = {name for name in Constraints.model_fields if name.startswith(("min_", "max_"))}
    assert ends == {f"{end}_{name}" for end in ("min", "max") for name in RANGES} - {"max_home_accuracy"}


@pytest.mark.parametrize("name", [f"{end}_{column}" for end in ("min", "max") for column in RANGES])
@pytest.mark.parametrize("value", [-0.1, -1, float("nan"), float("inf"), "many"])
def test_limit_that_is_no_positive_number_is_refused_by_name(name: str, value: object) -> None:
    wanted = f"{name}: unknown key" if name == "max_home_accuracy" else f"{name}: got "
    with pytest.raises(ParamsError, match=wanted):
        Constraints.read(**{name: value})


def test_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ParamsError, match="min_macs_m: got 9, want at most the 3 of max_macs_m"):
        Constraints.read(min_macs_m=9, max_macs_m=3)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(ParamsError) as caught:
        Constraints.read(max_params_m=-1, max_macs_m=0, max_latency=3)
    assert all(name in str(caught.value) for name in ("max_params_m", "max_macs_m", "max_latency"))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_latency_ms": 5}, "latency_profile: missing; want the profile"),
        ({"min_latency_ms": 5}, "`tans zoo profile` measures"),
        ({"latency_profile": PROFILE}, f"latency_profile: got {PROFILE}, but no limit that uses it"),
        (
            {"max_latency_ms": 1, "min_latency_ms": 2, "latency_profile": PROFILE},
            "min_latency_ms: got 2, want at most",
        ),
        *(
            ({"max_latency_ms": 5, "latency_profile": name}, "latency_profile: got ")
            for name in (
                "",
                "../cpu-1-threads-batch-1",
                "cpu-1-threads-batch-1\n",
                "cpu-0-threads-batch-1",
                "gpu",
                "x'",
            )
        ),
    ],
)
def test_latency_is_limited_under_one_named_profile_only(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError) as caught:
        Constraints.read(**limits)
    assert words in str(caught.value)


def test_only_models_that_were_timed_under_the_profile_are_within_a_latency() -> None:
    limits = {"max_latency_ms": 4, "latency_profile": PROFILE}
    for latency, wanted in ((4.0, ["tiny.mit"]), (4.1, []), (None, [])):
        beside = {"latency_ms": {} if latency is None else {"tiny.mit": latency}}
        assert fitting(beside, **limits, licences="MIT") == wanted
        assert fitting(beside) == [one["id"] for one in MODELS]


def test_nearest_miss_says_how_much_slower_or_what_to_time() -> None:
    limits = Constraints.read(max_latency_ms=2, latency_profile=PROFILE)
    timed = [{**model, "latency_ms": value} for model, value in zip(MODELS, (None, 3.21, 9.0, None), strict=True)]
    assert nearest_miss(timed, limits).splitlines() == [
        f"0 of 4 models satisfy --max-latency-ms 2 and --latency-profile {PROFILE}. "
        "The nearest, and what would let it in:",
        "  small.both (0.5 M parameters, 5 M MACs, 3.21 ms): raise --max-latency-ms to 3.3",
        f"  2 were not timed under {PROFILE}. Run `tans zoo profile --device cpu --threads 2 --batch 8`.",
    ]
    limits = Constraints.read(max_latency_ms=2, latency_profile=PROFILE, min_params_m=9)
    assert nearest_miss([{**model, "latency_ms": None} for model in MODELS], limits).splitlines()[1:] == [
        "  large.font (2.5 M parameters, 50 M MACs): lower --min-params-m to 2.5 and time it",
        f"  4 were not timed under {PROFILE}. Run `tans zoo profile --device cpu --threads 2 --batch 8`.",
    ]


def test_unknown_licence_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="did you mean 'MIT'"):
        Constraints.read(licences=["MTI"])


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        ({"max_params_m": 0.05}, ["tiny.mit (0.1 M parameters, 1 M MACs): raise --max-params-m to 0.1"]),
        ({"min_params_m": 9}, ["large.font (2.5 M parameters, 50 M MACs): lower --min-params-m to 2.5"]),
        (
            {"licences": ["ISC"]},
            ["large.choice (2 M parameters, 40 M MACs): accept --licence BSD-3-Clause as well"],
        ),
        (
            {"licences": ["MIT"], "min_params_m": 0.4, "max_params_m": 0.6},
            ["tiny.mit (0.1 M parameters, 1 M MACs): lower --min-params-m to 0.1",
             "small.both (0.5 M parameters, 5 M MACs): accept --licence OFL-1.1 as well"],
        ),
        (
            {"licences": ["ISC"], "max_params_m": 0.01},
            ["tiny.mit (0.1 M parameters, 1 M MACs): raise --max-params-m to 0.1 and accept --licence MIT as well"],
        ),
    ],
)  # fmt: skip
def test_nearest_miss_says_what_to_give_up_licences_included(limits: dict[str, Any], lines: list[str]) -> None:
    assert fitting(**limits) == []
    said = nearest_miss(MODELS, Constraints.read(**limits)).splitlines()
    assert said[0].startswith("0 of 4 models satisfy ")
    assert [line.strip() for line in said[1:]] == lines


@pytest.mark.parametrize(
    ("limits", "lines"),
    [
        ({"max_weights_mb": 0.1}, ["tiny.mit (0.1 M parameters, 1 M MACs, 0.4 MB): raise --max-weights-mb to 0.4"]),
        (
            {"max_input_size_px": 64, "min_macs_m": 45},
            [
                "large.choice (2 M parameters, 40 M MACs, 96 px): "
                "lower --min-macs-m to 40 and raise --max-input-size-px to 96",
            ],
        ),
        (
            {"min_home_accuracy": 0.7, "not_home": "digits"},
            [
                "large.choice (2 M parameters, 40 M MACs, 0.6 at home): lower --min-home-accuracy to 0.6",
                "large.font (2.5 M parameters, 50 M MACs): leave out --min-home-accuracy",
            ],
        ),
        (
            {"home": "leaves", "max_params_m": 1.0},
            [
                "large.choice (2 M parameters, 40 M MACs): raise --max-params-m to 2",
                "small.both (0.5 M parameters, 5 M MACs): add --home digits",
            ],
        ),
    ],
)
def test_nearest_miss_speaks_of_every_limit(limits: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(NoModelFitsError) as caught:
        require_some(INDEX, Constraints.read(**limits), MORE)
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == lines


def test_home_task_that_no_network_has_is_answered_with_the_nearest() -> None:
    limits = Constraints.read(home="digit,leaves", not_home="imagenet-1k")
    with pytest.raises(
        ParamsError, match=r"home: got 'digit', want the home task of a network.*'digits'.*not_home: .*imagenet"
    ):
        check_homes(INDEX, limits)


def test_network_without_an_accuracy_at_home_is_let_in_by_no_floor() -> None:
    told = nearest_miss([{**MODELS[3], "home_accuracy": None}], Constraints.read(min_home_accuracy=0.1))
    assert told.splitlines()[1] == "  large.font (2.5 M parameters, 50 M MACs): leave out --min-home-accuracy"


def test_advice_for_costs_near_nothing_can_be_followed() -> None:
    tiny = {"id": "tiny", "params_m": 0.00417, "macs_m": 1.0, "licence": "MIT"}
    for limits, wanted in (
        ({"min_params_m": 0.01}, "lower --min-params-m to 0.0041"),
        ({"max_params_m": 0.001}, "0.0042"),
    ):
        assert wanted in nearest_miss([tiny], Constraints.read(**limits))


def test_wrong_licence_hides_no_other_problem() -> None:
    with pytest.raises(ParamsError) as caught:
        Constraints.read(licences="Foo", max_params_m=-1)
    assert "Foo" in str(caught.value) and "max_params_m" in str(caught.value)


def test_empty_index_says_what_to_run() -> None:
    assert "tans publish" in nearest_miss([], Constraints())
