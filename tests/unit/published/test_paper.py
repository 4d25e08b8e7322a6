"""The published space, compared with slow, obvious loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tans_core.published.paper import PaperSpace, model_inputs, paper_loss

Array = npt.NDArray[np.float64]


def unit_rows(count: int, width: int, seed: int) -> Array:
    values = np.random.default_rng(seed).normal(size=(count, width))
    unit: Array = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit


def slow_loss(queries: Array, models: Array, predicted: Array, accuracy: Array, margin: float) -> float:
    """As the paper writes it down, one pair at a time."""
    count = len(queries)
    total = 0.0
    for i in range(count):
        for j in range(count):
            crossed = 0.0 if i == j else float(models[i] @ queries[j])
            total += max(0.0, crossed + margin - float(models[j] @ queries[j]))
            total += max(0.0, crossed + margin - float(models[i] @ queries[i]))
    return total + sum(float(predicted[i] - accuracy[i]) ** 2 for i in range(count)) / count


def fast_loss(queries: Array, models: Array, predicted: Array, accuracy: Array, margin: float) -> float:
    q, m, p, a = (torch.from_numpy(values) for values in (queries, models, predicted, accuracy))
    return float(paper_loss(q, m, p, a, margin))


@pytest.mark.parametrize("count", [1, 2, 3, 17])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_loss_is_the_published_sum(count: int, margin: float) -> None:
    queries, models = unit_rows(count, 8, seed=count), unit_rows(count, 8, seed=count + 100)
    predicted, accuracy = np.random.default_rng(count).random((2, count))
    wanted = slow_loss(queries, models, predicted, accuracy, margin)
    assert fast_loss(queries, models, predicted, accuracy, margin) == pytest.approx(wanted, abs=1e-5)


def test_loss_of_equal_and_of_opposite_embeddings_is_the_published_sum() -> None:
    zeros = np.zeros(4)
    one = np.repeat(unit_rows(1, 8, seed=0), 4, axis=0)
    # All similarities are equal: each of 4 x 3 pairs off the diagonal costs the margin, in both directions.
    assert fast_loss(one, one, zeros, zeros, 0.2) == pytest.approx(2 * 12 * 0.2, abs=1e-5)
    # Each task's own model lies at its antipode: the diagonal costs too.
    for queries, models in ((one, -one), (unit_rows(4, 8, seed=1), -unit_rows(4, 8, seed=1))):
        wanted = slow_loss(queries, models, zeros, zeros, 0.2)
        assert fast_loss(queries, models, zeros, zeros, 0.2) == pytest.approx(wanted, abs=1e-5)


def test_loss_of_separated_tasks_is_the_error_of_the_predictor_alone() -> None:
    axes, predicted, accuracy = torch.eye(5), torch.full((5,), 0.5), torch.full((5,), 0.75)
    assert paper_loss(axes, axes, accuracy, accuracy) == 0
    assert paper_loss(axes, axes, predicted, accuracy) == pytest.approx(1 / 16)
    assert paper_loss(axes, axes, predicted, accuracy, weight=100) == pytest.approx(100 / 16)


def test_encoding_the_mean_of_images_is_the_mean_of_encoded_images() -> None:
    space = PaperSpace(6, 4, 5, dim=3)
    features = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))
    encoded = space.encode_query(features.mean(dim=1))
    for query, images in zip(encoded, features, strict=True):
        mean = torch.stack([space.query_encoder(image) for image in images]).mean(dim=0)
        torch.testing.assert_close(query, mean / mean.norm())


def test_models_and_predictions_are_those_of_the_formulas() -> None:
    space = PaperSpace(6, 4, 5, dim=3)
    generator = torch.Generator().manual_seed(0)
    topology, functional = torch.randn(8, 4, generator=generator), 9 * torch.randn(8, 5, generator=generator)
    models = space.encode_models(model_inputs(topology, functional))
    queries = space.encode_query(torch.randn(8, 6, generator=generator))
    predicted = space.predict(queries, models)
    assert predicted.shape == (8,)
    for row in range(8):
        joined = torch.cat([topology[row], functional[row]])
        model = space.model_encoder(joined / joined.norm())
        torch.testing.assert_close(models[row], model / model.norm())
        score = space.predictor(torch.cat([queries[row], models[row]]))
        torch.testing.assert_close(predicted[row], torch.sigmoid(score)[0])


def test_weights_follow_from_the_generator_alone() -> None:
    one, other = (PaperSpace(6, 4, 5).initialise(torch.Generator().manual_seed(3)) for _ in range(2))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
        assert 0 < float(value.abs().max()) <= (6 if name.startswith("query") else 9) ** -0.5
