"""Classifiers fitted to a network's features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from tans_core.networks.head import features_of, fit_head, head_sample
from tans_core.networks.preprocess import normalise
from tans_core.tasks.task import Task
from tests.factories.networks import PREPROCESS, tiny_network, tiny_space
from tests.factories.tasks import grating_task


def training_images(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(task.pixels(16, split="train"))
    labels = torch.from_numpy(task.labels[task.where("train")])
    return normalise(images, PREPROCESS.mean, PREPROCESS.std), labels


@pytest.mark.parametrize("classes", [2, 3])
def test_fitted_classifier_answers_as_the_regression_on_the_features_does(classes: int) -> None:
    images, labels = training_images(grating_task(classes=classes))
    network = tiny_network(num_classes=classes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit_head(network, network.classifier, images, labels, "fp32")
    features = features_of(network, images)
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6) / features.shape[1] ** 0.5
    wanted = LogisticRegression(C=1, max_iter=100, tol=1e-3).fit(scaled, labels.numpy()).predict_proba(scaled)
    found = network.classifier(torch.from_numpy(features).float()).softmax(dim=1)
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-3)
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["classifier.weight", "classifier.bias"]
    assert not network.training


def test_class_without_an_image_is_never_answered() -> None:
    images, labels = training_images(grating_task(classes=3))
    network = tiny_network(num_classes=4)
    fit_head(network, network.classifier, images, labels, "fp32")
    answers = network.classifier(torch.from_numpy(features_of(network, images)).float())
    assert (answers.argmax(dim=1) == labels).float().mean() > 0.6
    assert not (answers.argmax(dim=1) == 3).any()


def test_the_head_of_a_supernet_is_fitted_to_its_largest_member() -> None:
    images, labels = training_images(grating_task(classes=3))
    supernet = tiny_space().supernet(3).train()
    head = nn.Linear(supernet.feature_dim, 3)
    fit_head(supernet, head, images, labels, "fp32")
    assert supernet.training and supernet.active is None
    features = torch.from_numpy(features_of(supernet.extract(tiny_space().largest()), images)).float()
    assert (head(features).argmax(dim=1) == labels).float().mean() > 0.6


def test_sample_is_balanced_and_bounded() -> None:
    labels = torch.cat([torch.zeros(5000), torch.ones(300)]).long()
    chosen = head_sample(labels, torch.Generator().manual_seed(0))
    assert labels[chosen].bincount().tolist() == [256, 256]
    many = torch.arange(1000).repeat(6)
    assert many[head_sample(many, torch.Generator().manual_seed(0))].bincount().unique().tolist() == [4]
