import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tans_core.embeddings.store import open_table, write_table
from tans_core.errors import NoModelFitsError, StoreError
from tans_core.index.schema import index_table, space_of
from tans_core.index.search import Index, Kept
from tans_core.retrieval.constraints import RANGES, Constraints
from tans_core.retrieval.limits import require_some, within
from tans_core.space.encoders import Places
from tests.factories.embeddings import card, clustered_index


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


def ids(index: Index, query: Any, weight: float = 1.0, limit: int | None = None, kept: Kept | None = None) -> list[str]:
    """Search, and return the ids of what was found, best first, those of equal score by id."""
    rows = index.best(np.asarray(query, dtype=np.float32), weight, limit, kept)
    scores = index.values[rows] + np.float32(weight) * (index.vectors.numpy()[rows] @ query)
    order = np.lexsort((index.by_id[rows], -scores))
    return [row["id"] for row in index.rows(rows[order][:limit])]


def test_models_come_by_value_and_weighted_cosine(table: Any) -> None:
    index = Index.read(table)
    assert ids(index, QUERY) == [f"m.{n:02d}" for n in range(40)]
    assert ids(index, QUERY, limit=3) == ["m.00", "m.01", "m.02"]
    assert ids(index, QUERY, weight=-1.0, limit=2) == ["m.39", "m.38"]
    np.testing.assert_allclose(index.capacity, -index.start)
    assert index.rows(np.array([0]), ["id", "macs_m"]) == [{"id": index.rows(np.array([0]))[0]["id"], "macs_m": 1.0}]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"max_params_m": 1.5}, list(range(20, 40))),
        ({"max_macs_m": 3}, [0, 1, 2]),
        ({"max_params_m": 1.5, "max_macs_m": 22}, [20, 21]),
        ({"licences": ["Apache-2.0", "CC0-1.0"], "max_macs_m": 4}, [0, 2]),
        ({"licences": ["ISC"]}, []),
    ],
)
def test_limits_apply_before_the_search(table: Any, limits: dict[str, Any], wanted: list[int]) -> None:
    index = Index.read(table)
    kept = within(index, Constraints.read(**limits), {})
    assert ids(index, QUERY, limit=20, kept=kept) == [f"m.{n:02d}" for n in wanted]
    assert ids(index, QUERY, limit=2, kept=kept) == [f"m.{n:02d}" for n in wanted[:2]]


@pytest.mark.parametrize("query", [[0.0, 0.0], [np.nan, 0.0], [3.0, 4.0]])
def test_query_that_is_no_unit_vector_is_refused(table: Any, query: list[float]) -> None:
    with pytest.raises(StoreError, match=r"has length .*, want 1"):
        Index.read(table).best(np.array(query, dtype=np.float32), 1.0, 3)


def test_search_that_skips_rows_finds_what_brute_force_does() -> None:
    """With rounded copies and without; where values or cosines decide, and where few or many are kept."""
    table, rng = clustered_index(40_000, dim=12, seed=1), np.random.default_rng(2)
    indices = Index(table), Index(table, coarse_from=1)
    index = indices[0]
    vectors, values = index.vectors.numpy().astype(np.float64), index.values.astype(np.float64)
    assert (np.diff(values) <= 0).all()
    for number in range(100):
        query = vectors[rng.integers(len(index))] + rng.normal(size=12) * 0.2
        query = (query / np.linalg.norm(query)).astype(np.float32)
        weight = float(rng.choice([0.0, 0.05, 0.3, 1.0, 5.0, 200.0, -1.0]))
        share, limit = rng.choice([1.0, 0.5, 0.05, 0.01, 0.0005]), int(rng.choice([1, 10, 300]))
        kept = None if share == 1 else rng.random(len(index)) < share
        scores = values + weight * (vectors @ query)
        allowed = np.arange(len(index)) if kept is None else np.flatnonzero(kept)
        wanted = allowed[np.argsort(-scores[allowed])[:limit]]
        found = indices[number % 2].best(query, weight, limit, kept)
        assert len(np.unique(found)) == len(found) and np.isin(found, allowed).all()
        assert np.isin(wanted, found).all(), (number, weight, share, limit)
        # No more than those that float32 cannot tell apart from the last.
        assert len(found) <= len(wanted) + np.count_nonzero(np.abs(scores - scores[wanted[-1]]) < 2e-3)


def test_models_of_equal_score_are_all_found() -> None:
    table = clustered_index(5000, dim=4)
    same = pa.array(np.zeros(5000, dtype=np.float32))
    for name in ("capacity", "start"):
        table = table.set_column(table.column_names.index(name), name, same)
    assert len(Index(table).best(np.array([1, 0, 0, 0], dtype=np.float32), 0.0, 10)) == 5000


LICENCES: dict[str, list[set[str]]] = {
    "MIT": [{"MIT"}],
    "CC0-1.0": [{"CC0-1.0"}],
    "ISC AND MIT": [{"ISC", "MIT"}],
    "CC0-1.0 OR OFL-1.1": [{"CC0-1.0"}, {"OFL-1.1"}],
}
"""Each expression with the sets of licences of which any one suffices."""
HOMES = ["t0", "t1", "t2", "t3"]
SCALES = {"weights_mb": 4, "home_accuracy": 0.01}
PROFILES = ("cpu-1-threads-batch-1", "cuda-1-threads-batch-64")


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Draw limits on some of all that can be limited."""
    limits: dict[str, Any] = {}
    for column in RANGES:
        low, high = sorted(SCALES.get(column, 1) * rng.uniform(0.1, 100, 2).round(1))
        if column == "input_size_px":
            low, high = int(low) + 1, int(high) + 1
        limits |= {f"min_{column}": low} if rng.random() < 0.2 else {}
        limits |= {f"max_{column}": high} if rng.random() < 0.25 and column != "home_accuracy" else {}
    if any("latency" in name for name in limits):
        limits["latency_profile"] = PROFILES[rng.integers(2)]
    for option in ("home", "not_home"):
        if rng.random() < 0.15:
            limits[option] = list(rng.choice(HOMES, size=rng.integers(1, 4), replace=False))
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
    if model["home_task"] not in limits.get("home", HOMES) or model["home_task"] in limits.get("not_home", []):
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
            "input_size_px": int(rng.integers(1, 100)),
            "home_accuracy": round(float(rng.uniform(0, 1)), 3) if rng.random() < 0.9 else None,
            "home_task": HOMES[number % 3 + (number % 7 == 0)],
            "licence": list(LICENCES)[number % 4],
            # Timed under one profile, under both, or under none.
            "latencies": {name: round(float(rng.uniform(0.1, 100)), 1) for name in PROFILES if rng.random() < 0.7},
        }
        for number in range(50)
    ]
    for one in models:
        one["weights_mb"] = 4 * one["params_m"]
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    zeros = np.zeros(50, dtype=np.float32)
    cards = [
        card(
            one["id"],
            one["home_task"],
            licence=one["licence"],
            licences=dict.fromkeys(("code", "weights", "data"), one["licence"]),
            params_m=one["params_m"],
            macs_m=one["macs_m"],
            val_accuracy=one["home_accuracy"],
        )
        for one in models
    ]
    write_table(tmp_path, "index", index_table(cards, Places(vectors, zeros, zeros), "space"))
    index, empty, query = Index.read(open_table(tmp_path, "index")), 0, vectors[0]
    order = [models[index] for index in np.argsort(-(vectors @ query), kind="stable")]
    for _ in range(1000):
        limits = drawn(rng)
        constraints = Constraints.read(**limits)
        profile = constraints.latency_profile
        beside = {
            "latency_ms": {one["id"]: one["latencies"][profile] for one in models if profile in one["latencies"]},
            "input_size_px": {one["id"]: one["input_size_px"] for one in models},
        }
        wanted = [one["id"] for one in order if allows(limits, one)]
        kept = within(index, constraints, beside)
        assert ids(index, query, kept=kept) == wanted, limits
        assert ids(index, query, limit=5, kept=kept) == wanted[:5], limits
        if not wanted:
            empty += 1
            with pytest.raises(NoModelFitsError) as caught:
                require_some(index, constraints, beside)
            for line in str(caught.value).splitlines()[1:]:
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
    for name in re.findall(r"add --home (\S+)", line):
        relaxed["home"] = [*limits["home"], name]
    for name in re.findall(r"leave out --not-home (\S+)", line):
        relaxed["not_home"] = [task for task in limits["not_home"] if task != name]
    if "leave out --min-home-accuracy" in line:
        relaxed.pop("min_home_accuracy")
    if "time it" in line:
        relaxed = {name: value for name, value in relaxed.items() if "latency" not in name}
    model = models[line.split(" (")[0].strip()]
    assert relaxed != limits and allows(relaxed, model) and not allows(limits, model), line


def test_index_names_its_space(table: Any) -> None:
    assert space_of(table.schema) == "digest-of-space"
