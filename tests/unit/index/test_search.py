from typing import Any

import numpy as np
import pytest

from tans_core.embeddings.store import open_table, write_table
from tans_core.errors import StoreError
from tans_core.index.schema import index_table, space_of
from tans_core.index.search import nearest
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
        ("licence IN ('CC0-1.0') AND macs_m <= 4.0", [0, 2]),
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


def test_index_names_its_space(table: Any) -> None:
    assert space_of(table.schema) == "digest-of-space"
