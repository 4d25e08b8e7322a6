"""How weights are trained: what a model card and params.yaml say of it, and the optimizer that it means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import nn


class Recipe(BaseModel):
    """An optimizer with one cycle: a warm-up from zero, then a cosine to zero over all steps, never epochs.

    Attributes:
        optimizer: `sgd` (with Nesterov's momentum) or `adamw`.
        lr: learning rate at its highest.
        head_factor: how many times as fast the classifier learns, which is fresh where the rest is not.
        momentum: of SGD; AdamW's first beta.
        weight_decay: on all weights but biases and the scales of norms.
        warmup: share of the steps.
        head: what the classifier begins as: `fresh`, drawn at random, or `fitted` to the features as they are
            (`tans_core.networks.head`).
        lr_floor: under a fitted classifier, `lr` counts less by the share of the labels' variance that the features as they are
            explain, but no less than this share of it: what is right already wants small steps. 1 leaves it as it is.
    """

    # What a newer version added to a card is kept.
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
    def of(cls, settings: Mapping[str, Any], family: str) -> Recipe:
        """Return the recipe that a section of params.yaml says for a family."""
        own = for_family(settings, family)
        return cls.model_validate({name: own[name] for name in cls.model_fields if name in own})

    def knowing(self, fit: float) -> Recipe:
        """Return the recipe for features that explain a share of the labels' variance (at most 1) as they are."""
        return self.model_copy(update={"lr": self.lr * min(1.0, max(self.lr_floor, 1 - fit))})

    def factor(self, step: int, steps: int) -> float:
        """Return the share of the learning rate at a step, counted from 0, of a run."""
        warmup = math.ceil(self.warmup * steps)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    def optimizers(self, body: Iterable[nn.Parameter], head: Iterable[nn.Parameter], steps: int) -> dict[str, Any]:
        """Return optimizer and schedule as Lightning wants them, for a run of so many steps."""
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


def for_family(settings: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return a section of params.yaml as it is for a family: what `families` says of it goes before the rest."""
    own = {name: value for name, value in settings.items() if name != "families"}
    return {**own, **settings.get("families", {}).get(family, {})}
