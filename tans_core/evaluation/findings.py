"""Sentences of the report, made from the numbers."""

from __future__ import annotations

from typing import Any

from tans_core.evaluation.metrics import PICKED
from tans_core.evaluation.style import display_name


def headline(metrics: dict[str, Any], steps: int) -> str:
    """Return one sentence: the picked model's rank among the strategies by mean test accuracy."""
    means = {name: metrics["accuracy"][name]["mean"] for name in metrics["rank"]}
    order = sorted(means, key=lambda name: (-means[name], name != PICKED))
    tasks = _count(len(metrics["tasks"]), "unseen task")
    others = [name for name in order if name != PICKED]
    if order[0] == PICKED and others:
        return (
            f"On {tasks}, starting from the model that TANS picks comes first: {means[PICKED]:.1%} mean test accuracy "
            f"after {steps} steps, {_points(means[PICKED] - means[others[0]])} ahead of the next best, "
            f"{_phrase(others[0])}."
        )
    ahead = order[: order.index(PICKED)]
    return (
        f"On {tasks}, the model that TANS picks comes {_ordinal(len(ahead) + 1)} of {len(order)} ways to start: "
        f"{means[PICKED]:.1%} mean test accuracy after {steps} steps; {_phrase(order[0])} reaches "
        f"{means[order[0]]:.1%}."
    )


def findings(metrics: dict[str, Any]) -> list[str]:
    """Return one sentence for each comparison, largest margin first: margin, tasks won, steps to match."""
    tasks = len(metrics["tasks"])
    sentences = []
    for name, margin in sorted(metrics["margins"].items(), key=lambda item: -item[1]["mean"]):
        points = 100 * margin["mean"]
        side = "above" if points >= 0 else "below"
        ties = f", equal on {margin['ties']}" if margin["ties"] else ""
        text = f"{_points(abs(margin['mean']))} {side} {_phrase(name)}; better on {margin['wins']} of {tasks}{ties}."
        if abs(margin["mean"]) < metrics["noise"]["between_seeds"]:
            text += " That is less than the difference between two seeds of one network on one task."
        speed = metrics["speed"][name]
        if speed["matched"]:
            text += (
                f" It reached that one's best validation accuracy on {speed['matched']} of {tasks}, "
                f"after {speed['median_share']:.0%} of the steps in the median."
            )
        sentences.append(text)
    return sentences


def _phrase(strategy: str) -> str:
    return {
        "refined": "the first once eight were probed",
        "scratch": "the same architecture from scratch",
        "imagenet": "the ImageNet network as it is",
        "imagenet-long": "the ImageNet network given more steps",
        "base": "the same architecture from the base supernet",
        "random": "random models of the zoo",
        "largest": "the zoo's largest model",
        "nearest": "the best model of the nearest task",
    }.get(strategy, display_name(strategy))


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _ordinal(number: int) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    return words[number - 1] if number <= len(words) else f"number {number}"
