"""Early layers that a fine-tuning leaves as they are at first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tans_core.finetuning import finetune as module
from tans_core.finetuning.finetune import finetune
from tans_core.networks.family import Network
from tans_core.networks.frozen import early_layers, train_mode
from tans_core.recipe import Recipe
from tests.factories.networks import PREPROCESS
from tests.factories.tasks import grating_task

EARLY = {"first", "first.0", "first.1", "first.2"}


class Stepwise(Network):
    """Its first layers halve the images, the second ones make a sixteenth of them."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, num_classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.second(self.first(images))
        return hidden.mean(dim=(2, 3))


def test_layers_with_large_outputs_are_early() -> None:
    network = Stepwise().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    early = early_layers(network, 16)
    assert {name for name, module in network.named_modules() if module in early} == EARLY
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in network.modules())


def test_frozen_layers_can_be_trained_again() -> None:
    network = Stepwise()
    train_mode(network, [network.first[0], network.first[1]])
    assert [name for name, one in network.named_parameters() if not one.requires_grad] == [
        *("first.0.weight", "first.0.bias", "first.1.weight", "first.1.bias")
    ]
    assert not network.first[1].training
    assert network.second[1].training
    train_mode(network, [])
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("frozen_steps", "trains"), [(0, True), (2, True), (3, False), (9, False)])
def test_fine_tuning_leaves_early_layers_for_so_many_steps(
    optimizer: str, frozen_steps: int, trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated = {}
    calibrate = module.calibrate_on_task

    def note(model: Network, *arguments: object) -> None:
        calibrate(model, *arguments)  # type: ignore[arg-type]
        calibrated.update({name: value.clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(module, "calibrate_on_task", note)
    torch.manual_seed(0)
    network = Stepwise()
    recipe = Recipe(lr=0.05, weight_decay=0.1, head="fitted", optimizer=optimizer, frozen_steps=frozen_steps)  # type: ignore[arg-type]
    # The weights of the last step are kept, since they are the only ones that are validated.
    finetune(network, grating_task(), PREPROCESS, recipe, steps=3, batch_size=8, seed=0, eval_points=1)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, calibrated[name])}
    assert {"first.0.weight", "first.1.weight", "first.1.running_mean"} <= changed or not trains
    assert trains or not any(name.startswith("first.") for name in changed)
    assert {"second.0.weight", "second.1.running_mean", "classifier.weight"} <= changed
    assert all(parameter.requires_grad for parameter in network.parameters())
