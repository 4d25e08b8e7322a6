"""The training recipe of model cards and params.yaml, and its optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn


Steps = Annotated[int, Field(ge=0)]


class TrainingRecipe(BaseModel):
    """An optimizer with one cycle: a warm-up from zero, then a cosine to zero over all steps, never epochs.

    Attributes:
        optimizer: `sgd` (with Nesterov's momentum) or `adamw`.
        lr: peak learning rate.
        head_factor: factor of the learning rate for the classifier, which starts fresh unlike the other weights.
        momentum: of SGD; AdamW's first beta.
        weight_decay: on all weights except biases and the scales of norms.
        warmup: share of the steps.
        head: start of the classifier: `fresh`, drawn at random, or `fitted` to the frozen features
            (`tans_core.networks.head`).
        lr_floor: minimum factor of `lr` with a fitted classifier. There, `lr` is multiplied by the share of the labels'
            variance that the frozen features leave unexplained: good features need small steps. 1 turns this off.
    """

    # Fields of newer versions are kept.
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)]
    head_factor: Annotated[float, Field(gt=0)] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    head: Literal["fresh", "fitted"] = "fresh"
    lr_floor: Annotated[float, Field(gt=0, le=1)] = 1.0

    @classmethod
    def of(cls, settings: Mapping[str, Any], family: str) -> Self:
        """Return the recipe of a family from a section of params.yaml."""
        own_settings = for_family(settings, family)
        return cls.model_validate({name: own_settings[name] for name in cls.model_fields if name in own_settings})

    def scaled_by_fit(self, fit: float) -> Self:
        """Return the recipe with `lr` scaled for frozen features that explain this share of the labels' variance."""
        return self.model_copy(update={"lr": self.lr * min(1.0, max(self.lr_floor, 1 - fit))})

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at a step of a run, counted from 0."""
        warmup = math.ceil(self.warmup * steps)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def optimizers(self, body: Iterable[nn.Parameter], head: Iterable[nn.Parameter], steps: int) -> dict[str, Any]:
        """Return optimizer and schedule in Lightning's format, for a run of `steps` steps."""
        import torch

        groups = [
            {"params": params, "lr": lr, "weight_decay": decay}
            for part, lr in ((list(body), self.lr), (list(head), self.lr * self.head_factor))
            for params, decay in (
                ([one for one in part if one.ndim > 1], self.weight_decay),
                ([one for one in part if one.ndim <= 1], 0.0),
            )
            if params
        ]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, betas=(self.momentum, 0.999), fused=True)
        else:
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.momentum > 0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Recipe(TrainingRecipe):
    """The recipe of a fine-tuning.

    Attributes:
        frozen_steps: for so many steps, the early layers stay as they are (`tans_core.networks.frozen`).
    """

    frozen_steps: Steps = 0


def for_family(settings: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return a section of params.yaml for a family: its entry under `families` overrides the other settings."""
    common = {name: value for name, value in settings.items() if name != "families"}
    return {**common, **settings.get("families", {}).get(family, {})}
