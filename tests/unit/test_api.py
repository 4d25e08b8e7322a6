"""The API: results, errors and files of its functions."""

import csv
import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

import tans_core as tans
from tans_core import errors
from tans_core.gates import query
from tans_core.gates.query import start_query_gate
from tans_core.index.releases import add_models
from tans_core.io import write_json
from tans_core.options import FinetuneOptions, RetrieveOptions
from tans_core.retrieval.constraints import Options
from tans_core.retrieval.placement import place_models
from tans_core.tasks.pixels import SquareImages
from tans_core.tasks.task import read_task
from tans_core.zoo.card import Ancestor, Licences
from tans_core.zoo.weights import save_tensors
from tests.factories.project import TASKS, UNSEEN

PUBLIC = [
    "DataError",
    "FinetuneRun",
    "GateError",
    "NoModelFitsError",
    "NoReleaseError",
    "ParamsError",
    "Predictions",
    "Query",
    "Retrieval",
    "ScanRun",
    "Service",
    "StoreError",
    "TansError",
    "UnknownTaskError",
    "WeightsError",
    "__version__",
    "add_network",
    "admit",
    "build",
    "contribute",
    "embed",
    "export",
    "finetune",
    "list_models",
    "list_releases",
    "list_tasks",
    "load",
    "model_card",
    "predict",
    "profile_networks",
    "prune",
    "publish",
    "remove_networks",
    "retrieve",
    "rollback",
    "scan",
    "verify",
]


def test_public_names_are_these_and_each_is_there() -> None:
    assert tans.__all__ == PUBLIC
    assert dir(tans) == PUBLIC
    for name in PUBLIC:
        assert getattr(tans, name) is not None
        assert name == "__version__" or getattr(tans, name).__doc__, name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'retreive'"):
        tans.retreive  # noqa: B018


@pytest.mark.parametrize("module", ["tans_core", "tans_core.api", "tans_core.cli.app", "tans_core.index.release"])
def test_import_is_cheap(module: str) -> None:
    heavy = ("torch", "lancedb", "pyarrow", "pandas", "great_expectations", "prefect", "pytorch_lightning", "numpy")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_retrieval_waits_for_no_library_that_it_does_not_use(project: Path) -> None:
    unused = ("pytorch_lightning", "torchvision", "scipy", "sklearn", "great_expectations", "matplotlib", "prefect")
    unused += ("lance_namespace_urllib3_client.api",)
    code = (
        "import sys; from tans_core.cli.app import app;"
        f"app(['retrieve', {UNSEEN!r}, '--root', {str(project)!r}], standalone_mode=False);"
        f"print([name for name in {unused!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_scan_waits_for_no_library_that_it_does_not_use(photos: Path, tmp_path: Path) -> None:
    unused = ("lancedb", "torch", "great_expectations", "matplotlib", "prefect")
    shutil.copy(Path(__file__).parents[2] / "params.yaml", tmp_path)
    code = (
        f"import sys, tans_core; assert tans_core.scan({str(photos)!r}, root={str(tmp_path)!r}).task is None;"
        f"print([name for name in {unused!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_retrieval_is_a_sequence_best_first_that_its_run_remembers(project: Path) -> None:
    found = tans.retrieve(UNSEEN, root=project)
    assert [one.rank for one in found] == [1, 2, 3, 4, 5]
    assert found[0] is next(iter(found))
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.home_task in TASKS for one in found)
    assert list(found.to_frame()["model"]) == [one.model for one in found]
    assert json.loads((found.folder / "candidates.json").read_text()) == found.to_dicts()
    remembered = json.loads((found.folder / "provenance.json").read_text())
    assert (remembered["dataset"], remembered["release"]) == (UNSEEN, found.release)
    assert found[0].model in found._repr_html_()


def test_retrieval_is_the_same_twice(project: Path) -> None:
    first, second = (tans.retrieve(UNSEEN, root=project) for _ in range(2))
    assert first.to_dicts() == second.to_dicts()
    assert first.folder != second.folder


def test_task_in_memory_is_retrieved_for_like_the_same_task_on_disk(project: Path) -> None:
    task = read_task(project / "data/tasks" / UNSEEN)
    assert tans.retrieve(task, root=project).to_dicts() == tans.retrieve(UNSEEN, root=project).to_dicts()
    other = replace(task, images=SquareImages.of(255 - image for image in task.images))
    assert tans.retrieve(other, root=project).to_dicts() != tans.retrieve(UNSEEN, root=project).to_dicts()


def test_every_candidate_satisfies_the_constraints(project: Path) -> None:
    everything = tans.retrieve(UNSEEN, top_k=100, root=project)
    assert len(everything) == 4 * len(TASKS)
    params = sorted(one.params_m for one in everything)[4]
    macs = sorted(one.macs_m for one in everything)[8]
    small = tans.retrieve(UNSEEN, top_k=100, max_params_m=params, max_macs_m=macs, root=project)
    wanted = {one.model for one in everything if one.params_m <= params and one.macs_m <= macs}
    assert {one.model for one in small} == wanted
    assert wanted


def test_licences_hold_all_the_way_down(project: Path) -> None:
    # Every network descends from the base, and the base from images of both licences.
    with pytest.raises(errors.NoModelFitsError, match=r"accept --licence Apache-2\.0,CC0-1\.0 as well"):
        tans.retrieve(UNSEEN, licences="MIT", root=project)
    found = tans.retrieve(UNSEEN, top_k=100, licences=["mit", "CC0-1.0", "Apache-2.0"], root=project)
    assert len(found) == 4 * len(TASKS)
    assert {one.licence for one in found} == {"Apache-2.0 AND CC0-1.0 AND MIT"}


def test_network_that_is_mit_all_the_way_down_is_what_mit_finds(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root)
    retriever = tans.Service.open(root).retriever
    card, folder = tans.list_models(root)[0], root / "data/arrivals/alone"
    lineage = (Ancestor(kind="task", name="stripes", source="made-of-lines", licence="MIT"),)
    own = {"id": "alone", "lineage": lineage, "licences": Licences.of_lineage(lineage, code="MIT")}
    alone = card.model_copy(update={**own, "weights": "arrivals/alone/weights.safetensors"})
    save_tensors(retriever.load_model(card.id, len(card.class_names)).state_dict(), folder / "weights.safetensors")
    write_json(alone.to_dict(), folder / "card.json")
    rows = place_models(retriever.release, [folder])
    add_models(root / "serving", rows, {alone.weights: folder / "weights.safetensors"})
    assert [one.model for one in tans.retrieve(UNSEEN, licences="MIT", root=root)] == ["alone"]
    assert len(tans.retrieve(UNSEEN, top_k=100, root=root)) == 4 * len(TASKS) + 1


def test_constraints_that_nothing_satisfies_name_the_nearest_model(project: Path) -> None:
    with pytest.raises(errors.NoModelFitsError, match="The nearest"):
        tans.retrieve(UNSEEN, max_params_m=1e-6, root=project)


def test_folder_is_scanned_and_its_report_is_kept(project: Path, photos: Path) -> None:
    found = tans.retrieve(photos, root=project)
    assert found.task.class_names == ("ash", "elm", "oak")
    assert sum(found.task.counts.values()) == 36
    assert found.scan is not None
    assert json.loads((found.folder / "scan.json").read_text()) == json.loads(json.dumps(found.scan.to_dict()))
    assert "broken.png" in (found.folder / "scan.json").read_text()


def test_name_that_is_nothing_is_answered_with_the_nearest_task(project: Path) -> None:
    with pytest.raises(errors.UnknownTaskError, match="did you mean 'patches'"):
        tans.retrieve("patchs", root=project)


def test_nothing_published_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(errors.NoReleaseError, match="tans publish"):
        tans.retrieve(UNSEEN, root=tmp_path)


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_below_one_is_refused(project: Path, top_k: int) -> None:
    with pytest.raises(errors.ParamsError, match="top_k"):
        tans.retrieve(UNSEEN, top_k=top_k, root=project)


def test_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ParamsError, match="no such folder"):
        tans.retrieve(UNSEEN, root=tmp_path / "nowhere")


def test_finetuning_starts_from_the_first_refined_model_and_keeps_its_weights(project: Path) -> None:
    run = tans.finetune(UNSEEN, epochs=2, root=project)
    assert run.model == tans.retrieve(UNSEEN, refine=8, root=project)[0].model
    assert [point["epoch"] for point in run.curve] == [1, 2]
    assert run.best_val_accuracy == max(point["val_accuracy"] for point in run.curve)
    assert 0 <= run.test_accuracy <= 1
    weights = load_file(run.folder / "weights.safetensors")
    assert weights["classifier.weight"].shape[0] == 3
    assert len(list(csv.DictReader((run.folder / "curve.csv").open()))) == 2
    card = json.loads((run.folder / "card.json").read_text())
    assert card["test_accuracy"] == run.test_accuracy
    asked = json.loads((run.folder / "params.json").read_text())
    assert (asked["dataset"], asked["model"], asked["epochs"], asked["seed"]) == (UNSEEN, run.model, 2, 0)
    assert json.loads((run.folder / "provenance.json").read_text())["release"] == run.release
    assert run.test["accuracy"] == run.test_accuracy and "Worst mistakes" in (run.folder / "report.html").read_text()
    for images in (UNSEEN, project / "data/tasks" / UNSEEN):
        found = tans.predict(run, images, split="test", root=project)
        assert found.accuracy == run.test_accuracy and found.missing == 0
    with pytest.raises(errors.UnknownTaskError, match=f"did you mean '{UNSEEN}'"):
        tans.predict(run, UNSEEN[:-1], root=project)
    assert tans.load(run.folder.name, root=project).card.model == run.model


def test_finetuning_takes_the_model_of_a_rank_within_constraints(project: Path) -> None:
    for refine in (0, 3):
        found = tans.retrieve(UNSEEN, licences=["Apache-2.0", "CC0-1.0", "MIT"], refine=refine, root=project)
        run = tans.finetune(
            UNSEEN, rank=2, refine=refine, licences=["Apache-2.0", "CC0-1.0", "MIT"], epochs=1, root=project
        )
        assert run.model == found[1].model
        kept = json.loads(
            max((project / "runs").glob("*retrieve*/params.json"), key=lambda path: path.stat().st_mtime_ns).read_text()
        )
        assert kept["refine"] == refine


def test_finetuning_depends_on_its_seed_and_on_nothing_else(project: Path) -> None:
    model = tans.list_models(project)[0].id
    runs = [tans.finetune(UNSEEN, model, epochs=1, seed=seed, root=project) for seed in (3, 3, 4)]
    heads = [load_file(run.folder / "weights.safetensors")["classifier.weight"] for run in runs]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


def test_finetuning_a_folder_keeps_its_scan_report(project: Path, photos: Path) -> None:
    run = tans.finetune(photos, epochs=1, root=project)
    assert (run.folder / "scan.json").is_file()
    assert (run.folder / "weights.safetensors").is_file()


def test_service_answers_many_requests_from_one_release(project: Path) -> None:
    service = tans.Service.open(project)
    first, second = (service.retrieve(UNSEEN, RetrieveOptions(top_k=3)) for _ in range(2))
    assert first.to_dicts() == second.to_dicts() == tans.retrieve(UNSEEN, top_k=3, root=project).to_dicts()
    run = service.finetune(UNSEEN, FinetuneOptions(model=first[0].model, epochs=1))
    assert run.release == service.release.id == first.release


@pytest.fixture
def gate_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate judges in a process of its own, as it does for users."""
    monkeypatch.setattr(query, "start_query_gate", start_query_gate)


def test_warm_service_has_a_gate_ready_for_each_folder_and_leaves_no_process(
    gate_process: None, project: Path, photos: Path
) -> None:
    with tans.Service.open(project).warm() as service:
        first, second = (service.retrieve(photos) for _ in range(2))
        children = psutil.Process().children(recursive=True)
        gates = [child for child in children if "tans_core.gates.query" in child.cmdline()]
        assert len(gates) == 1
    assert first.to_dicts() == second.to_dicts()
    assert not psutil.wait_procs(gates, timeout=10)[1]


def test_warm_service_keeps_a_gate_that_a_task_did_not_need(gate_process: None, project: Path) -> None:
    with tans.Service.open(project).warm() as service:
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        service.retrieve(UNSEEN)
        assert {child.pid for child in psutil.Process().children(recursive=True)} == before


@pytest.mark.parametrize(("function", "options"), [(tans.retrieve, RetrieveOptions), (tans.finetune, FinetuneOptions)])
def test_signature_and_help_of_a_function_are_those_of_its_options(function: Any, options: type[Options]) -> None:
    parameters = inspect.signature(function).parameters
    for name, field in options.model_fields.items():
        assert parameters[name].default == field.default
        assert field.description and field.description in function.__doc__


def test_tasks_and_models_are_listed(project: Path) -> None:
    assert [info.name for info in tans.list_tasks(project)] == sorted([*TASKS, UNSEEN])
    cards = tans.list_models(project)
    assert len(cards) == 4 * len(TASKS)
    assert [card.id for card in cards] == sorted(card.id for card in cards)
    assert tans.model_card(cards[3].id, project) == cards[3]


def test_publishing_the_same_again_makes_no_other_release(project: Path) -> None:
    before = tans.list_releases(project)
    assert [one["production"] for one in before] == [True]
    assert before[0]["models"] == 4 * len(TASKS)
    assert tans.publish(project) == before[0]["id"]
    assert tans.list_releases(project) == before


def test_rollback_without_an_earlier_release_is_refused(project: Path) -> None:
    with pytest.raises(errors.StoreError):
        tans.rollback(root=project)
