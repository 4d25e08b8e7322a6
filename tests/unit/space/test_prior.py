"""The Gaussian process over trials, compared with sklearn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from tans_core.space.prior import Covariance, TrialPrior, groups_of

Trials = tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def trials(seed: int = 0) -> Trials:
    """Twelve networks of three architectures, each tried on some of six tasks of three sources."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(3, 5, generator=generator)
    kind = torch.arange(12) % 3
    functional = torch.randn(12, 7, generator=generator) / 7**0.5
    model = torch.randint(12, (60,), generator=generator)
    task = torch.arange(60) % 6
    group = task % 3
    score = torch.tensor([1.0, 0.0, -1.0])[kind[model]] + 0.2 * torch.randn(60, generator=generator)
    # Tasks differ in their level, which says nothing of the networks.
    score = score + torch.randn(6, generator=generator)[task]
    weight = torch.rand(60, generator=generator) * 0.9 + 0.1
    return (kinds[kind] / 5**0.5, functional), model, score, group, task, weight


def test_mean_is_that_of_a_process_with_the_chosen_covariance() -> None:
    networks, model, score, group, task, weight = trials()
    prior = TrialPrior(12, 5, 7)
    prior.fit(networks, model, score, group, task, weight)
    chosen = Covariance(*prior.covariance.tolist())
    new = torch.randn(4, 5) / 5**0.5, torch.randn(4, 7) / 7**0.5
    # One column per task, equal for equal tasks only: the task's level, with a variance so large that it is free.
    levels = 1e3 * torch.eye(6)[task]
    columns = [
        torch.cat([networks[0][model], networks[1][model], levels], dim=1).numpy(),
        torch.cat([*new, torch.zeros(4, 6)], dim=1).numpy(),
    ]
    by_topology, by_functional = [chosen.topology_length] * 5, [chosen.functional_length] * 7
    off_5, off_7, off_6 = [1e9] * 5, [1e9] * 7, [1e9] * 6
    kernel = (
        RBF([*by_topology, *off_7, *off_6])
        + chosen.share * RBF([*by_topology, *by_functional, *off_6])
        + 1e5 * RBF([*off_5, *off_7, *([1.0] * 6)])
    )
    process = GaussianProcessRegressor(kernel, alpha=(chosen.noise / weight.double()).numpy(), optimizer=None)
    process.fit(columns[0], score.double().numpy())
    capacity, start = prior(*new)
    np.testing.assert_allclose((capacity + start).numpy(), process.predict(columns[1]), atol=2e-3)


def test_what_is_expected_of_a_trial_follows_from_other_groups_alone() -> None:
    networks, model, score, group, task, weight = trials()
    expected = TrialPrior(12, 5, 7).fit(networks, model, score, group, task, weight)
    told = [np.corrcoef(expected[task == one].numpy(), score[task == one].numpy())[0, 1] for one in range(6)]
    assert min(told) > 0.8
    # Relative to the others on the task, by what each counts.
    assert all(abs(float((weight * expected)[task == one].sum())) < 1e-5 for one in range(6))
    spoilt = score.clone()
    spoilt[group == 0] += torch.randn(20) * 1e-3
    again = TrialPrior(12, 5, 7).fit(networks, model, spoilt, group, task, weight)
    torch.testing.assert_close(again[group == 0], expected[group == 0], rtol=0, atol=1e-6)
    assert not torch.equal(again[group == 1], expected[group == 1])


def test_architectures_are_told_apart_and_without_trials_nothing_is_known() -> None:
    networks, model, score, group, task, weight = trials()
    prior = TrialPrior(12, 5, 7)
    prior.fit(networks, model, score, group, task, weight)
    capacity, start = prior(*networks)
    means = [(capacity + start)[kind::3].mean().item() for kind in range(3)]
    # Up to a level that is common to all.
    assert np.diff(means) == pytest.approx([-1, -1], abs=0.2)
    assert not any(part.any() for part in TrialPrior(0, 5, 7)(*networks))


def test_of_one_group_nothing_is_expected() -> None:
    networks, model, score, _, task, weight = trials()
    prior = TrialPrior(12, 5, 7)
    assert not prior.fit(networks, model, score, torch.zeros(60, dtype=torch.int64), task, weight).any()
    assert prior.covariance.tolist() == [0.5, 1.0, 1.0, 1.0]


def test_names_are_numbered_by_their_first_occurrence() -> None:
    assert groups_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
