"""The published space fitted on a small zoo with a known answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from tans_core.errors import StoreError
from tans_core.published.fit import hold_out_at_random
from tans_core.published.paper import PaperRecipe, PaperSpace, _Objective, fit_paper, measure_paper
from tans_core.space.training import Curve
from tests.factories.fits import NETWORKS, TASKS, StoppedError, Zoo, stopping

RECIPE = PaperRecipe(steps=150, dim=16)


def fit(
    zoo: Zoo, recipe: PaperRecipe = RECIPE, seed: int = 0, heldout: Tensor | None = None, resume: Path | None = None
) -> tuple[PaperSpace, Curve]:
    return fit_paper(zoo.data, zoo.none_held_out if heldout is None else heldout, recipe, seed, resume, device="cpu")


def weights(space: PaperSpace) -> bytes:
    return save(dict(space.state_dict()))


@pytest.mark.parametrize("ragged", [False, True])
def test_networks_find_their_tasks_and_a_weighted_predictor_learns(ragged: bool) -> None:
    zoo = Zoo(ragged)
    heldout = hold_out_at_random(zoo.home, 0.25, seed=0)
    before = PaperSpace(20, 9, 30, 16).initialise(torch.Generator().manual_seed(0))
    start = measure_paper(before, zoo.data, heldout)
    space, _ = fit(zoo, replace(RECIPE, prediction_weight=100), heldout=heldout)
    found = measure_paper(space, zoo.data, heldout)
    assert start["insample"]["recall_at_1"] < 0.4
    assert found["insample"]["recall_at_1"] > 0.95
    assert found["heldout"]["recall_at_1"] > 0.9
    assert found["insample"]["mse"] < start["insample"]["mse"]
    assert found["heldout"]["regret"] < found["heldout"]["chance_regret"]
    assert not space.training
    assert measure_paper(space, zoo.data, zoo.none_held_out)["heldout"] == {}


def test_heldout_networks_leave_no_trace() -> None:
    zoo, other = Zoo(), Zoo()
    heldout = hold_out_at_random(zoo.home, 0.25, seed=0)
    other.functional[heldout], other.accuracy[heldout] = torch.nan, torch.nan
    assert weights(fit(zoo, heldout=heldout)[0]) == weights(fit(other, heldout=heldout)[0])


@pytest.mark.parametrize("at", [199, 200, 409])
def test_run_killed_at_any_step_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    zoo, recipe = Zoo(), replace(RECIPE, steps=410, eval_every=1)
    whole, wanted = fit(zoo, recipe)
    with monkeypatch.context() as patched, pytest.raises(StoppedError):
        patched.setattr(_Objective, "step_loss", stopping(_Objective.step_loss, at))
        fit(zoo, recipe, resume=tmp_path)
    rest, curve = fit(zoo, recipe, resume=tmp_path)
    assert weights(rest) == weights(whole)
    assert curve == wanted


def test_one_step_moves_the_weights_as_the_images_one_by_one_would() -> None:
    zoo = Zoo()
    # One network a task leaves nothing to chance.
    first = torch.arange(0, TASKS * NETWORKS, NETWORKS)
    zoo.topology, zoo.functional, zoo.accuracy = zoo.topology[first], zoo.functional[first], zoo.accuracy[first]
    zoo.home = zoo.home[first]
    images = zoo.pooled_train[:, None] + torch.randn(TASKS, 5, 20, generator=torch.Generator().manual_seed(1))
    zoo.pooled_train = images.mean(dim=1)
    slow, _ = fit(zoo, replace(RECIPE, steps=0))
    fast, _ = fit(zoo, replace(RECIPE, steps=1))

    def unit(values: Tensor) -> Tensor:
        return values / values.square().sum().sqrt()

    optimizer = torch.optim.Adam(slow.parameters(), lr=RECIPE.lr)
    queries = [unit(torch.stack([slow.query_encoder(image) for image in task]).mean(dim=0)) for task in images]
    joined = [unit(torch.cat(pair)) for pair in zip(zoo.topology, zoo.functional, strict=True)]
    models = [unit(slow.model_encoder(one)) for one in joined]
    loss = torch.zeros(())
    for i in range(TASKS):
        for j in range(TASKS):
            crossed = models[i] @ queries[j] if i != j else torch.zeros(())
            loss = loss + (crossed + 0.2 - models[j] @ queries[j]).clamp_min(0)
            loss = loss + (crossed + 0.2 - models[i] @ queries[i]).clamp_min(0)
        predicted = torch.sigmoid(slow.predictor(torch.cat([queries[i], models[i]])))[0]
        loss = loss + (predicted - zoo.accuracy[i]) ** 2 / TASKS
    loss.backward()
    optimizer.step()
    for name, value in slow.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, atol=1e-4, rtol=0)


def test_a_seed_gives_the_same_bytes_and_a_curve_changes_none(tmp_path: Path) -> None:
    zoo = Zoo(ragged=True)
    space, nothing = fit(zoo)
    with_curve, curve = fit(zoo, replace(RECIPE, eval_every=50), resume=tmp_path)
    assert weights(space) == weights(with_curve)
    assert weights(fit(zoo, seed=1)[0]) != weights(space)
    assert nothing == []
    assert [row["step"] for row in curve] == [50, 100, 150]
    assert set(curve[0]) == {"step", "recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank", "mse"}
    assert fit(zoo, replace(RECIPE, eval_every=50), resume=tmp_path)[1] == curve
    # Other data starts over, in the same folder.
    zoo.accuracy[0] += 0.01
    again = fit(zoo, replace(RECIPE, eval_every=50), resume=tmp_path)[0]
    assert weights(again) == weights(fit(zoo)[0]) != weights(space)


def test_each_step_draws_one_network_of_every_task_and_all_in_time() -> None:
    zoo = Zoo(ragged=True)
    objective = _Objective(zoo.data, zoo.none_held_out, RECIPE, seed=0)
    drawn = [objective.draw(step) for step in range(200)]
    for chosen in drawn:
        assert torch.equal(zoo.home[chosen], torch.arange(TASKS))
    assert torch.cat(drawn).unique().numel() == len(zoo.home)


def test_task_without_a_network_to_train_on_is_refused() -> None:
    zoo = Zoo()
    with pytest.raises(StoreError, match="1 of 12 tasks have no network"):
        fit(zoo, heldout=zoo.home == 3)
