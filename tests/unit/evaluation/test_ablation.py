"""Each variant changes the part in its name, and nothing else."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tans_core.embeddings.functional import Anchors, functional_dim
from tans_core.embeddings.store import ModelRows
from tans_core.errors import StoreError
from tans_core.evaluation.ablation import (
    FULL,
    METRICS,
    Inputs,
    Ranking,
    Variant,
    compare_variants,
    known_variants,
    make_study,
    with_earlier,
)
from tans_core.evaluation.ablation_data import AS_BUILT, Built, embed_functional, first_of_each_class, make_studies
from tans_core.evaluation.ablation_fits import measure_variants, rank_by
from tans_core.evaluation.ablation_plot import draw_ablation, signed
from tans_core.evaluation.plots import to_png
from tans_core.space.data import SpaceData, assemble
from tans_core.space.fit import fit_on
from tans_core.space.measure import orders_elsewhere
from tans_core.space.objective import SpaceRecipe
from tans_core.tasks.task import read_task
from tests.factories.embeddings import linked_scores, linked_tables, space_recipe
from tests.factories.project import PARAMS

TASKS = tuple(f"task-{task:02d}" for task in range(12))
PROJECTED = 20
"""Of the 30 functional columns of the made tables."""
VARIANTS = {one.name: one for one in known_variants(PROJECTED, ["resnet18"])}
RECIPE = space_recipe(frechet_weight=0.0, temperature=0.3)
SPLIT_IMAGES, FEATURES = 20, 24


@pytest.fixture(scope="module")
def built() -> Built:
    models, features = linked_tables()
    options = {"tasks": TASKS, "heldout_share": 0.25, "samples": 4, "images_per_sample": 16, "seed": 0}
    return Built(
        data=Path("nowhere"),
        models=models,
        features=features,
        scores=linked_scores(models),
        tasks=TASKS,
        inputs=Inputs(anchors_per_task=5, images_per_class=10, backbone="base"),
        projection_seed=0,
        projection_dim=PROJECTED,
        assemble=partial(assemble, **options),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def data(built: Built) -> SpaceData:
    return built.assemble(built.models, built.features, built.scores)


def changed_fields(one: SpaceData, other: SpaceData) -> set[str]:
    found = set()
    for field in fields(SpaceData):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(ours, Tensor):
            same = ours.shape == theirs.shape and torch.equal(ours, theirs)
        else:
            same = ours is theirs or ours == theirs
        if not same:
            found.add(field.name)
    return found


WEIGHTS = {
    "no-trials": {"tuned_weight": 0, "probed_weight": 0},
    "no-tunings": {"tuned_weight": 0},
    "no-probes": {"probed_weight": 0},
    "no-home": {"home_weight": 0},
    "no-rank": {"rank_weight": 0},
    "no-matching": {"matching_weight": 0},
    **{f"temperature-{value}": {"temperature": value} for value in (0.05, 0.1, 0.2)},
    "frechet": {"frechet_weight": 0.1},
    "prediction-only": {"matching_weight": 0, "rank_weight": 0},
    "matching-only": {"home_weight": 0, "tuned_weight": 0, "probed_weight": 0, "rank_weight": 0},
    **{f"dim-{dim}": {"dim": dim} for dim in (16, 32, 64, 128)},
}
QUERIES = {"samples", "queries", "val_queries"}
DATA = {
    "no-topology": {"topology"},
    "no-functional": {"functional"},
    "projected-only": {"functional"},
    "gram-only": {"functional"},
    "query-mean": QUERIES,
    "query-mean-spread": QUERIES,
}
RANKINGS = {"no-predictor": "similarity", "matching-only": "similarity", "no-trust": "untrusted"}
INPUTS = {
    **{f"anchors-{count}": Inputs(anchors_per_task=count) for count in (1, 2, 4, 8)},
    **{f"noise-{count}": Inputs(noise_images=count) for count in (1, 4, 16, 64)},
    **{f"images-{count}": Inputs(images_per_class=count) for count in (5, 10, 20)},
    "backbone-resnet18": Inputs(backbone="resnet18"),
}


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variant_changes_what_it_says_and_nothing_else(name: str, data: SpaceData) -> None:
    study = make_study(VARIANTS[name], RECIPE, data)
    recipe = {f.name: getattr(study.recipe, f.name) for f in fields(SpaceRecipe)}
    plain = {f.name: getattr(RECIPE, f.name) for f in fields(SpaceRecipe)}
    assert {key: value for key, value in recipe.items() if value != plain[key]} == WEIGHTS.get(name, {})
    assert changed_fields(data, study.data) == DATA.get(name, set())
    assert study.variant.ranking == RANKINGS.get(name, "predicted")
    assert study.variant.inputs == INPUTS.get(name, Inputs())


def test_every_variant_but_the_full_objective_changes_something() -> None:
    assert set(VARIANTS) == {FULL} | WEIGHTS.keys() | DATA.keys() | RANKINGS.keys() | INPUTS.keys()


def test_zeroed_codes_do_not_vary(data: SpaceData) -> None:
    assert make_study(VARIANTS["no-topology"], RECIPE, data).data.topology.unique().tolist() == [0.0]
    assert make_study(VARIANTS["no-functional"], RECIPE, data).data.functional.unique().tolist() == [0.0]


def test_projected_and_gram_form_are_the_two_parts_of_the_embedding(data: SpaceData) -> None:
    parts = [make_study(VARIANTS[name], RECIPE, data).data.functional for name in ("projected-only", "gram-only")]
    assert [part.shape[1] for part in parts] == [PROJECTED, 30 - PROJECTED]
    assert torch.equal(torch.cat(parts, dim=1), data.functional)


@pytest.mark.parametrize(("name", "kept"), [("query-mean", FEATURES), ("query-mean-spread", 2 * FEATURES)])
def test_query_statistics_beyond_those_named_tell_nothing(name: str, kept: int, data: SpaceData) -> None:
    study = make_study(VARIANTS[name], RECIPE, data)
    for field in QUERIES:
        changed, plain = getattr(study.data, field), getattr(data, field)
        assert torch.equal(changed[..., :kept], plain[..., :kept])
        assert not changed[..., kept:].any()


def test_fewer_images_a_class_are_the_first_of_each(built: Built) -> None:
    few = first_of_each_class(built.features, 3)
    assert len(few.tasks) == 12 * 2 * 2 * 3
    rows = (built.features.tasks == "task-03") & (built.features.splits == "val") & (built.features.labels == 1)
    own = (few.tasks == "task-03") & (few.splits == "val") & (few.labels == 1)
    np.testing.assert_array_equal(few.features[own], built.features.features[rows][:3])
    all_of_them = first_of_each_class(built.features, SPLIT_IMAGES)
    np.testing.assert_array_equal(all_of_them.features, built.features.features)


def test_networks_are_embedded_from_their_weights_as_the_store_was(project: Path, tmp_path: Path) -> None:
    models, embed = ModelRows.read(project / "data/store"), PARAMS["embed"]
    form = embed["projection_dim"], embed["projection_seed"]
    tasks = [read_task(project / "data/tasks" / name) for name in PARAMS["tasks"]["meta_train"]]
    anchors = Anchors.of_tasks(tasks, embed["anchors_per_task"], *form)
    found = embed_functional(models, anchors, project / "data", tmp_path)
    np.testing.assert_allclose(found, models.functional, atol=1e-5)
    np.testing.assert_array_equal(embed_functional(models, anchors, tmp_path / "no weights here", tmp_path), found)
    other = Anchors.of_noise(4, *form)
    assert embed_functional(models, other, project / "data", tmp_path).shape == (
        len(models.cards),
        functional_dim(4, 16),
    )


def test_rankings_of_one_space(data: SpaceData) -> None:
    space, _ = fit_on(data, range(9), RECIPE, 0, seed=0)
    # Far from everything: what is left of start and fit is little.
    space.apart.fill_(0.5)
    by = {ranking: rank_by(space, ranking) for ranking in Ranking}
    assert (space.trust(data.queries[9:]) < 0.5).all()
    assert (by[Ranking.UNTRUSTED].trust(data.queries[9:]) == 1).all()
    inputs = data.topology[:8], data.functional[:8]
    places, parts = space.encode_models(*inputs), space.parts(*inputs)
    query = space.encode_query(data.queries[9:10]).expand(8, -1)
    untrusted = by[Ranking.UNTRUSTED]
    assert torch.equal(
        untrusted.predict(query, places, *untrusted.parts(*inputs)), space.predict(query, places, *parts)
    )
    alike = by[Ranking.SIMILARITY]
    found = alike.predict(query, alike.encode_models(*inputs), *alike.parts(*inputs), alike.trust(data.queries[9:10]))
    torch.testing.assert_close(found, (query * places).sum(dim=1))
    plain = orders_elsewhere(space, data, [9])[0].predicted
    np.testing.assert_array_equal(orders_elsewhere(by[Ranking.PREDICTED], data, [9])[0].predicted, plain)


def record(**variants: float) -> dict[str, Any]:
    counts = {"seeds": 5, "folds": 4, "tasks": 44, "judged_tasks": 44, "networks": 1056}
    rows = {name: {"weighted_tau": {"mean": mean}} for name, mean in variants.items()}
    return {**counts, "variants": rows, "left_out": {"backbone": "none here"}}


def test_some_variants_are_added_to_what_was_measured_of_the_same_full_objective() -> None:
    earlier, made = record(full=0.5, old=0.4, again=0.3), record(full=0.5, again=0.2, new=0.1)
    earlier["left_out"]["new"] = "not then"
    found = with_earlier(made, earlier)
    assert {name: row["weighted_tau"]["mean"] for name, row in found["variants"].items()} == {
        "full": 0.5,
        "old": 0.4,
        "again": 0.2,
        "new": 0.1,
    }
    assert found["left_out"] == {"backbone": "none here"}


@pytest.mark.parametrize("other", [record(full=0.500001, old=0.4), {**record(full=0.5, old=0.4), "seeds": 3}, {}])
def test_what_was_measured_of_another_full_objective_is_not_kept(other: dict[str, Any]) -> None:
    made = record(full=0.5, new=0.1)
    assert with_earlier(made, other) == made


def test_what_is_built_and_what_cannot_be_made_is_left_out(built: Built, tmp_path: Path) -> None:
    names = (FULL, "dim-16", "noise-4", "images-5", "images-10", "images-20")
    recipe = space_recipe(dim=16)
    studies, left_out = make_studies([VARIANTS[name] for name in names], recipe, built, tmp_path)
    assert [study.variant.name for study in studies] == [FULL, "images-5"]
    assert left_out["dim-16"] == left_out["images-10"] == AS_BUILT
    assert left_out["images-20"] == "data/store holds 10 images a class"
    assert "elastic-residual.safetensors: not readable" in left_out["noise-4"]


def test_tasks_of_one_source_are_refused(built: Built, tmp_path: Path) -> None:
    models, features = linked_tables(sources=1)
    alone = Built(**{**vars(built), "models": models, "features": features})
    with pytest.raises(StoreError, match="1 sources are too few"):
        make_studies([VARIANTS[FULL]], RECIPE, alone, tmp_path)


def test_what_the_scores_follow_is_missed_and_a_killed_run_goes_on(built: Built, tmp_path: Path) -> None:
    recipe = space_recipe(dim=16, steps=80, positives=4, pairs_per_step=128, functional_noise=0.5, weight_decay=0.01)
    chosen = [VARIANTS[name] for name in (FULL, "no-topology", "no-predictor")]
    studies, _ = make_studies(chosen, recipe, built, tmp_path)
    rows = measure_variants(studies, folds=2, seeds=2, seed=0, jobs=1, done=tmp_path / "rows")
    assert {name: len(own) for name, own in rows.items()} == {FULL: 2, "no-topology": 2, "no-predictor": 2}
    assert all(set(row) == set(METRICS) for own in rows.values() for row in own)
    compared = compare_variants(rows)
    # Capacity is what the made scores follow most. Without codes, a network's own trials elsewhere tell of it.
    assert compared["no-predictor"]["weighted_tau"]["difference"] < -0.1
    assert compared["no-predictor"]["weighted_tau"]["beyond"]
    assert compared["no-topology"]["weighted_tau"]["difference"] < 0
    # The ranking alone differs: one fit serves both.
    kept = sorted((tmp_path / "rows").iterdir())
    assert len(kept) == 4
    times = {path.name: path.stat().st_mtime_ns for path in kept}
    kept[0].unlink()
    assert measure_variants(studies, folds=2, seeds=2, seed=0, jobs=1, done=tmp_path / "rows") == rows
    written = {path.name for path in (tmp_path / "rows").iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert written == {kept[0].name}
    # In a process of its own the same comes out.
    again = measure_variants(studies[:1], folds=2, seeds=1, seed=0, jobs=2, done=tmp_path / "beside")
    assert again == {FULL: rows[FULL][:1]}


def row(tau: float) -> dict[str, float]:
    return {"weighted_tau": tau, "regret_at_1": 1.0, "regret_at_3": 0.5, "recall_at_1": 0.9}


def test_difference_counts_where_it_exceeds_both_spreads() -> None:
    compared = compare_variants(
        {FULL: [row(0.5), row(0.6)], "near": [row(0.45), row(0.55)], "far": [row(0.3), row(0.4)]}
    )
    spread = float(np.std([0.5, 0.6], ddof=1))
    assert compared[FULL]["weighted_tau"] == {
        "mean": pytest.approx(0.55),
        "std": pytest.approx(spread),
        "difference": 0.0,
        "beyond": False,
    }
    assert compared["near"]["weighted_tau"]["difference"] == pytest.approx(-0.05)
    assert not compared["near"]["weighted_tau"]["beyond"]
    assert compared["far"]["weighted_tau"]["beyond"]
    assert not compared["far"]["regret_at_1"]["beyond"]


def test_picture_orders_variants_and_is_the_same_each_time() -> None:
    compared = compare_variants(
        {FULL: [row(0.5), row(0.52)], "low": [row(0.2), row(0.25)], "high": [row(0.6), row(0.61)]}
    )
    labels = {FULL: "full objective", "low": "without $x$", "high": "higher"}
    figure = draw_ablation(compared, labels, "2 seeds, 9 tasks")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["higher", "full objective", "without $x$"]
    assert to_png(figure) == to_png(draw_ablation(compared, labels, "2 seeds, 9 tasks"))


def test_differences_are_written_with_a_true_minus_and_none_on_zero() -> None:
    assert [signed(value, 2) for value in (-0.051, 0.05, -0.001)] == ["−0.05", "+0.05", "0.00"]


def test_a_variant_is_named_once() -> None:
    names = [one.name for one in known_variants(PROJECTED, ["resnet18"])]
    assert len(names) == len(set(names))
    assert isinstance(VARIANTS[FULL], Variant)
