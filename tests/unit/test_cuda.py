"""A CUDA device gives the same results as the CPU, up to the order of sums. Skipped without a CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tans_core import runtime
from tans_core.embeddings import functional, query
from tans_core.embeddings.functional import Anchors
from tans_core.embeddings.probe import probe, probe_sample
from tans_core.embeddings.query import load_backbone, query_features
from tans_core.finetuning import finetune as finetuning
from tans_core.finetuning.finetune import finetune
from tans_core.networks.elastic import ElasticNetwork
from tans_core.published.paper import PaperRecipe, fit_paper, measure_paper
from tans_core.recipe import Recipe
from tans_core.space import training
from tans_core.space.data import SpaceData, assemble
from tans_core.space.encoders import CrossModalSpace
from tans_core.space.fit import fit_space
from tans_core.space.objective import TansObjective
from tans_core.space.training import train_steps
from tans_core.zoo.base import save_base
from tans_core.zoo.build import Zoo as BuiltZoo
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe
from tests.factories.fits import Line, StoppedError, Zoo
from tests.factories.networks import PREPROCESS, tiny_network, tiny_space
from tests.factories.tasks import grating_task

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CPU = torch.device("cpu")
TASKS = [f"task-{task:02d}" for task in range(12)]
RECIPE = space_recipe(dim=16, steps=200, positives=4, pairs_per_step=128, weight_decay=0.01)
USERS = (runtime, functional, query, finetuning)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """Run a function as on a machine without a GPU."""

    def run(call: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            for module in USERS:
                patch.setattr(module, "device", lambda: CPU)
            patch.setattr(training, "best_device", lambda: CPU)
            return call()

    return run


def network(classes: int = 3) -> ElasticNetwork:
    return tiny_network(classes, seed=3)


@pytest.fixture(scope="module")
def data() -> SpaceData:
    rows, features = linked_tables()
    options = {"heldout_share": 0.25, "samples": 8, "images_per_sample": 16, "seed": 0}
    return assemble(rows, features, linked_scores(rows), TASKS, **options)  # type: ignore[arg-type]


def test_a_network_is_embedded_alike(on_cpu: Callable[[Callable[[], Any]], Any]) -> None:
    anchors = Anchors.of_tasks([grating_task(seed=seed) for seed in range(4)], 4, 32, seed=0)
    asked = network()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.max_memory_allocated()
    found = anchors.embed(asked, PREPROCESS)
    assert torch.cuda.max_memory_allocated() > before
    assert next(asked.parameters()).device == CPU
    np.testing.assert_allclose(found, on_cpu(lambda: anchors.embed(network(), PREPROCESS)), atol=1e-4)


def test_a_data_set_is_embedded_alike(tmp_path: Path, on_cpu: Callable[[Callable[[], Any]], Any]) -> None:
    settings = tiny_space().model_dump(mode="json")
    save_base(
        tmp_path,
        {"elastic-residual": BuiltZoo(tiny_space().supernet(2), [], {})},
        {"elastic-residual": settings},
        (),
        "fp32",
    )
    task = grating_task()
    features, labels = query_features(task, load_backbone("base", tmp_path), images_per_class=10)
    wanted, same = on_cpu(lambda: query_features(task, load_backbone("base", tmp_path), images_per_class=10))
    assert load_backbone("base", tmp_path).device == "cuda"
    np.testing.assert_array_equal(labels, same)
    np.testing.assert_allclose(features, wanted, atol=1e-4)


def test_a_probe_gives_the_same_score() -> None:
    sample = probe_sample(grating_task(noise=30.0), images_per_class=20, most=60)
    wanted = probe(network(), PREPROCESS, sample).fit
    assert wanted > 0.3
    assert probe(network().cuda(), PREPROCESS, sample).fit == pytest.approx(wanted, abs=3e-3)
    assert probe(network().cuda(), PREPROCESS, sample, "bf16").fit == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fine_tuning_learns(precision: Any, on_cpu: Callable[[Callable[[], Any]], Any]) -> None:
    def run() -> Any:
        recipe = Recipe(lr=0.05, weight_decay=4e-5)
        return finetune(
            network(),
            grating_task(),
            PREPROCESS,
            recipe,
            steps=40,
            seed=0,
            precision=precision,
            batch_size=16,
            eval_points=4,
        )

    found, wanted = run(), on_cpu(run)
    assert found.test_accuracy > 0.8
    assert found.test_accuracy == pytest.approx(wanted.test_accuracy, abs=0.15)
    assert all(value.device == CPU for value in found.state_dict.values())


def test_a_step_of_the_space_has_the_same_loss_and_gradient(data: SpaceData) -> None:
    def step(place: str) -> tuple[float, dict[str, Tensor]]:
        objective = TansObjective(data, range(12), RECIPE, seed=0).to(place)
        loss = objective.loss(0)
        loss.backward()
        parts = objective.named_parameters()
        return loss.item(), {name: part.grad.cpu() for name, part in parts if part.grad is not None}

    (loss, slopes), (wanted, wanted_slopes) = step("cuda"), step("cpu")
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert slopes.keys() == wanted_slopes.keys() and slopes
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, wanted_slopes[name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_space_finds_as_much(data: SpaceData, on_cpu: Callable[[Callable[[], Any]], Any]) -> None:
    def fit() -> tuple[CrossModalSpace, Any]:
        return fit_space(data, RECIPE, folds=2, log_every=100, seed=0)

    (space, report), (_, wanted) = fit(), on_cpu(fit)
    assert all(value.device == CPU for value in space.state_dict().values())
    for group, name in (("heldout", "recall_at_1"), ("elsewhere", "weighted_tau"), ("insample", "spearman")):
        assert report.metrics[group][name] == pytest.approx(wanted.metrics[group][name], abs=0.1)


def test_the_published_space_finds_as_much() -> None:
    zoo = Zoo()

    def recall(device: str) -> float:
        space, _ = fit_paper(zoo.data, zoo.none_held_out, PaperRecipe(steps=150, dim=16), seed=0, device=device)
        return measure_paper(space, zoo.data, zoo.none_held_out)["insample"]["recall_at_1"]

    assert recall("cuda") == pytest.approx(recall("cpu"), abs=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_ended_goes_on_where_it_was(tmp_path: Path, precision: Any) -> None:
    def train(module: Line, folder: Path) -> Tensor:
        train_steps(
            module,
            module.step_loss,
            lambda weights: torch.optim.Adam(weights, lr=0.05),
            60,
            schedule="cosine",
            chunk=10,
            resume_folder=folder,
            precision=precision,
            device="cuda",
        )
        return module.layer.weight.detach()

    whole = train(Line(), tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(Line(stop_at=35), tmp_path / "parts")
    again = Line()
    torch.testing.assert_close(train(again, tmp_path / "parts"), whole, rtol=1e-4, atol=1e-5)
    assert again.taken[0] == 30
