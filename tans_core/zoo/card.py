"""The model card: all that is needed to use a model's weights, and to compare it with others."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from tans_core.errors import WeightsError


@dataclass(frozen=True)
class ModelCard:
    """One model of the zoo.

    Attributes:
        id: unique in the zoo.
        space: name of the search space.
        architecture: the member, as `Architecture.to_dict` gives it.
        home_task: the task it was trained on.
        source: where that task's images came from.
        licence: licence of the weights, which is that of the images.
        class_names: K names in the order of the logits.
        image_size_px: side of the images it was trained on.
        mean, std: normalisation a channel, in 0..1.
        params_m: parameters in millions, classifier included.
        macs_m: multiply-accumulates of one image in millions.
        val_accuracy: on the home task's validation split, 0..1; choices may use it.
        test_accuracy: on the home task's test split, 0..1; only reports use it.
        weights: path of the weights, relative to `data/`.
    """

    id: str
    space: str
    architecture: dict[str, Any]
    home_task: str
    source: str
    licence: str
    class_names: tuple[str, ...]
    image_size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    params_m: float
    macs_m: float
    val_accuracy: float
    test_accuracy: float
    weights: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ModelCard:
        """Read what `to_dict` gave.

        Raises:
            WeightsError: a field is missing or unknown; all of them are named.
        """
        known = {field.name for field in fields(cls)}
        missing, unknown = sorted(known - raw.keys()), sorted(raw.keys() - known)
        if missing or unknown:
            raise WeightsError(f"model card {raw.get('id', '?')!r}: missing {missing}, unknown {unknown}.")
        return cls(**{**raw, **{key: tuple(raw[key]) for key in ("class_names", "mean", "std")}})

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        return cls.from_dict(json.loads(text))
