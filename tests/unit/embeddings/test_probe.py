import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from tans_core.embeddings.probe import probe, probe_features, probe_sample, ridge_probe
from tans_core.errors import TooFewImagesError, WeightsError
from tans_core.networks.elastic import ElasticNetwork, ElasticSpace
from tests.factories.tasks import grating_task

SPACE = ElasticSpace(8, (8, 16), (2, 2), 1, (3,), (1.0,))


def network() -> ElasticNetwork:
    torch.manual_seed(3)
    return SPACE.build(SPACE.largest(), num_classes=2).eval()


def test_closed_form_equals_fitting_without_each_image_in_turn() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    features = rng.normal(size=(24, 6)) + 1.5 * np.eye(3)[labels] @ rng.normal(size=(3, 6))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    targets = np.eye(3)[labels] - 1 / 3
    found = {}
    for exponent in range(-3, 4):
        # The same penalty as ours: a share of the mean squared singular value.
        penalty = 10.0**exponent * float((np.linalg.svd(scaled, compute_uv=False) ** 2).mean())
        left_out = np.empty_like(targets)
        for index in range(24):
            rest = np.arange(24) != index
            left_out[index] = Ridge(penalty).fit(scaled[rest], targets[rest]).predict(scaled[[index]])[0]
        found[1 - ((targets - left_out) ** 2).sum() / (targets**2).sum()] = (left_out.argmax(axis=1) == labels).mean()
    score = ridge_probe(features, labels)
    # Ridge without an image also centres without it: equal up to 1 / n.
    assert score.fit == pytest.approx(max(found), abs=0.02)
    assert score.accuracy == pytest.approx(found[max(found)], abs=0.05)


def test_separable_features_score_high_and_noise_scores_nothing() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 20)
    clear = np.eye(4)[labels] + 0.05 * rng.normal(size=(80, 4))
    assert ridge_probe(clear, labels).accuracy == 1
    assert ridge_probe(clear, labels).fit > 0.9
    noise = rng.normal(size=(80, 30))
    assert ridge_probe(noise, labels).fit < 0.1
    assert ridge_probe(noise, labels).accuracy < 0.5


def test_a_constant_feature_and_constant_features_alone_are_survived() -> None:
    labels = np.repeat(np.arange(2), 10)
    features = np.random.default_rng(2).normal(size=(20, 5))
    with_constant = np.concatenate([features, np.full((20, 1), 7.0)], axis=1)
    assert ridge_probe(with_constant, labels) == ridge_probe(features, labels)
    assert ridge_probe(np.ones((20, 3)), labels).fit <= 0


def test_sample_is_balanced_and_neither_order_nor_seed_changes_it() -> None:
    task = grating_task()
    sample = probe_sample(task, images_per_class=5, most=100)
    assert np.bincount(sample.labels.numpy()).tolist() == [5] * task.info.num_classes
    turned = type(task)(
        task.info, task.images[::-1], task.labels[::-1], task.splits[::-1], task.sha256, task.paths, task.sizes
    )
    assert torch.equal(probe_sample(turned, 5, 100).images, sample.images)
    assert len(probe_sample(task, 50, most=2 * task.info.num_classes).labels) == 2 * task.info.num_classes


def test_probing_leaves_the_network_as_it_was() -> None:
    task, model = grating_task(), network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = probe(model, probe_sample(task, 10, 100))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert probe(model, probe_sample(task, 10, 100)) == first


def test_broken_weights_are_named_and_a_single_class_is_refused() -> None:
    task, model = grating_task(), network()
    with torch.no_grad():
        model.stem.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        probe_features(model, probe_sample(task, 5, 100).images)
    lonely = type(task)(
        task.info, task.images, np.zeros_like(task.labels), task.splits, task.sha256, task.paths, task.sizes
    )
    with pytest.raises(TooFewImagesError, match="want at least 2"):
        probe_sample(lonely, 5, 100)
