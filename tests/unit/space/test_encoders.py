from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tans_core.errors import StoreError, WeightsError
from tans_core.io import read_json, write_json
from tans_core.space.encoders import CrossModalSpace, embed_in_space, space_digest


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


STATISTICS, TOPOLOGY, FUNCTIONAL = 5 + 3 * numbers(9, 7, seed=0), 2 * numbers(40, 4, seed=1), numbers(40, 6, seed=2)


@pytest.fixture
def space() -> CrossModalSpace:
    """Random weights in every part, also in those that start at nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = CrossModalSpace(7, 4, 6, dim=5, tasks=9).eval().requires_grad_(False)
        for value in found.prior.parameters():
            torch.nn.init.normal_(value)
    found.fit_scales(STATISTICS, TOPOLOGY, FUNCTIONAL)
    return found


def test_places_are_of_unit_norm(space: CrossModalSpace) -> None:
    places = embed_in_space(space, TOPOLOGY.numpy(), FUNCTIONAL.numpy())
    np.testing.assert_allclose(np.linalg.norm(places.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(space.encode_query(STATISTICS).norm(dim=1), 1, atol=1e-5)
    assert (places.vectors.shape, places.capacity.shape, places.start.shape) == ((40, 5), (40,), (40,))


def test_predicted_order_of_models_differs_between_two_queries(space: CrossModalSpace) -> None:
    models, parts = space.encode_models(TOPOLOGY, FUNCTIONAL), space.parts(TOPOLOGY, FUNCTIONAL)
    queries = space.encode_query(STATISTICS)
    orders = {tuple(space.predict(query.expand_as(models), models, *parts).argsort().tolist()) for query in queries}
    assert len(orders) == len(queries)


def test_prediction_is_capacity_and_start_and_fit_added_up(space: CrossModalSpace) -> None:
    places = embed_in_space(space, TOPOLOGY.numpy(), FUNCTIONAL.numpy())
    query = space.encode_query(STATISTICS[:1])[0].numpy()
    fit = float(space.fit_scale) * (places.vectors @ query)
    models = torch.from_numpy(places.vectors)
    asked = torch.from_numpy(query).expand_as(models)
    parts = torch.from_numpy(places.capacity), torch.from_numpy(places.start)
    for trust in (1.0, 0.25, 0.0):
        found = space.predict(asked, models, *parts, trust)
        np.testing.assert_allclose(found, places.capacity + places.start + trust * fit, atol=1e-5)


def test_capacity_is_of_the_topology_alone_and_start_of_the_functional_embedding(space: CrossModalSpace) -> None:
    capacity, start = space.parts(TOPOLOGY, FUNCTIONAL)
    other_capacity, same_start = space.parts(TOPOLOGY.flip(0), FUNCTIONAL)
    torch.testing.assert_close(other_capacity.flip(0), capacity)
    assert torch.equal(same_start, start)
    assert torch.equal(space.parts(TOPOLOGY, FUNCTIONAL.flip(0))[0], capacity)


def test_trust_falls_with_the_distance_to_the_nearest_task_seen(space: CrossModalSpace) -> None:
    deviation = STATISTICS.std(dim=0, correction=0)
    standard = ((STATISTICS - STATISTICS.mean(dim=0)) / deviation).numpy()
    distances = np.linalg.norm(standard[:, None] - standard[None], axis=2)
    apart = float(np.median([min(np.delete(row, index)) for index, row in enumerate(distances)]))
    torch.testing.assert_close(space.trust(STATISTICS), torch.ones(9))
    # Away from the task that is outermost in the first column, so that no other comes nearer.
    asked = STATISTICS[STATISTICS[:, 0].argmax()].repeat(7, 1)
    asked[:, 0] += torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 100.0]) * apart * deviation[0]
    trust = space.trust(asked)
    assert (trust.diff() <= 0).all()
    assert trust[[0, 3, 6]].tolist() == pytest.approx([1, 0.5, 0], abs=1e-3)


def test_order_far_from_all_tasks_seen_is_that_of_capacity_and_start(space: CrossModalSpace) -> None:
    models, parts = space.encode_models(TOPOLOGY, FUNCTIONAL), space.parts(TOPOLOGY, FUNCTIONAL)
    strange = STATISTICS[:1] + 1000
    query, trust = space.encode_query(strange), space.trust(strange)
    torch.testing.assert_close(space.predict(query.expand_as(models), models, *parts, trust), parts[0] + parts[1])


def test_untrained_space_thinks_nothing_of_any_model() -> None:
    assert all(not part.any() for part in CrossModalSpace(7, 4, 6, dim=5, tasks=9).parts(TOPOLOGY, FUNCTIONAL))


def test_units_of_an_input_do_not_matter_and_neither_part_drowns_the_other(space: CrossModalSpace) -> None:
    before = space.encode_models(TOPOLOGY, FUNCTIONAL)
    space.fit_scales(STATISTICS, TOPOLOGY, 8e4 * FUNCTIONAL + 3)
    torch.testing.assert_close(space.encode_models(TOPOLOGY, 8e4 * FUNCTIONAL + 3), before, atol=1e-4, rtol=0)


def test_column_that_never_varied_in_training_tells_nothing_later(space: CrossModalSpace) -> None:
    constant = TOPOLOGY.clone()
    constant[:, 1] = 3.0
    space.fit_scales(STATISTICS, constant, FUNCTIONAL)
    before = space.encode_models(constant, FUNCTIONAL)
    constant[:, 1] = 1e6
    torch.testing.assert_close(space.encode_models(constant, FUNCTIONAL), before)


def test_saved_space_encodes_as_before(space: CrossModalSpace, tmp_path: Path) -> None:
    space.save(tmp_path, {"note": "kept"})
    loaded = CrossModalSpace.load(tmp_path)
    before, after = (embed_in_space(one, TOPOLOGY.numpy(), FUNCTIONAL.numpy()) for one in (space, loaded))
    for name in ("vectors", "capacity", "start"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert torch.equal(space.encode_query(STATISTICS), loaded.encode_query(STATISTICS))
    assert torch.equal(space.fit_scale, loaded.fit_scale)
    told = read_json(tmp_path / "space.json")
    assert (told["note"], told["objective"], told["dims"]["dim"]) == ("kept", "tans", 5)
    assert not loaded.training


def test_space_is_named_by_its_weights(space: CrossModalSpace, tmp_path: Path) -> None:
    space.save(tmp_path / "a", {})
    space.save(tmp_path / "b", {"note": "of no account"})
    assert space_digest(tmp_path / "a") == space_digest(tmp_path / "b")
    space.fit_scale += 1
    space.save(tmp_path / "c", {})
    assert space_digest(tmp_path / "c") != space_digest(tmp_path / "a")


def test_missing_space_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tans build space"):
        CrossModalSpace.load(tmp_path)
    with pytest.raises(StoreError, match="tans build space"):
        space_digest(tmp_path)


@pytest.mark.parametrize("changed", [{"objective": "paper"}, {"objective": None}])
def test_space_of_another_objective_is_refused(
    space: CrossModalSpace, tmp_path: Path, changed: dict[str, object]
) -> None:
    space.save(tmp_path, {})
    write_json(read_json(tmp_path / "space.json") | changed, tmp_path / "space.json")
    wanted = rf"space\.json: got objective {changed['objective']!r}, want 'tans'.*tans build space"
    with pytest.raises(StoreError, match=wanted):
        CrossModalSpace.load(tmp_path)


def test_space_that_is_older_than_objectives_is_refused(space: CrossModalSpace, tmp_path: Path) -> None:
    space.save(tmp_path, {})
    write_json({"dims": {"query_dim": 7, "model_dim": 10, "dim": 5, "hidden": 64}}, tmp_path / "space.json")
    with pytest.raises(StoreError, match="got objective None"):
        CrossModalSpace.load(tmp_path)


def test_weights_of_another_shape_are_refused(space: CrossModalSpace, tmp_path: Path) -> None:
    space.save(tmp_path, {})
    told = read_json(tmp_path / "space.json")
    write_json({**told, "dims": {**told["dims"], "dim": 6}}, tmp_path / "space.json")
    with pytest.raises(WeightsError):
        CrossModalSpace.load(tmp_path)
