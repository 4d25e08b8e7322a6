"""The rankings of `make bench-transfer`, and their figures, on data with a known answer."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transfer
import transfer_anchors
import yaml
from transfer_rankings import OURS, REFINED_BY, Asked, ceiling, judge_rankings, paper_on, rankings, transfer_mean

from tans_core.embeddings.functional import Noise
from tans_core.embeddings.scores import ScoreRows
from tans_core.embeddings.store import FeatureRows, ModelRows
from tans_core.params import load_params
from tans_core.space.data import SpaceData, assemble
from tans_core.space.fit import fit_on
from tans_core.tasks.task import Task, read_info, read_task
from tans_core.zoo.weights import load_model
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe
from tests.factories.processes import one_core

TASKS = [f"task-{number:02d}" for number in range(6)]
SEEN = (0, 1, 3, 4)
"""All but those of source-2."""


@pytest.fixture(scope="module")
def data() -> SpaceData:
    models, features = linked_tables(tasks=6, sources=3)
    options = {"heldout_share": 0.25, "samples": 2, "images_per_sample": 8, "seed": 0}
    return assemble(models, features, linked_scores(models, tasks=6), TASKS, **options)  # type: ignore[arg-type]


def asked(name: str, source: str, truth: list[float], noise: float = 0.0) -> Asked:
    """A judged task whose truth has three seeds, so far apart."""
    seeds = np.array(truth)[:, None] + noise * np.array([-1.0, 0.0, 1.0])
    nothing = np.zeros(len(truth))
    return Asked(name, source, False, np.arange(len(truth)), seeds, nothing, torch.zeros(7))


def scores(members: list[Asked], **of: float) -> dict[str, dict[str, np.ndarray]]:
    """Rankings in the truth's order (1), or in the opposite one (-1)."""
    return {one.name: {name: sign * one.truth.mean(axis=1) for name, sign in of.items()} for one in members}


def test_table_holds_means_over_tasks_and_spreads_over_seeds() -> None:
    truth = [0.9, 0.7, 0.4, 0.2]
    members = [asked("a", "x", truth), asked("b", "y", truth)]
    seeds = [scores(members, **{OURS: 1, REFINED_BY: 1, "other": -1}) for _ in range(2)]
    # In one of two seeds the other ranking is right about one of two tasks.
    seeds[1]["a"]["other"] = members[0].truth.mean(axis=1)
    found = judge_rankings(seeds, {"left out": members})
    ours, other = (found["table"][name]["left out"] for name in (OURS, "other"))
    assert ours["weighted_tau"] == {"mean": pytest.approx(1), "std": pytest.approx(0)}
    assert ours["regret_at_1"]["mean"] == 0
    assert other["weighted_tau"]["mean"] == pytest.approx(-0.5)  # -1, and half of it
    assert other["weighted_tau"]["std"] == pytest.approx(np.std([-1, 0], ddof=1))
    assert other["regret_at_1"]["mean"] == pytest.approx(0.75 * 70)
    assert other["regret_at_3"]["mean"] == pytest.approx(0.75 * 20)


def test_margins_count_each_source_once() -> None:
    truth = [0.9, 0.7, 0.4, 0.2]
    members = [asked("a", "x", truth), asked("b", "x", truth), asked("c", "y", truth)]
    seed = scores(members, **{OURS: 1, REFINED_BY: 1, "other": 1})
    seed["c"]["other"] = -seed["c"]["other"]
    margin = judge_rankings([seed, seed], {"left out": members})["margins"][OURS]["other"]["left out"]
    assert margin["mean"] == pytest.approx((0 + 2) / 2)  # not (0 + 0 + 2) / 3
    assert margin["error"] == pytest.approx(np.std([0, 2], ddof=1) / 2**0.5)


def test_intervals_of_one_source_come_from_the_others() -> None:
    rng = np.random.default_rng(0)
    members = [asked(name, name, list(0.5 + 0.1 * rng.normal(size=200))) for name in "abcd"]
    seed = scores(members, **{OURS: 1, REFINED_BY: 1})
    for one in members:
        true = one.truth.mean(axis=1)
        seed[one.name][OURS] = (true - true.mean()) / true.std() + 0.5 * rng.normal(size=len(true))
    found = judge_rankings([seed, seed], {"left out": members, "one": members[:1]})["calibration"]
    assert set(found) == {"left out"}
    assert found["left out"]["coverage"]["mean"] == pytest.approx(0.8, abs=0.04)
    assert found["left out"]["half_width"]["mean"] == pytest.approx(0.5 * 1.28, abs=0.06)


def test_what_the_noise_of_the_truth_allows() -> None:
    steady, noisy = asked("a", "x", [0.9, 0.7, 0.4, 0.2]), asked("b", "x", [0.9, 0.7, 0.4, 0.2])
    assert ceiling([steady])["weighted_tau"]["mean"] == pytest.approx(1)
    # A seed with the opposite order disagrees with the mean of the others, and they with it.
    noisy.truth[:, 2] = noisy.truth[::-1, 2]
    assert ceiling([noisy])["weighted_tau"]["mean"] < 0.5
    assert ceiling([noisy])["regret_at_1"]["mean"] > 20


def test_transfer_mean_is_of_trials_on_tasks_seen_by_networks_of_tasks_seen(data: SpaceData) -> None:
    home = torch.tensor([0, 3, 4])
    found = transfer_mean(data, SEEN, home)
    for place, own in zip(found, home.tolist(), strict=True):
        of_tasks: dict[int, list[tuple[int, float]]] = {}
        for task, model, value in data.tuned.rows():
            if task in SEEN and int(data.home[model]) in SEEN:
                of_tasks.setdefault(task, []).append((int(data.home[model]), value))
        values = []
        for trials in of_tasks.values():
            accuracies = np.array([value for _, value in trials])
            values += [
                (value - accuracies.mean()) / accuracies.std() for trained_on, value in trials if trained_on == own
            ]
        assert place == pytest.approx(np.mean(values), abs=1e-5)


def test_rankings_say_nothing_of_what_only_the_source_left_out_knows(data: SpaceData) -> None:
    """All values of the source left out are NaN, so that using them gives NaN."""
    own = torch.isin(data.home, torch.tensor(SEEN))
    unseen = [task for task in range(6) if task not in SEEN]

    def without(values: torch.Tensor, rows: torch.Tensor | list[int]) -> torch.Tensor:
        changed = values.clone()
        changed[rows] = torch.nan
        return changed

    trials = {
        kind: replace(of, value=without(of.value, torch.isin(of.task, torch.tensor(unseen)) | ~own[of.model]))
        for kind, of in (("tuned", data.tuned), ("probed", data.probed))
    }
    networks = {
        name: without(getattr(data, name), ~own) for name in ("topology", "functional", "score", "accuracy", "params_m")
    }
    queries = {name: without(getattr(data, name), unseen) for name in ("samples", "queries", "val_queries")}
    blind = replace(data, **trials, **networks, **queries)
    models = own.nonzero()[:, 0].numpy()
    rng = np.random.default_rng(0)
    one = Asked(
        "task-02", "source-2", False, models, rng.random((len(models), 3)), rng.random(len(models)), data.queries[2]
    )
    weights = {"predicted": 0.7, "probe": 0.5, "expected": 0.3}
    found = []
    for known in (data, blind):
        space, _ = fit_on(known, SEEN, space_recipe(steps=20), 0, 0)
        paper = paper_on(known, SEEN, steps=20, seed=0)
        found.append(rankings(one, known, SEEN, space, {"paper": (paper, known)}, weights, 0))
    for name, values in found[0].items():
        assert values.shape == (len(models),) and np.isfinite(values).all(), name
        np.testing.assert_array_equal(values, found[1][name], err_msg=name)
    assert np.array_equal(np.argsort(found[0]["most parameters"]), np.argsort(data.params_m[models].numpy()))
    refined = found[0][REFINED_BY]
    first = np.argsort(-found[0][OURS], kind="stable")[:8]
    assert not np.array_equal(np.argsort(refined[first]), np.argsort(found[0][OURS][first]))


def test_anchors_of_the_source_left_out_are_not_looked_at(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, store = load_params(project), project / "data/store"
    tables = ModelRows.read(store), FeatureRows.read(store), ScoreRows.read(store)
    options = {"heldout_share": 0.25, "samples": 2, "images_per_sample": 8, "seed": 0}
    data = assemble(*tables, list(params.tasks.meta_train), **options)  # type: ignore[arg-type]
    (tmp_path / "data").symlink_to(project / "data")
    read = []

    def watched(folder: Path) -> Task:
        read.append(read_info(folder).source)
        return read_task(folder)

    monkeypatch.setattr(transfer_anchors, "read_task", watched)
    found = transfer_anchors.embedded_without(tmp_path, params, data, "made-of-lines")
    assert read == ["made-of-colours"] * 2
    assert len(found) == len(data.home)
    again = transfer_anchors.embedded_without(tmp_path, params, data, "made-of-lines")
    assert torch.equal(found, again) and len(read) == 2  # kept
    noise = transfer_anchors.embedded_by_noise(tmp_path, params, data)
    assert noise.shape == (len(data.home), 16) and len(read) == 2
    # Each row has the output of its own network, and all outputs differ.
    cards = tables[0].cards
    for row in (0, len(cards) - 1):
        network = load_model(cards[row], project / "data" / cards[row].weights)
        image = Noise(1, params.seed).images(cards[row].preprocess)
        with torch.no_grad():
            answer = network.eval().features(image)[0]
        near = (noise - answer).abs().amax(dim=1) < 1e-5
        assert near.nonzero()[:, 0].tolist() == [row]


@pytest.mark.slow
@one_core()
def test_whole_benchmark_runs_on_a_small_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Check that every ranking is judged; the figures of so few networks mean nothing."""
    (tmp_path / "data").symlink_to(project / "data")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["space"]["steps"] = 10
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    sizes = ["--judged", "2", "--networks", "16", "--truth-seeds", "2", "--space-seeds", "2", "--paper-steps", "20"]
    options = ["--root", tmp_path, *sizes, "--out", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", ["transfer.py", *map(str, options)])
    transfer.main()
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    assert {row["networks"] for row in record["tasks"].values()} == {8} and len(record["tasks"]) == 2
    for name in (OURS, REFINED_BY, "paper, similarity", "paper on noise, similarity", "nearest task", "transfer mean"):
        assert -1 <= record["table"][name]["left out"]["weighted_tau"]["mean"] <= 1
        assert name in said
    assert 0 <= record["calibration"]["left out"]["coverage"]["mean"] <= 1
