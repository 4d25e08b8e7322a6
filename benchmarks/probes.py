"""Compare probes: how well ridge regression and nearest neighbours on a network's features predict its fine-tuning.

    python benchmarks/probes.py [--out metrics/bench-probes.json]

Needs a built project. The truth are the fine-tunings of stage `transfer` on each meta-train task. Each of their
networks is probed on the same images, leaving each image out in turn.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from tans_core.embeddings.probe import probe_sample
from tans_core.embeddings.scores import ScoreRows
from tans_core.io import write_json
from tans_core.networks.head import features_of
from tans_core.params import load_params
from tans_core.runtime import begin_worker, clock, progress
from tans_core.scores import knn_probe, ridge_probe
from tans_core.space.metrics import order_quality
from tans_core.tasks.task import read_task
from tans_core.zoo.build import read_all_cards
from tans_core.zoo.weights import Base, load_model

ROOT = Path(__file__).resolve().parents[1]
NEIGHBOURS = (1, 3, 5, 10)
LEAST = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "metrics/bench-probes.json")
    parser.add_argument("--root", type=Path, default=ROOT, help="a built project")
    options = parser.parse_args()
    begin_worker()
    params, precision = load_params(options.root), Base.open(options.root / "data/base").precision
    cards = {card.id: card for card in read_all_cards(options.root / "data", list(params.tasks.meta_train))}
    scores = ScoreRows.read(options.root / "data/store")
    truth: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for task, model, kind, value in zip(scores.tasks, scores.models, scores.kinds, scores.values, strict=True):
        if kind == "finetune":
            truth[str(task)][str(model)].append(float(value))
    judged: dict[str, list[dict[str, float]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for name, tuned in progress(list(truth.items()), "probing"):
        if len(tuned) < LEAST:
            continue
        task = read_task(options.root / "data/tasks" / name)
        sample = probe_sample(task, params.transfer.probe_images_per_class, params.transfer.probe_images)
        guesses: dict[str, list[float]] = defaultdict(list)
        for model in tuned:
            card, elapsed = cards[model], clock()
            network = load_model(card, options.root / "data" / card.weights)
            features = features_of(network, sample.images(card.preprocess), precision)
            seconds["features"] += elapsed()
            elapsed = clock()
            ridge = ridge_probe(features, sample.labels)
            seconds["ridge"] += elapsed()
            guesses["ridge, variance explained"].append(ridge.fit)
            guesses["ridge, accuracy"].append(ridge.accuracy)
            for count in NEIGHBOURS:
                elapsed = clock()
                guesses[f"{count} nearest"].append(knn_probe(features, sample.labels, count))
                seconds[f"{count} nearest"] += elapsed()
            guesses["parameters"].append(card.params_m)
        values = np.array([np.mean(one) for one in tuned.values()])
        for kind, of_kind in guesses.items():
            judged[kind].append(order_quality(np.array(of_kind), values))
    result: dict[str, Any] = {"tasks": len(judged["parameters"]), "seconds": dict(seconds), "probes": {}}
    for kind, rows in judged.items():
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        error = float(np.std([row["weighted_tau"] for row in rows], ddof=1) / len(rows) ** 0.5)
        result["probes"][kind] = {**means, "weighted_tau_error": error}
        figures = "  ".join(f"{key} {value:.3f}" for key, value in means.items())
        print(f"{kind:28} {figures}  (tau ± {error:.3f})")
    write_json(result, options.out)


if __name__ == "__main__":
    main()
