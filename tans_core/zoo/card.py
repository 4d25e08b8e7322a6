"""The model card: everything needed to use a model's weights and to compare it with others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tans_core.errors import WeightsError, problems
from tans_core.licences import TEXTS, combine, is_expression, normalise, texts_of
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family
from tans_core.recipe import Recipe
from tans_core.tasks.task import TaskInfo

VERSION = 1
UNKNOWN_LINEAGE = "LicenseRef-unknown-lineage"
"""The licence of initial weights that are unknown: cards of version 0 do not name them."""


class _Part(BaseModel):
    # Fields of newer versions are kept.
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class Ancestor(_Part):
    """A task, or initial weights, that a model's weights descend from; `licence` is an SPDX expression."""

    kind: Literal["task", "weights"]
    name: str
    source: str
    licence: str


class Licences(_Part):
    """SPDX expressions, and the terms of each `LicenseRef-` in them.

    Attributes:
        code: of the program that runs the network.
        weights: of the weights themselves.
        data: of all images in the lineage.
        texts: terms by `LicenseRef-`.
    """

    code: str
    weights: str
    data: str
    texts: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of_lineage(
        cls,
        lineage: Sequence[Ancestor],
        texts: Mapping[str, str] | None = None,
        home: Licences | None = None,
        code: str = "Apache-2.0",
    ) -> Licences:
        """Return the licences of weights trained here: those of everything they descend from.

        Args:
            lineage: of the new weights.
            texts: terms of the ancestors' licences, by `LicenseRef-`.
            home: licences of the initial weights; None for random ones.
            code: licence of the code, where `home` does not tell it.
        """
        data = combine([*([home.data] if home else []), *(one.licence for one in lineage if one.kind == "task")])
        weights = combine([*([home.weights, home.data] if home else []), *(one.licence for one in lineage)])
        code = home.code if home else code
        used = {ref: text for ref, text in texts_of(combine([code, weights, data]), texts).items() if text}
        unknown = (home.model_extra or {}) if home else {}
        return cls.model_validate({**unknown, "code": code, "weights": weights, "data": data, "texts": used})


class ModelCard(_Part):
    """One model of the zoo. Unknown fields, from newer versions, are kept.

    Attributes:
        version: of the card's format.
        id: unique in the zoo.
        family: name of the family of networks.
        architecture: the member, as the family describes it.
        class_names: K names in the order of the logits; none where the weights are features without a classifier.
        preprocess: how its input images are prepared.
        recipe: its own fine-tuning recipe; None where the recipe of its family in params.yaml applies.
        home_task: the task it was trained on; for general features, the name of all their training images together.
        source: where that task's images came from.
        licences: of code, weights and data.
        lineage: all tasks and initial weights that its weights descend from.
        params_m: parameters in millions, classifier included.
        macs_m: multiply-accumulates of one image in millions, at its own input size.
        val_accuracy: on the home task's validation split, 0..1; choices may use it. None without a classifier.
        test_accuracy: on the home task's test split, 0..1; only reports use it. None without a classifier.
        weights: path of the weights, relative to `data/`.
    """

    version: int = VERSION
    id: str
    family: str
    architecture: dict[str, Any]
    class_names: tuple[str, ...]
    preprocess: Preprocess
    recipe: Recipe | None = None
    home_task: str
    source: str
    licences: Licences
    lineage: tuple[Ancestor, ...]
    params_m: float
    macs_m: float
    val_accuracy: float | None
    test_accuracy: float | None
    weights: str

    def recipe_by(self, settings: Mapping[str, Any]) -> Recipe:
        """Return its fine-tuning recipe: the card's own, or its family's in the section `finetune` of params.yaml."""
        return self.recipe or Recipe.of(settings, self.family)

    @property
    def general(self) -> bool:
        """Whether its weights are features of no single task, without a classifier."""
        return not self.class_names

    @property
    def outputs(self) -> int:
        """Outputs of the classifier; 1 for features without a classifier, since a network needs one to be built."""
        return len(self.class_names) or 1

    @property
    def licence(self) -> str:
        """What a user must accept (SPDX): the licences of code and weights, and those of the whole lineage."""
        return combine(self._stated)

    @property
    def terms(self) -> dict[str, str]:
        """The text of each `LicenseRef-` on the card: its own, else the one that TANS has, else an empty one."""
        return texts_of(self.licence, self.licences.texts)

    @property
    def unreadable_licences(self) -> tuple[str, ...]:
        """All licences on the card that are not SPDX expressions."""
        return tuple(licence for licence in self._stated if not is_expression(licence))

    @property
    def _stated(self) -> list[str]:
        stated = [self.licences.code, self.licences.weights, self.licences.data, *(one.licence for one in self.lineage)]
        return list(dict.fromkeys(stated))

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, raw: dict[str, Any], strict: bool = False) -> ModelCard:
        """Read a card of any version.

        Args:
            raw: from `to_dict`, of this or an earlier version.
            strict: refuse a number for a text and a text for a number; for untrusted cards.

        Raises:
            WeightsError: a field is missing or has another type; lists all problems.
        """
        try:
            return cls.model_validate_json(json.dumps(upgraded(raw), allow_nan=False), strict=strict)
        except ValidationError as error:
            listed = "; ".join(problems(error, cls))
            raise WeightsError(f"model card {str(raw.get('id', '?'))[:80]!r}: {listed}.") from error
        except (TypeError, ValueError, RecursionError) as error:
            raise WeightsError(f"model card {str(raw.get('id', '?'))[:80]!r}: {error}.") from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        return cls.from_dict(json.loads(text))


@dataclass(frozen=True)
class NetworkEntry:
    """A new network: its id, its family's description of its architecture, and the future path of its weights."""

    id: str
    family: str
    architecture: dict[str, Any]
    weights: str


def card_of(
    entry: NetworkEntry,
    preprocess: Preprocess,
    lineage: Sequence[Ancestor],
    *,
    home_task: str,
    source: str,
    texts: Mapping[str, str] | None = None,
    class_names: Sequence[str] = (),
    accuracies: Mapping[str, float] | None = None,
) -> ModelCard:
    """Return the card of a network built here, with exact costs and the licences of its lineage.

    Args:
        entry: the network.
        preprocess: how its input images are prepared.
        lineage: what its weights descend from, home task included.
        home_task, source: as on the card.
        texts: terms of the ancestors' licences, by `LicenseRef-`.
        class_names: none for features without a classifier.
        accuracies: on the splits `val` and `test`, 0..1; None without a classifier.
    """
    measured = accuracies or {}
    family = get_family(entry.family)
    cost = family.cost(entry.architecture, preprocess.image_size_px, len(class_names) or 1)
    return ModelCard(
        id=entry.id,
        family=entry.family,
        architecture=entry.architecture,
        class_names=tuple(class_names),
        preprocess=preprocess,
        home_task=home_task,
        source=source,
        licences=Licences.of_lineage(lineage, texts, code=family.code_licence(entry.architecture)),
        lineage=tuple(lineage),
        params_m=cost.params_m,
        macs_m=cost.macs_m,
        val_accuracy=measured.get("val"),
        test_accuracy=measured.get("test"),
        weights=entry.weights,
    )


def descend(ancestors: Sequence[Ancestor], info: TaskInfo) -> tuple[Ancestor, ...]:
    """Return the lineage of weights with these ancestors after training on a task."""
    ancestor = Ancestor(kind="task", name=info.name, source=info.source, licence=info.licence)
    return tuple(dict.fromkeys([*ancestors, ancestor]))


_VERSION_0 = {
    "id", "space", "architecture", "home_task", "source", "licence", "class_names", "image_size_px", "mean", "std",
    "params_m", "macs_m", "val_accuracy", "test_accuracy", "weights",
}  # fmt: skip


def upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert a card without a version (version 0) to version 1; other cards are returned unchanged.

    Raises:
        WeightsError: a card of version 0 lacks a field, or has an unknown one.
    """
    if "version" in raw:
        return raw
    missing, unknown = sorted(_VERSION_0 - raw.keys()), sorted(raw.keys() - _VERSION_0)
    if missing or unknown:
        raise WeightsError(f"model card {str(raw.get('id', '?'))[:80]!r}: missing {missing}, unknown {unknown}.")
    stated = normalise(raw["licence"]) if isinstance(raw["licence"], str) else None
    licence = stated.expression if stated else raw["licence"]
    lineage = [
        {"kind": "weights", "name": "not told", "source": "not told", "licence": UNKNOWN_LINEAGE},
        {"kind": "task", "name": raw["home_task"], "source": raw["source"], "licence": licence},
    ]
    texts = {**(stated.texts if stated else {}), UNKNOWN_LINEAGE: TEXTS.get(UNKNOWN_LINEAGE, "")}
    preprocess = {name: raw[name] for name in ("image_size_px", "mean", "std")}
    unchanged = ("id", "architecture", "class_names", "home_task", "source", "params_m", "macs_m")
    return {
        **{name: raw[name] for name in (*unchanged, "val_accuracy", "test_accuracy", "weights")},
        "version": 1,
        "family": raw["space"],
        "preprocess": {**preprocess, "statistics": "task"},
        "licences": {"code": "Apache-2.0", "weights": licence, "data": licence, "texts": texts},
        "lineage": lineage,
    }
