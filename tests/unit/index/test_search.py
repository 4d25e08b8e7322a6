import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tans_core.embeddings.store import open_table, write_table
from tans_core.errors import StoreError
from tans_core.index.schema import index_table, space_of
from tans_core.index.search import nearest
from tans_core.retrieval.constraints import RANGES, Constraints, nearest_miss
from tans_core.space.encoders import Places
from tests.factories.embeddings import card


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Forty models around the circle, the cheap ones far from the first axis."""
    angles = np.linspace(0, np.pi, 40)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    cards = [
        card(f"m.{n:02d}", "t", licence="MIT" if n % 2 else "CC0-1.0", params_m=2.0 - n / 40, macs_m=float(n + 1))
        for n in range(40)
    ]
    store = tmp_path_factory.mktemp("store")
    places = Places(vectors, angles.astype(np.float32), -angles.astype(np.float32))
    write_table(store, "index", index_table(cards, places, "digest-of-space"))
    return open_table(store, "index")


QUERY = np.array([1.0, 0.0], dtype=np.float32)


def test_all_models_come_nearest_first_with_their_cosine(table: Any) -> None:
    found = nearest(table, QUERY)
    assert found["id"].to_pylist() == [f"m.{n:02d}" for n in range(40)]
    np.testing.assert_allclose(found["similarity"].to_numpy(), np.cos(np.linspace(0, np.pi, 40)), atol=1e-6)


def test_capacity_and_start_stand_beside_the_place(table: Any) -> None:
    found = nearest(table, QUERY, "macs_m <= 3.0")
    np.testing.assert_allclose(found["capacity"].to_numpy(), np.linspace(0, np.pi, 40)[:3], atol=1e-6)
    np.testing.assert_allclose(found["start"].to_numpy(), -np.linspace(0, np.pi, 40)[:3], atol=1e-6)


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("params_m <= 1.5", list(range(20, 40))),
        ("macs_m <= 3.0", [0, 1, 2]),
        ("params_m <= 1.5 AND macs_m <= 22.0", [20, 21]),
        ("licence IN ('Apache-2.0 AND CC0-1.0') AND macs_m <= 4.0", [0, 2]),
        ("false", []),
    ],
)
def test_filter_is_applied_before_the_search(table: Any, where: str, wanted: list[int]) -> None:
    found = nearest(table, QUERY, where, limit=20)
    assert found["id"].to_pylist() == [f"m.{n:02d}" for n in wanted]


@pytest.mark.parametrize("query", [[0.0, 0.0], [np.nan, 0.0], [3.0, 4.0]])
def test_query_that_is_no_unit_vector_is_refused_instead_of_answered_with_nothing(
    table: Any, query: list[float]
) -> None:
    with pytest.raises(StoreError, match="unit"):
        nearest(table, np.array(query, dtype=np.float32))


LICENCES: dict[str, list[set[str]]] = {
    "MIT": [{"MIT"}],
    "CC0-1.0": [{"CC0-1.0"}],
    "ISC AND MIT": [{"ISC", "MIT"}],
    "CC0-1.0 OR OFL-1.1": [{"CC0-1.0"}, {"OFL-1.1"}],
}
"""Each expression with the sets of licences of which any one suffices."""
PROFILES = ("cpu-1-threads-batch-1", "cuda-1-threads-batch-64")


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Draw limits on some of all that can be limited."""
    limits: dict[str, Any] = {}
    for column in RANGES:
        low, high = sorted(rng.uniform(0.1, 100, 2).round(1))
        limits |= {f"min_{column}": low} if rng.random() < 0.25 else {}
        limits |= {f"max_{column}": high} if rng.random() < 0.35 else {}
    if any("latency" in name for name in limits):
        limits["latency_profile"] = PROFILES[rng.integers(2)]
    if rng.random() < 0.5:
        names = ["MIT", "CC0-1.0", "ISC", "OFL-1.1"]
        limits["licences"] = list(rng.choice(names, size=rng.integers(1, 4), replace=False))
    return limits


def allows(limits: dict[str, Any], model: dict[str, Any]) -> bool:
    """Decide in the slow, obvious way."""
    values = {**model, "latency_ms": model["latencies"].get(limits.get("latency_profile"))}
    for name, limit in limits.items():
        if name.startswith(("min_", "max_")):
            value = values[name[4:]]
            if value is None or (value < limit if name.startswith("min_") else value > limit):
                return False
    accepted = limits.get("licences")
    return accepted is None or any(choice <= set(accepted) for choice in LICENCES[model["licence"]])


def test_a_thousand_sets_of_limits_give_what_brute_force_does_and_advice_that_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    models: list[dict[str, Any]] = [
        {
            "id": f"m'{number:02d}",
            "params_m": round(float(rng.uniform(0.1, 100)), 1),
            "macs_m": round(float(rng.uniform(0.1, 100)), 1),
            "licence": list(LICENCES)[number % 4],
            # Timed under one profile, under both, or under none.
            "latencies": {name: round(float(rng.uniform(0.1, 100)), 1) for name in PROFILES if rng.random() < 0.7},
        }
        for number in range(50)
    ]
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    zeros = np.zeros(50, dtype=np.float32)
    cards = [
        card(
            one["id"],
            "t",
            licence=one["licence"],
            licences=dict.fromkeys(("code", "weights", "data"), one["licence"]),
            params_m=one["params_m"],
            macs_m=one["macs_m"],
        )
        for one in models
    ]
    write_table(tmp_path, "index", index_table(cards, Places(vectors, zeros, zeros), "space"))
    found, empty, query = open_table(tmp_path, "index"), 0, vectors[0]
    order = [models[index] for index in np.argsort(-(vectors @ query), kind="stable")]
    for _ in range(1000):
        limits = drawn(rng)
        constraints = Constraints.read(**limits)
        profile = constraints.latency_profile
        latencies = {one["id"]: one["latencies"][profile] for one in models if profile in one["latencies"]}
        wanted = [one["id"] for one in order if allows(limits, one)]
        assert nearest(found, query, constraints.where(LICENCES, latencies))["id"].to_pylist() == wanted, limits
        fitting = [one["id"] for one in order if constraints.fit(SimpleNamespace(**one), latencies.get(one["id"]))]
        assert fitting == wanted, limits
        if not wanted:
            empty += 1
            told = nearest_miss([{**one, "latency_ms": latencies.get(one["id"])} for one in models], constraints)
            for line in told.splitlines()[1:]:
                _check_advice(line, limits, {one["id"]: one for one in models})
    assert 50 < empty < 900


def _check_advice(line: str, limits: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    """Whoever follows the advice gets the model, and would not by anything less."""
    if "were not timed" in line:
        return
    relaxed = dict(limits)
    for option, value in re.findall(r"--((?:min|max)[a-z-]+) to ([0-9.e+-]+)", line):
        relaxed[option.replace("-", "_")] = float(value)
    for names in re.findall(r"accept --licence (\S+) as well", line):
        relaxed["licences"] = [*limits["licences"], *names.split(",")]
    model = models[line.split(" (")[0].strip()]
    assert relaxed != limits and allows(relaxed, model) and not allows(limits, model), line


def test_index_names_its_space(table: Any) -> None:
    assert space_of(table.schema) == "digest-of-space"
