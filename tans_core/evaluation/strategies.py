"""Where each strategy starts on a task: the picked model and its alternatives.

Axes: F feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from tans_core.embeddings.query import query_features
from tans_core.embeddings.store import FeatureRows
from tans_core.evaluation.compare import Contender
from tans_core.networks.family import Network
from tans_core.networks.registry import get_family
from tans_core.retrieval.candidate import REFINED
from tans_core.retrieval.retriever import Candidate, Retriever
from tans_core.runtime import derive_seed
from tans_core.tasks.task import Task
from tans_core.zoo.base import HOME
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import Base


@dataclass(frozen=True)
class Choice:
    """Start of one strategy on one task, in words for the report.

    Attributes:
        strategy: its name.
        models: ids of the zoo's models that it draws, or whose architecture it uses.
        home_tasks: of their weights; empty for fresh weights and those of the base supernet.
        why: one sentence.
    """

    strategy: str
    models: tuple[str, ...]
    home_tasks: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Line:
    """The strategies on one task, ready for training, with an explanation of each.

    Attributes:
        candidates: retrieved models, best first; the first is the picked one.
        contenders: by strategy, in the order of the report.
        choices: one for each strategy, in the same order.
    """

    candidates: tuple[Candidate, ...]
    contenders: dict[str, list[Contender]]
    choices: tuple[Choice, ...]


def line_up(
    retriever: Retriever,
    features: FeatureRows,
    task: Task,
    *,
    random_draws: int,
    longer: int = 0,
    top_k: int,
    seed: int,
) -> Line:
    """Choose the contenders on a task. No choice uses a test split or the task's validation split.

    Args:
        retriever: of the release under evaluation.
        features: query features of the home tasks, for `nearest`.
        task: unseen by the zoo.
        random_draws: distinct models drawn by `random`.
        longer: factor on the steps of `imagenet-long`; 0 leaves it out.
        top_k: candidates to retrieve; the first is picked.
        seed: of the random draws, which also depend on the task's name.
    """
    ranked, places = retriever.rank(task)
    candidates = tuple(ranked[:top_k])
    picked = candidates[0].model
    refined = retriever.refine(task, ranked, places, REFINED)[0].model
    cards = retriever.cards
    rng = np.random.default_rng(derive_seed(seed, "random models", task.info.name))
    drawn = sorted(rng.choice(sorted(cards), size=min(random_draws, len(cards)), replace=False).tolist())
    largest = max(cards.values(), key=lambda card: (card.params_m, card.id)).id
    home, closeness = nearest_task(
        _pooled(retriever, task), _pooled_homes(features, {c.home_task for c in cards.values()})
    )
    at_home = [card for card in cards.values() if card.home_task == home]
    nearest = max(at_home, key=lambda card: (card.val_accuracy or 0.0, card.id)).id
    # Library networks and newcomers of other widths have no base: then the best network that has one is used.
    base = Base.open(retriever.release.base_dir)
    based = next((candidate.model for candidate in ranked if base.holds(cards[candidate.model])), None)
    strategies: dict[str, tuple[list[Contender], tuple[str, ...], str]] = {
        "picked": ([_zoo(retriever, picked)], (picked,), "the first that TANS retrieves"),
        "refined": (
            [_zoo(retriever, refined)],
            (refined,),
            f"the first, once the first {REFINED} were probed on the images",
        ),
    }
    published = as_published(base, cards.values())
    if published:
        first, *others = [_zoo(retriever, model) for model in published]
        why = f"{' or '.join(published)}, as published; whichever does best on validation"
        strategies["imagenet"] = ([first._replace(or_else=tuple(others))], tuple(published), why)
        if longer:
            first, *others = [_longer(contender, longer) for contender in (first, *others)]
            long = [first._replace(or_else=tuple(others))], tuple(published), f"{why}; {longer} times the steps"
            strategies["imagenet-long"] = long
    fresh = _as(f"{picked}, fresh weights", retriever, picked, retriever.from_scratch)
    strategies["scratch"] = (
        # Fresh weights must be trained from the first step.
        [fresh._replace(recipe=fresh.recipe.model_copy(update={"frozen_steps": 0}))],
        (picked,),
        "the picked architecture with fresh weights",
    )
    if based is not None:
        which = "picked architecture" if based == picked else "best architecture that has a base"
        # If the zoo has the base's own network of this architecture, it is trained once for all strategies that start
        # there.
        twin = next((card.id for card in cards.values() if _is_of_base(card, cards[based])), None)
        contender = (
            _zoo(retriever, twin) if twin else _as(f"{based}, base weights", retriever, based, retriever.base_subnet)
        )
        strategies["base"] = ([contender], (based,), f"the {which} with the base supernet's weights")
    reason = f"the best at home on {home}, the nearest task by plain features (cosine {closeness:.2f})"
    strategies |= {
        "random": (
            [_zoo(retriever, model) for model in drawn],
            tuple(drawn),
            f"{len(drawn)} models drawn from all {len(cards)} of the zoo",
        ),
        "largest": ([_zoo(retriever, largest)], (largest,), "the model with most parameters"),
        "nearest": ([_zoo(retriever, nearest)], (nearest,), reason),
    }
    choices = tuple(
        Choice(name, models, () if name in ("scratch", "base") else tuple(cards[m].home_task for m in models), why)
        for name, (_, models, why) in strategies.items()
    )
    return Line(candidates, {name: contenders for name, (contenders, _, _) in strategies.items()}, choices)


def nearest_task(query: npt.NDArray[np.floating], homes: dict[str, npt.NDArray[np.floating]]) -> tuple[str, float]:
    """Return the task whose mean feature (F,) has the largest cosine to the query's, and that cosine.

    Ties are broken by name.
    """
    cosines = {
        name: float(query @ mean / max(np.linalg.norm(query) * np.linalg.norm(mean), 1e-12))
        for name, mean in homes.items()
    }
    name = min(cosines, key=lambda key: (-cosines[key], key))
    return name, cosines[name]


def _zoo(retriever: Retriever, model: str) -> Contender:
    return _as(model, retriever, model, retriever.load_model)


def _as(label: str, retriever: Retriever, model: str, load: Callable[[str, int, int], Network]) -> Contender:
    return Contender(label, partial(load, model), retriever.card(model).preprocess, retriever.recipe(model))


def _longer(contender: Contender, times: int) -> Contender:
    return contender._replace(label=f"{contender.label}, {times} times the steps", longer=times)


def _is_of_base(card: ModelCard, like: ModelCard) -> bool:
    """Return whether a card is the base's own network with the same architecture and preprocessing as another."""
    return (card.home_task, card.family, card.architecture, card.preprocess) == (
        HOME,
        like.family,
        like.architecture,
        like.preprocess,
    )


def as_published(base: Base, cards: Iterable[ModelCard]) -> list[str]:
    """Return the ids of the cards whose weights are the published ones from which their family's base started."""
    found = []
    for card in cards:
        if card.general and card.family in base.families:
            started = get_family(card.family).base_weights(base.space(card.family))
            if card.home_task in {weights.images or weights.name for weights in started}:
                found.append(card.id)
    return found


def _pooled(retriever: Retriever, task: Task) -> npt.NDArray[np.float64]:
    features, _ = query_features(task, retriever.backbone, retriever.release.params["embed"]["images_per_class"])
    pooled: npt.NDArray[np.float64] = features.mean(axis=0, dtype=np.float64)
    return pooled


def _pooled_homes(features: FeatureRows, names: set[str]) -> dict[str, npt.NDArray[np.floating]]:
    # A newcomer may come from a task without images here.
    known = sorted(set(names) & set(features.tasks.tolist()))
    train = features.splits == "train"
    return {name: features.features[train & (features.tasks == name)].mean(axis=0, dtype=np.float64) for name in known}
