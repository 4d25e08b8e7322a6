from types import SimpleNamespace
from typing import Any

import pytest

from tans_core.errors import ParamsError
from tans_core.retrieval.constraints import RANGES, Constraints, nearest_miss

MODELS = [
    {"id": "tiny.mit", "params_m": 0.1, "macs_m": 1.0, "licence": "MIT"},
    {"id": "small.both", "params_m": 0.5, "macs_m": 5.0, "licence": "MIT AND OFL-1.1"},
    {"id": "large.choice", "params_m": 2.0, "macs_m": 40.0, "licence": "GPL-2.0-only OR BSD-3-Clause"},
    {"id": "large.font", "params_m": 2.5, "macs_m": 50.0, "licence": "OFL-1.1"},
]
PROFILE = "cpu-2-threads-batch-8"


def fitting(**limits: Any) -> list[str]:
    constraints = Constraints.read(**limits)
    return [str(one["id"]) for one in MODELS if constraints.fit(SimpleNamespace(**one))]


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
    ],
)
def test_models_within_ranges_and_licences_fit(limits: dict[str, Any], wanted: list[str]) -> None:
    assert fitting(**limits) == wanted


@pytest.mark.parametrize("name", [f"{end}_{column}" for end in ("min", "max") for column in RANGES])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "many"])
def test_limit_that_is_no_positive_number_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ParamsError, match=f"{name}: got "):
        Constraints.read(**{name: value})


def test_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"--min-macs-m \(min_macs_m\): got 9, want at most the 3 of --max-macs-m"):
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
        ({"latency_profile": PROFILE}, "latency_profile: limits nothing without max_latency_ms or min_latency_ms"),
        (
            {"max_latency_ms": 1, "min_latency_ms": 2, "latency_profile": PROFILE},
            "(min_latency_ms): got 2, want at most",
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
    limits = Constraints.read(max_latency_ms=4, latency_profile=PROFILE, licences="MIT")
    model = SimpleNamespace(**MODELS[0])
    assert [limits.fit(model, latency) for latency in (4.0, 4.1, None)] == [True, False, False]
    assert Constraints().fit(model, None) and Constraints().fit(model, 9.0)


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
