"""Run what of TANS needs no images on a published table of fine-tunings: each data set is left out in turn.

    python benchmarks/external.py model_spider_66x7.csv [--out metrics/bench-external.json]

The table has a row a network, with the columns `architecture` and `home`, and a column of accuracies in percent for
each data set; docs/metrics.md says where it comes from. Networks whose home is the judged data set are left out.

Axes: n networks, D data sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import wilcoxon

from tans_core.benchmark.judge import random_quality
from tans_core.errors import ParamsError
from tans_core.io import write_json
from tans_core.retrieval.candidate import REFINED
from tans_core.retrieval.refine import RefineWeights, refined_scores
from tans_core.space.metrics import deviations, order_quality, standardise_within
from tans_core.space.prior import TrialPrior

ROOT = Path(__file__).resolve().parents[1]
Floats = npt.NDArray[np.float64]
MEAN = "mean over the other data sets"
PROCESS = "process: architecture and home"
RESULTS = "process: architecture and results"
FIGURES = ("weighted_tau", "regret_at_1", "regret_at_3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="a CSV file")
    parser.add_argument("--out", type=Path, default=ROOT / "metrics/bench-external.json")
    options = parser.parse_args()
    record = judge_table(read_table(options.table))
    write_json(record, options.out)
    for name, row in record["rankings"].items():
        print(f"{name:48}", "  ".join(f"{key} {row[key]:.3f}" for key in FIGURES), f"  p {row['p']:.2f}")


def read_table(path: Path) -> pd.DataFrame:
    """Read the table. Raises ParamsError: it is none of this kind."""
    if not path.is_file():
        raise ParamsError(f"{path}: no such file. Give a CSV of architecture, home, and a column for each data set.")
    table = pd.read_csv(path)
    missing = {"architecture", "home"} - set(table.columns)
    values = table.drop(columns=["architecture", "home"], errors="ignore")
    if missing or len(values.columns) < 3 or not np.isfinite(values.to_numpy(dtype=float)).all():
        raise ParamsError(
            f"{path}: columns {', '.join(table.columns)}; want architecture, home, and at least 3 data sets, "
            "with an accuracy in every row."
        )
    return table


def judge_table(table: pd.DataFrame) -> dict[str, Any]:
    """Leave each data set out, and judge every ranking of the other homes' networks there.

    Returns:
        `rankings.<ranking>`: means over the data sets of weighted tau and regrets, in points, and `p` of a two-sided
        Wilcoxon test of its tau against that of the mean over the other data sets; `by_data_set`; counts.
    """
    sets = [name for name in table.columns if name not in ("architecture", "home")]
    by_set: dict[str, dict[str, dict[str, float]]] = {}
    for left_out in sets:
        kept = table[table["home"] != left_out].reset_index(drop=True)
        truth = kept[left_out].to_numpy(dtype=float) / 100
        orders = rankings(kept, [name for name in sets if name != left_out])
        rows = {name: order_quality(order, truth) for name, order in orders.items()}
        for name in (MEAN, PROCESS):
            rows[f"{name}, best of {REFINED} fine-tuned"] = best_of(orders[name], truth)
        refined = refined_by_trials(orders[PROCESS], truth, kept, [name for name in sets if name != left_out])
        rows[f"{PROCESS}, refined by {REFINED} fine-tunings"] = order_quality(refined, truth)
        rows["random"] = random_quality(truth)
        by_set[left_out] = rows
    names = list(by_set[sets[0]])
    taus = {name: np.array([rows[name]["weighted_tau"] for rows in by_set.values()]) for name in names}
    means = {
        name: {key: float(np.mean([rows[name][key] for rows in by_set.values()])) for key in FIGURES}
        | {"p": float(wilcoxon(taus[name] - taus[MEAN]).pvalue) if (taus[name] != taus[MEAN]).any() else 1.0}
        for name in names
    }
    counts = {"networks": len(table), "homes": table["home"].nunique(), "data_sets": len(sets)}
    return {**counts, "rankings": means, "by_data_set": by_set}


def rankings(table: pd.DataFrame, others: list[str]) -> dict[str, Floats]:
    """Score the networks (n,) by their results on other data sets alone."""
    values = table[others].to_numpy(dtype=float)  # (n, D)
    relative = np.stack([deviations(column) for column in values.T], axis=1)
    architecture, home = (one_hot(table[name]) for name in ("architecture", "home"))
    at_home = table["home"].to_numpy()[:, None] == np.array(others)
    away = np.where(at_home, np.nan, relative)
    by_architecture = pd.Series(relative.mean(axis=1)).groupby(table["architecture"]).transform("mean")
    return {
        MEAN: values.mean(axis=1),
        "mean of deviations": relative.mean(axis=1),
        "mean of the architecture": by_architecture.to_numpy(),
        "process: architecture alone": process(architecture, np.zeros_like(home), values, at_home),
        PROCESS: process(architecture, home, values, at_home),
        RESULTS: process(architecture, np.where(np.isnan(away), 0.0, away), values, at_home),
    }


def process(topology: Floats, functional: Floats, values: Floats, at_home: npt.NDArray[np.bool_]) -> Floats:
    """Score networks by the Gaussian process of capacity and start (`TrialPrior`), fitted to all other trials.

    Args:
        topology, functional: (n, ·) codes in place of topology codes and functional embeddings.
        values: (n, D) accuracies; those `at_home` (n, D) teach nothing, as in the space.
    """
    networks = tuple(torch.from_numpy(standard(codes)).float() for codes in (topology, functional))
    model, task = np.nonzero(~at_home)
    score = standardise_within(values[model, task], task)
    prior = TrialPrior(len(values), topology.shape[1], functional.shape[1])
    group, chosen = torch.from_numpy(task), torch.from_numpy(model)
    prior.fit(networks, chosen, torch.from_numpy(score), group, group, torch.ones(len(task)))  # type: ignore[arg-type]
    parts = prior(*networks)
    scores: Floats = (parts[0] + parts[1]).double().numpy()
    return scores


def refined_by_trials(predicted: Floats, truth: Floats, table: pd.DataFrame, others: list[str]) -> Floats:
    """Fine-tune the first networks on the judged data set, and rank all again as a retrieval does after its probes."""
    first = np.argsort(-predicted, kind="stable")[:REFINED]
    places = np.stack([deviations(table[name].to_numpy(dtype=float)) for name in others], axis=1)
    places /= np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-9)
    return refined_scores(predicted, places, first, truth[first], RefineWeights(predicted=0.0, probe=1.0))


def best_of(order: Floats, truth: Floats) -> dict[str, float]:
    """Judge the best of the first networks, which were all fine-tuned; their order is not judged again."""
    first = np.argsort(-order, kind="stable")[:REFINED]
    regret = 100 * float(truth.max() - truth[first].max())
    return {**order_quality(order, truth), "regret_at_1": regret, "regret_at_3": regret}


def one_hot(names: pd.Series) -> Floats:  # type: ignore[type-arg]
    codes: Floats = (names.to_numpy()[:, None] == np.array(sorted(set(names)))).astype(float)
    return codes


def standard(codes: Floats) -> Floats:
    """Scale codes (n, ·) as the encoders do: deviations by column, by the root of the width."""
    moved: Floats = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), 1e-6) / codes.shape[1] ** 0.5
    return moved


if __name__ == "__main__":
    main()
