"""params.yaml as typed sections. Only stages, gates, flows and the CLI read it; the core takes plain arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tans_core.errors import ParamsError, did_you_mean, problems
from tans_core.recipe import Steps, TrainingRecipe, for_family
from tans_core.yaml_file import parse_yaml, read_text

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# A task's name becomes a folder, a DVC stage and part of model ids.
TASK_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
RESERVED_TASK = "base"
TaskName = Annotated[str, Field(pattern=TASK_NAME)]


def check_task_name(name: str) -> None:
    """Raise ParamsError unless a task can have this name."""
    if not re.fullmatch(TASK_NAME, name):
        raise ParamsError(
            f"name {name!r}: want lower-case letters, digits and dashes, at most 63, such as 'my-leaves'."
        )


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_S = TypeVar("_S", bound=_Section)


class TaskParams(_Section):
    """One task: the source of its images, and the source's own options, such as its classes."""

    source: str
    options: dict[str, Any] = {}


class TasksParams(_Section):
    """All tasks by role. The mapping that holds a task is its role."""

    meta_train: dict[TaskName, TaskParams]
    meta_test: dict[TaskName, TaskParams]


class ImageParams(_Section):
    """The settings of `data` that a user's images are read by, too."""

    stored_size_px: Annotated[int, Field(ge=16, le=1024)]
    min_images_per_class: Count
    max_bad_share: Fraction


class DataParams(ImageParams):
    """Sizes that every task shares."""

    max_train: Count
    max_val: Count
    max_test: Count
    workers: Annotated[int, Field(ge=0, le=64)]


class RecipeParams(_Section, TrainingRecipe):
    """A training recipe. `families.<name>` holds the settings that differ for one network family."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    families: dict[str, dict[str, Any]] = {}
    own: ClassVar[tuple[str, ...]] = ("batch_size",)
    """Settings besides the recipe's that may differ."""

    @model_validator(mode="after")
    def _families_are_whole(self) -> Self:
        allowed = {*TrainingRecipe.model_fields, *self.own}
        for family, changes in self.families.items():
            unknown = sorted(changes.keys() - allowed)
            if unknown:
                raise ValueError(
                    f"families.{family}: got {', '.join(unknown)}, want some of {', '.join(sorted(allowed))}"
                )
            try:
                self.of_family(family)
            except ValidationError as error:
                raise ValueError(f"families.{family}: {'; '.join(problems(error, type(self)))}") from None
        return self

    def of_family(self, family: str) -> Self:
        """Return the settings for one family."""
        return self.model_validate(for_family(self.model_dump(), family))


class TrainParams(RecipeParams):
    """A supernet's training."""

    steps: Count
    batch_size: Annotated[int, Field(ge=2)]
    own: ClassVar[tuple[str, ...]] = ("batch_size", "steps")


class BaseParams(TrainParams):
    """Training of the base supernets.

    `start_share` is the share of a family's initial weights that is kept. `subnets` is how many networks of the base
    go into the zoo.
    """

    tasks: list[TaskName]
    precision: Literal["auto", "fp32", "bf16"]
    start_share: Fraction = 0.0
    subnets: Annotated[int, Field(ge=0)] = 0
    own: ClassVar[tuple[str, ...]] = ("batch_size", "steps", "start_share", "subnets")


class ZooParams(TrainParams):
    subnets: Annotated[int, Field(ge=2)]
    select_from: Annotated[int, Field(ge=0)] = 0
    calibration_images: Count
    own: ClassVar[tuple[str, ...]] = ("batch_size", "steps", "subnets", "select_from")

    @model_validator(mode="after")
    def _choice(self) -> Self:
        if 0 < self.select_from < self.subnets:
            raise ValueError(f"select_from: got {self.select_from}, want 0, or at least {self.subnets} (subnets)")
        return self


class EmbedParams(_Section):
    """Functional embeddings (outputs for anchor images) and query features."""

    anchors_per_task: Count
    projection_dim: Count
    projection_seed: int
    backbone: str
    images_per_class: Count


class TransferParams(_Section):
    """Trials of networks on other tasks than their own: short fine-tunings, by the recipe of `finetune`, and probes."""

    networks_per_task: Count
    general_per_task: Annotated[int, Field(ge=0)]
    cover: bool
    probes_per_home: Annotated[int, Field(ge=0)]
    seeds: Count
    steps: Count
    probe_images: Annotated[int, Field(ge=16)]
    probe_images_per_class: Annotated[int, Field(ge=2)]


class SpaceParams(_Section):
    """Encoders and predictor of the cross-modal space, and how they are trained."""

    dim: Count
    steps: Count
    lr: Positive
    weight_decay: NotNegative
    temperature: Positive
    positives: Count
    pairs_per_step: Count
    samples: Count
    images_per_sample: Count
    topology_noise: NotNegative
    functional_noise: NotNegative
    query_noise: NotNegative
    matching_weight: NotNegative
    home_weight: NotNegative
    tuned_weight: NotNegative
    probed_weight: NotNegative
    rank_weight: NotNegative
    frechet_weight: NotNegative
    heldout_share: Annotated[float, Field(gt=0, lt=1)]
    log_every: Count
    folds: Annotated[int, Field(ge=2)]
    precision: Literal["fp32", "bf16"]


class RetrievalParams(_Section):
    top_k: Count


class FinetuneParams(RecipeParams):
    """How networks are fine-tuned whose cards have no recipe, with a new classifier."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    frozen_steps: Steps = 0
    own: ClassVar[tuple[str, ...]] = ("batch_size", "frozen_steps")


class EvaluateParams(_Section):
    """The fixed budget of the meta-test comparison."""

    steps: Count
    points: Annotated[int, Field(ge=2)]
    seeds: Annotated[int, Field(ge=2)]
    random_draws: Annotated[int, Field(ge=3)]
    longer: Annotated[int, Field(ge=0)]


class QueryGateParams(_Section):
    """Limits on a user's images before a search. Shares are in 0..1. The first four stop it, the others warn."""

    min_median_side_px: Count = 8
    max_leak_share: Fraction = 0.2
    max_contradiction_share: Fraction = 0.1
    max_blank_share: Fraction = 0.5
    max_copy_share: Fraction = 0.2
    max_elongated_share: Fraction = 0.1
    max_imbalance: Annotated[float, Field(ge=1)] = 20.0


class GatesParams(_Section):
    min_images_per_task: Count
    min_val_accuracy_over_chance: NotNegative
    query: QueryGateParams = QueryGateParams()


class ReleaseParams(_Section):
    """When what a flow built replaces the release in production: margins of the comparison, and its confidence."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    regret_margin: Annotated[float, Field(ge=0, le=100)] = 1.0
    recall_margin: Fraction = 0.2
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    branch: str = ""
    remote: str = ""


class RetrainParams(_Section):
    """When the flow `zoo-refresh` asks for a retraining; 0 turns a reason off."""

    admissions: Annotated[int, Field(ge=0)] = 10
    days: NotNegative = 1.0
    drift: bool = True


class Params(_Section):
    seed: int
    data: DataParams
    tasks: TasksParams
    networks: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    base: BaseParams
    zoo: ZooParams
    embed: EmbedParams
    transfer: TransferParams
    space: SpaceParams
    retrieval: RetrievalParams
    finetune: FinetuneParams
    evaluate: EvaluateParams
    gates: GatesParams
    release: ReleaseParams = ReleaseParams()
    retrain: RetrainParams = RetrainParams()


def load_params(root: Path) -> Params:
    """Read and check `root/params.yaml`.

    Raises:
        ParamsError: the file is missing, is not YAML, or has invalid values; all of them are listed.
    """
    path = root / "params.yaml"
    return parse_params(read_text(path), path)


def read_section(root: Path, name: str, kind: type[_S]) -> _S:
    """Read one section of `root/params.yaml`, or its defaults; other sections are not checked.

    Raises:
        ParamsError: the file cannot be read, or the section is invalid.
    """
    path = root / "params.yaml"
    raw = parse_yaml(read_text(path), path)
    try:
        return kind.model_validate(raw.get(name) or {} if isinstance(raw, dict) else {})
    except ValidationError as error:
        raise ParamsError(f"{path}: {'; '.join(problems(error, kind, (name,)))}") from None


def parse_params(text: str, path: Path) -> Params:
    """Check the text of params.yaml; `path` is for messages.

    Raises:
        ParamsError: as for `load_params`.
    """
    raw = parse_yaml(text, path)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        lines = problems(error, Params)
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise ParamsError(f"{path} has {count}:\n  " + "\n  ".join(lines)) from None
    _check_across_sections(params, path)
    return params


def _check_across_sections(params: Params, path: Path) -> None:
    mistakes = []
    both = sorted(params.tasks.meta_train.keys() & params.tasks.meta_test.keys())
    if both:
        mistakes.append(f"tasks: {', '.join(both)}: both in meta_train and in meta_test")
    if RESERVED_TASK in {**params.tasks.meta_train, **params.tasks.meta_test}:
        mistakes.append(f"tasks: {RESERVED_TASK}: the name is reserved for the base's own networks. Take another name")
    for name in params.base.tasks:
        if name not in params.tasks.meta_train:
            mistakes.append(f"base.tasks: {name}: not in tasks.meta_train{did_you_mean(name, params.tasks.meta_train)}")
    # `finetune.families` may name others: a newcomer's family need not be one that the zoo is built of.
    for section, families in (("base", params.base.families), ("zoo", params.zoo.families)):
        for family in families.keys() - params.networks.keys():
            mistakes.append(f"{section}.families: {family}: not in networks{did_you_mean(family, params.networks)}")
    if mistakes:
        raise ParamsError(f"{path}:\n  " + "\n  ".join(mistakes))
