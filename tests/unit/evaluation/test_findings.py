from __future__ import annotations

from typing import Any

from tans_core.evaluation.compare import Fit, FitRow
from tans_core.evaluation.findings import findings, headline
from tans_core.evaluation.metrics import summarise


def metrics_of(**accuracies: float) -> dict[str, Any]:
    """Return the metrics of two tasks on which every strategy reaches the same, its two seeds 2 points apart."""

    def fit(accuracy: float, seed: int) -> Fit:
        reached = accuracy + 0.02 * (seed - 0.5)
        return Fit([{"step": 10.0, "val_accuracy": accuracy}], 10, accuracy, reached, 1.0, 1.0, 1.0)

    names = [(task, name, seed) for task in "ab" for name in accuracies for seed in (0, 1)]
    return summarise([FitRow(task, name, 0, seed, name, fit(accuracies[name], seed)) for task, name, seed in names])


def test_headline_says_that_picked_won_only_when_it_did() -> None:
    won = headline(metrics_of(picked=0.8, largest=0.75, scratch=0.4), 60)
    assert "TANS picks comes first: 80.0% mean test accuracy after 60 steps, 5.0 points ahead" in won
    assert "the zoo's largest model" in won
    lost = headline(metrics_of(picked=0.7, largest=0.75, nearest=0.72, scratch=0.4), 60)
    assert "comes third of 4 ways to start: 70.0%" in lost
    assert lost.endswith("the zoo's largest model reaches 75.0%.")


def test_findings_name_losses_and_differences_within_noise() -> None:
    worse, close = (
        findings(metrics_of(picked=0.7, largest=0.71, scratch=0.4)),
        findings(metrics_of(picked=0.7, base=0.8)),
    )
    assert worse[0].startswith("30.0 points above the same architecture from scratch; better on 2 of 2.")
    assert worse[1].startswith("1.0 points below the zoo's largest model; better on 0 of 2. That is less than")
    assert close == ["10.0 points below the same architecture from the base supernet; better on 0 of 2."]
