"""Early layers that a fine-tuning leaves as they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tans_core.finetuning.finetune import finetune
from tans_core.networks.family import Network
from tans_core.networks.frozen import early_layers, frozen, train_mode
from tans_core.recipe import Recipe
from tests.factories.networks import PREPROCESS
from tests.factories.tasks import grating_task


class Stepwise(Network):
    """Halves its images three times. Has a layer inside another one, and one that is called by no name."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.third(self.second(self.first(images)))
        return hidden.mean(dim=(2, 3))


def names(network: Network, trained_side: float) -> set[str]:
    early = early_layers(network, 16, trained_side)
    return {name for name, module in network.named_modules() if module in early}


@pytest.mark.parametrize(
    ("trained_side", "parts"), [(1.0, []), (0.5, []), (0.25, ["first"]), (0.125, ["first", "second"])]
)
def test_layers_with_large_outputs_are_early(trained_side: float, parts: list[str]) -> None:
    wanted = {name for part in parts for name in (part, f"{part}.0", f"{part}.1", f"{part}.2")}
    assert names(Stepwise(), trained_side) == wanted


def test_looking_for_early_layers_changes_nothing() -> None:
    network = Stepwise().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    early_layers(network, 16, 0.125)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in network.modules())


def test_frozen_layers_can_be_trained_again_afterwards() -> None:
    network = Stepwise()
    with pytest.raises(RuntimeError, match="stop"), frozen([network.first[0]]):
        assert not network.first[0].weight.requires_grad
        assert network.second[0].weight.requires_grad
        raise RuntimeError("stop")
    assert network.first[0].weight.requires_grad
    train_mode(network, [network.first[1]])
    assert network.second[1].training
    assert not network.first[1].training


@pytest.mark.parametrize("head", ["fresh", "fitted"])
def test_fine_tuning_changes_the_late_layers_alone(head: str) -> None:
    torch.manual_seed(0)
    network = Stepwise()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recipe = Recipe(lr=0.05, momentum=0.0, weight_decay=0.1, head=head, trained_side=0.25)  # type: ignore[arg-type]
    finetune(network, grating_task(), PREPROCESS, recipe, steps=3, batch_size=8, seed=0, eval_points=2)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    # The statistics of all layers are calibrated on the task before.
    assert {name for name in changed if name.startswith("first.")} == {"first.1.running_mean", "first.1.running_var"}
    assert {"second.0.weight", "third.0.weight", "classifier.weight"} <= changed
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_statistics_of_early_layers_are_those_of_the_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    from tans_core.finetuning import finetune as module

    calibrated = {}
    calibrate = module.calibrate_on_task

    def note(model: Network, *arguments: object) -> None:
        calibrate(model, *arguments)  # type: ignore[arg-type]
        calibrated.update({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(module, "calibrate_on_task", note)
    network = Stepwise()
    recipe = Recipe(lr=0.05, head="fitted", trained_side=0.25)
    finetune(network, grating_task(), PREPROCESS, recipe, steps=3, batch_size=8, seed=0, eval_points=1)
    state = network.state_dict()
    for name in ("running_mean", "running_var"):
        assert torch.equal(state[f"first.1.{name}"], calibrated[f"first.1.{name}"])
        assert not torch.equal(state[f"second.1.{name}"], calibrated[f"second.1.{name}"])
