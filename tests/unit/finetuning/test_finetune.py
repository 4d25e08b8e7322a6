from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tans_core.errors import DivergedError, ParamsError, TooFewImagesError, WeightsError
from tans_core.finetuning.finetune import FinetuneResult, finetune
from tans_core.finetuning.measure import accuracy_of, logits_of, validation_steps
from tans_core.networks.family import Network
from tans_core.recipe import Recipe
from tans_core.tasks.task import Task
from tests.factories.networks import PREPROCESS

RECIPE = Recipe(lr=0.05, weight_decay=4e-5)
SETTINGS: dict[str, Any] = {"batch_size": 16, "eval_points": 4, "seed": 0}


def run(model: Network, task: Task, **changed: Any) -> FinetuneResult:
    preprocess, recipe = changed.pop("preprocess", PREPROCESS), changed.pop("recipe", RECIPE)
    budget = {} if "epochs" in changed else {"steps": 20}
    return finetune(model, task, preprocess, recipe, **{**SETTINGS, **budget, **changed})


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step of SGD, as they happen."""
    rates: list[float] = []
    step = torch.optim.SGD.step

    def watched(self: torch.optim.SGD, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    return rates


def test_rate_starts_at_lr_falls_every_step_and_ends_near_zero(
    make_task: Any, make_network: Any, rates: list[float]
) -> None:
    run(make_network(), make_task(), epochs=5)
    assert len(rates) == 5 * 4
    assert rates[0] == RECIPE.lr
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))
    assert rates[-1] < 0.01 * RECIPE.lr
    expected = [RECIPE.lr * (1 + math.cos(math.pi * done / 20)) / 2 for done in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_network_learns_and_all_its_weights_move(make_task: Any, make_network: Any) -> None:
    network = make_network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    result = run(network, make_task(), steps=40)
    assert result.test_accuracy > 0.8
    assert result.best_val_accuracy == max(point["val_accuracy"] for point in result.curve)
    assert all(not torch.equal(before[name], value.cpu()) for name, value in network.named_parameters())


def test_fitted_classifier_is_right_from_the_first_step_and_the_rate_falls_by_what_it_knows(
    make_task: Any, make_network: Any, rates: list[float]
) -> None:
    little = {"steps": 2, "eval_points": 2}
    fresh = run(make_network(), make_task(), recipe=RECIPE.model_copy(update={"lr": 1e-4}), **little)
    fitted = run(make_network(), make_task(), recipe=Recipe(lr=1e-4, head="fitted", lr_floor=0.2), **little)
    assert fitted.curve[0]["val_accuracy"] > fresh.curve[0]["val_accuracy"] + 0.2
    assert fitted.curve[0]["train_loss"] < fresh.curve[0]["train_loss"]
    assert 0.2e-4 <= rates[-2] < 0.9e-4


def test_kept_weights_are_those_of_the_best_validation(make_task: Any, make_network: Any) -> None:
    task, network = make_task(), make_network()
    # Validation calls every class by another's name: the more the network learns, the worse it does there.
    labels = np.where(task.splits == "val", (task.labels + 1) % 3, task.labels)
    task = dataclasses.replace(task, labels=labels)
    result = run(network, task, steps=30, eval_points=30)
    accuracies = [point["val_accuracy"] for point in result.curve]
    assert accuracies[-1] < max(accuracies), "this input must end below its best, or it tests nothing"
    assert result.best_step == max(p["step"] for p in result.curve if p["val_accuracy"] == max(accuracies))
    fresh = make_network()
    fresh.load_state_dict(result.state_dict)
    for split, reported in (("val", result.best_val_accuracy), ("test", result.test_accuracy)):
        images, labels = (
            torch.from_numpy(part) for part in (task.pixels(16, split=split), task.labels[task.where(split)])
        )
        logits = logits_of(fresh, images, mean=task.info.mean, std=task.info.std)
        assert accuracy_of(logits, labels) == reported
    assert all(torch.equal(value.cpu(), result.state_dict[name]) for name, value in network.state_dict().items())


class Recorded(Task):
    """A task that writes down which split's pixels are asked for."""

    asked: ClassVar[list[str | None]] = []

    def pixels(self, *args: Any, **kwargs: Any) -> npt.NDArray[np.uint8]:
        self.asked.append(args[3] if len(args) > 3 else kwargs.get("split"))
        return super().pixels(*args, **kwargs)


def test_test_split_is_read_once_after_everything_else(make_task: Any, make_network: Any) -> None:
    plain = make_task()
    Recorded.asked.clear()
    task = Recorded(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain) if field.init})
    run(make_network(), task)
    assert Recorded.asked.count("test") == 1
    assert Recorded.asked[-1] == "test"


def test_every_network_begins_with_statistics_of_the_task_whatever_it_came_with(
    make_task: Any, make_network: Any
) -> None:
    other = make_network()
    for module in other.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.running_mean, 7.0)
            torch.nn.init.constant_(module.running_var, 100.0)
    one, changed = run(make_network(), make_task(), steps=4), run(other, make_task(), steps=4)
    assert [point["val_accuracy"] for point in one.curve] == [point["val_accuracy"] for point in changed.curve]
    assert all(torch.equal(value, changed.state_dict[name]) for name, value in one.state_dict.items())


def test_network_is_trained_and_judged_at_the_size_of_its_card(make_task: Any, make_network: Any) -> None:
    sizes: list[int] = []
    network = make_network()
    network.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-1]))
    large = PREPROCESS.model_copy(update={"image_size_px": 24})
    result = run(network, make_task(), steps=4, preprocess=large)
    assert set(sizes) == {24}
    assert result.preprocess.image_size_px == 24
    assert result.macs_m > run(make_network(), make_task(), steps=4).macs_m


def test_test_labels_change_nothing_but_the_test_accuracy(make_task: Any, make_network: Any) -> None:
    task = make_task()
    labels = task.labels.copy()
    labels[task.splits == "test"] = (labels[task.splits == "test"] + 1) % 3
    one, other = run(make_network(), task), run(make_network(), dataclasses.replace(task, labels=labels))
    assert one.test_accuracy != other.test_accuracy
    assert all(torch.equal(value, other.state_dict[name]) for name, value in one.state_dict.items())


def test_the_same_seed_gives_the_same_run_whatever_the_global_generator(make_task: Any, make_network: Any) -> None:
    results = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(outside)
        state = torch.random.get_rng_state()
        results.append(run(make_network(), make_task(), seed=seed))
        assert torch.equal(torch.random.get_rng_state(), state)
    same, again, other = ([p["train_loss"] for p in result.curve] for result in results)
    assert same == again
    assert same != other
    assert all(torch.equal(value, results[1].state_dict[name]) for name, value in results[0].state_dict.items())


def test_a_network_that_comes_in_eval_mode_trains_its_batch_norm_too(make_task: Any, make_network: Any) -> None:
    started, trained = (
        make_network().state_dict(),
        [run(make_network().train(mode), make_task()) for mode in (True, False)],
    )
    assert not torch.equal(started["stem.norm.running_mean"], trained[1].state_dict["stem.norm.running_mean"])
    assert all(torch.equal(value, trained[1].state_dict[name]) for name, value in trained[0].state_dict.items())


def test_a_remainder_of_one_image_trains(make_task: Any, make_network: Any) -> None:
    result = run(make_network(), make_task(train=17), epochs=2)
    assert [point["step"] for point in result.curve] == [1, 2]
    assert result.curve[-1]["epoch"] == 2


def test_bf16_learns_and_keeps_float32_weights(make_task: Any, make_network: Any) -> None:
    result = run(make_network(), make_task(), steps=40, precision="bf16")
    assert result.test_accuracy > 0.8
    assert {value.dtype for value in result.state_dict.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_split_is_refused_by_name(make_task: Any, make_network: Any, split: str) -> None:
    with pytest.raises(TooFewImagesError, match=f"the {split} split has 0 images"):
        run(make_network(), make_task(**{split: 0}))


def test_a_classifier_of_another_size_is_refused(make_task: Any, make_network: Any) -> None:
    with pytest.raises(WeightsError, match="has 3 classes, but the network's classifier has 5 outputs"):
        run(make_network(num_classes=5), make_task())


@pytest.mark.parametrize("budget", [{"epochs": 1, "steps": 1}, {"epochs": None, "steps": None}, {"epochs": 0}])
def test_a_budget_that_is_none_or_two_is_refused(make_task: Any, make_network: Any, budget: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match="Budget"):
        run(make_network(), make_task(), **budget)


def test_a_loss_that_is_not_finite_is_said(make_task: Any, make_network: Any) -> None:
    network = make_network()
    torch.nn.init.constant_(network.classifier.weight, float("nan"))
    with pytest.raises(ParamsError, match="the loss was nan by step 5"):
        run(network, make_task())
    with pytest.raises(DivergedError) as caught:
        run(make_network(), make_task(), recipe=Recipe(lr=1e30, warmup=0.5), steps=8, eval_points=8)
    assert 0 < len(caught.value.curve) < 8 and caught.value.curve[-1]["seconds"] > 0


@pytest.mark.parametrize(
    ("total", "points", "expected"),
    [(20, 4, [5, 10, 15, 20]), (10, 3, [4, 7, 10]), (3, 8, [1, 2, 3]), (120, 10, list(range(12, 121, 12)))],
)
def test_validations_are_evenly_spaced_and_end_at_the_end(total: int, points: int, expected: list[int]) -> None:
    assert sorted(validation_steps(total, points)) == expected
