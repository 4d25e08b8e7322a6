"""The Gaussian process over trials, held against sklearn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from tans_core.space.prior import Covariance, TrialPrior, groups_of


def trials(seed: int = 0) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Twelve networks of three architectures, each tried on some of six tasks of three sources."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(3, 5, generator=generator)
    kind = torch.arange(12) % 3
    functional = torch.randn(12, 7, generator=generator) / 7**0.5
    model = torch.randint(12, (60,), generator=generator)
    group = torch.arange(60) % 3
    score = torch.tensor([1.0, 0.0, -1.0])[kind[model]] + 0.2 * torch.randn(60, generator=generator)
    return (kinds[kind] / 5**0.5, functional), model, score, group


def test_mean_is_that_of_a_process_with_the_chosen_covariance() -> None:
    networks, model, score, group = trials()
    prior = TrialPrior(12, 5, 7)
    prior.fit(networks, model, score, group)
    chosen = Covariance(*prior.covariance.tolist())
    new = torch.randn(4, 5) / 5**0.5, torch.randn(4, 7) / 7**0.5
    columns = [np.concatenate([part[0], part[1]], axis=1) for part in (networks, new)]
    scales = [chosen.topology_length] * 5, [1e9] * 7, [chosen.functional_length] * 7
    kernel = RBF([*scales[0], *scales[1]]) + chosen.share * RBF([*scales[0], *scales[2]])
    process = GaussianProcessRegressor(kernel, alpha=chosen.noise, optimizer=None)
    process.fit(columns[0][model.numpy()], score.numpy())
    capacity, start = prior(*new)
    np.testing.assert_allclose((capacity + start).numpy(), process.predict(columns[1]), atol=1e-4)


def test_what_is_expected_of_a_trial_follows_from_other_groups_alone() -> None:
    networks, model, score, group = trials()
    expected = TrialPrior(12, 5, 7).fit(networks, model, score, group)
    assert np.corrcoef(expected.numpy(), score.numpy())[0, 1] > 0.9
    spoilt = score.clone()
    spoilt[group == 0] += torch.randn(20) * 1e-3
    again = TrialPrior(12, 5, 7).fit(networks, model, spoilt, group)
    torch.testing.assert_close(again[group == 0], expected[group == 0], rtol=0, atol=1e-6)
    assert not torch.equal(again[group == 1], expected[group == 1])


def test_architectures_are_told_apart_and_without_trials_nothing_is_known() -> None:
    networks, model, score, group = trials()
    prior = TrialPrior(12, 5, 7)
    prior.fit(networks, model, score, group)
    capacity, start = prior(*networks)
    means = [(capacity + start)[kind::3].mean().item() for kind in range(3)]
    assert means == pytest.approx([1, 0, -1], abs=0.2)
    assert not any(part.any() for part in TrialPrior(0, 5, 7)(*networks))


def test_of_one_group_nothing_is_expected() -> None:
    networks, model, score, _ = trials()
    prior = TrialPrior(12, 5, 7)
    assert not prior.fit(networks, model, score, torch.zeros(60, dtype=torch.int64)).any()
    assert prior.covariance.tolist() == [0.5, 1.0, 1.0, 1.0]


def test_names_are_numbered_by_their_first_occurrence() -> None:
    assert groups_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
