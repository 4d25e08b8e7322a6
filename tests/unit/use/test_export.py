"""Exports answer as the network does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.errors import DataError, ParamsError, WeightsError
from tans_core.finetuning.finetune import finetune
from tans_core.finetuning.run import write_run
from tans_core.networks.preprocess import Preprocess, normalise
from tans_core.networks.registry import LIBRARY, get_family
from tans_core.recipe import Recipe
from tans_core.use.export import Exported, Graph, export
from tans_core.use.model import TunedModel
from tans_core.use.outcome import write_outcome
from tests.factories.embeddings import card
from tests.factories.runs import CLASSES, Run
from tests.factories.tasks import grating_task


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel.load(run.folder)


def small(written: Exported) -> bool:
    parity = written.content["parity"]
    return max(parity[f"batch_{size}"]["logits"] for size in (1, 32)) <= 1e-4


def test_a_program_of_torch_answers_any_batch_of_raw_images(model: TunedModel, run: Run, tmp_path: Path) -> None:
    written = export(model, "torch", tmp_path / "net.pt2")
    assert small(written) and json.loads(written.card.read_text()) == written.content
    assert written.content["parity"]["images"] == run.task.info.counts["test"]
    assert written.content["class_names"] == list(CLASSES)
    program = torch.export.load(written.path).module()
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 16, 16), dtype=np.uint8))
    for images in (raw, raw[:1]):
        logits, probabilities = program(images)
        assert torch.allclose(logits, model(images), atol=1e-5)
        assert torch.allclose(probabilities, model.probabilities(images), atol=1e-5)


def test_onnx_answers_any_batch_of_raw_images(model: TunedModel, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="tans[export] is not installed")
    written = export(model, "onnx", tmp_path / "net.onnx")
    assert small(written)
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    (put,) = session.get_inputs()
    assert (put.name, put.type, put.shape[1:]) == ("images", "tensor(uint8)", [3, 16, 16])
    assert [one.name for one in session.get_outputs()] == ["logits", "probabilities"]
    raw = np.random.default_rng(0).integers(0, 256, (33, 3, 16, 16), dtype=np.uint8)
    for images in (raw, raw[:1]):
        probabilities = session.run(["probabilities"], {"images": images})[0]
        np.testing.assert_allclose(probabilities, model.probabilities(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_graph_computes_what_the_model_does(model: TunedModel) -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, probabilities = Graph(model)(images)
        assert torch.equal(logits, model(images))
        assert torch.equal(probabilities, model.probabilities(images))


def test_an_export_that_answers_otherwise_is_not_written(
    model: TunedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Graph.forward

    def wrong(self: Graph, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, probabilities = plain(self, images)
        return logits + 0.01, probabilities

    monkeypatch.setattr(Graph, "forward", wrong)
    with pytest.raises(WeightsError, match=r"logits differ by 0\.01, want at most 0\.0001 \(batch 1\)"):
        export(model, "torch", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_network_of_ours_loads_with_tans(model: TunedModel, run: Run, tmp_path: Path) -> None:
    written = export(model, "hf", tmp_path / "hub")
    again = TunedModel.load(written.path)
    samples = run.folder / "samples"
    assert np.array_equal(again.predict(samples).probabilities, model.predict(samples).probabilities)
    assert written.content["id2label"] == {"0": "ash", "1": "elm", "2": "oak"}
    assert sorted(path.name for path in written.path.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "predict.json")
    ]


@pytest.fixture(scope="module")
def of_timm(tmp_path_factory: pytest.TempPathFactory) -> TunedModel:
    """A network of timm, tuned in two steps."""
    task, architecture = grating_task(size=32), {"package": "timm", "name": "test_resnet"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_family(LIBRARY).build(architecture, task.info.num_classes)
    preprocess = Preprocess(image_size_px=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), crop=0.9)
    home = card("timm.1", "elsewhere", family=LIBRARY, architecture=architecture).model_copy(
        update={"preprocess": preprocess}
    )
    result = finetune(network, task, preprocess, Recipe(lr=0.01), steps=2, batch_size=8, seed=0, eval_points=1)
    folder = tmp_path_factory.mktemp("timm") / "run"
    folder.mkdir()
    write_outcome(folder, network, result, task, home)
    write_run(folder, result=result, task=task, card=home, settings={"seed": 0})
    return TunedModel.load(folder)


def test_folder_of_a_library_network_loads_with_the_library(of_timm: TunedModel, tmp_path: Path) -> None:
    import timm

    written = export(of_timm, "hf", tmp_path / "hub")
    assert small(written)
    loaded = timm.create_model(f"local-dir:{written.path}", pretrained=True).eval()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = loaded(normalise(images, loaded.pretrained_cfg["mean"], loaded.pretrained_cfg["std"]))
        assert torch.allclose(logits, of_timm(images), atol=1e-5)
    assert loaded.pretrained_cfg["label_names"] == list(of_timm.class_names)
    assert (loaded.pretrained_cfg["input_size"], loaded.pretrained_cfg["crop_pct"]) == ([3, 32, 32], 0.9)
    readme = (written.path / "README.md").read_text()
    assert readme.startswith("---\n") and "library_name: timm" in readme and "local-dir:FOLDER" in readme


def test_what_cannot_be_exported_is_said(model: TunedModel, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="format: got 'tflite', want one of onnx, torch, hf"):
        export(model, "tflite")
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("samples"))
    with pytest.raises(DataError, match="samples: no such file or folder"):
        export(TunedModel.load(folder), "torch")
