"""Exports answer as the network does."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tans_core.errors import DataError, ParamsError, WeightsError
from tans_core.networks.preprocess import Preprocess, normalise
from tans_core.networks.registry import get_family
from tans_core.use.export import Exported, Graph, export
from tans_core.use.model import TunedModel
from tests.factories.runs import CLASSES, Run, make_run


@pytest.fixture(scope="module")
def model(run: Run) -> TunedModel:
    return TunedModel.load(run.folder)


@pytest.fixture(scope="module")
def of_onnx(model: TunedModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnxruntime", reason="tans[export] is not installed")
    return export(model, "onnx", tmp_path_factory.mktemp("onnx") / "model.onnx")


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


def test_onnx_answers_any_batch_of_raw_images(model: TunedModel, of_onnx: Exported) -> None:
    import onnxruntime

    assert small(of_onnx)
    session = onnxruntime.InferenceSession(of_onnx.path, providers=["CPUExecutionProvider"])
    (put,) = session.get_inputs()
    assert (put.name, put.type, put.shape[1:]) == ("images", "tensor(uint8)", [3, 16, 16])
    assert [one.name for one in session.get_outputs()] == ["logits", "probabilities"]
    raw = np.random.default_rng(0).integers(0, 256, (33, 3, 16, 16), dtype=np.uint8)
    for images in (raw, raw[:1]):
        probabilities = session.run(["probabilities"], {"images": images})[0]
        np.testing.assert_allclose(probabilities, model.probabilities(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_program_of_the_docs_answers_as_tans_does(
    model: TunedModel, of_onnx: Exported, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    docs = (Path(__file__).parents[3] / "docs/use.md").read_text()
    (program,) = [block for block in re.findall(r"```python\n(.*?)```", docs, re.DOTALL) if "onnxruntime" in block]
    sides = {path: Image.open(path).size for path in sorted(pictures.rglob("*.png"))}
    files = [path for path, size in sides.items() if max(size) <= 1.5 * min(size)]
    assert len(files) > 9
    monkeypatch.chdir(of_onnx.path.parent)
    monkeypatch.setattr(sys, "argv", ["program.py", *map(str, files)])
    exec(compile(program, "program.py", "exec"), {})
    said = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    for path in files:
        (one,) = model.predict(path)
        # A reduction to a whole fraction differs by one grey level.
        assert said[str(path)][0] == one.label or one.probability < 0.4
        assert float(said[str(path)][1]) == pytest.approx(one.probability, abs=0.02)


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
    with pytest.raises(WeightsError, match=r"logits differ by 0\.01, want at most 0\.0\d+ \(batch of 1\)"):
        export(model, "torch", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_network_of_ours_loads_with_tans(model: TunedModel, run: Run, tmp_path: Path) -> None:
    for _ in range(2):  # an earlier export is replaced
        written = export(model, "hf", tmp_path / "hub")
    again = TunedModel.load(written.path)
    samples = run.folder / "samples"
    assert np.array_equal(again.predict(samples).probabilities, model.predict(samples).probabilities)
    assert written.content["id2label"] == {"0": "ash", "1": "elm", "2": "oak"}
    assert sorted(path.name for path in written.path.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "predict.json")
    ]


@pytest.fixture(scope="module")
def of_timm(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> TunedModel:
    """A network of timm, tuned in two steps."""
    architecture = {"package": "timm", "name": "test_resnet"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = get_family("library").build(architecture, len(CLASSES))
    preprocess = Preprocess(image_size_px=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), crop=0.9)
    of = {"family": "library", "architecture": architecture, "preprocess": preprocess}
    return TunedModel.load(make_run(tmp_path_factory.mktemp("timm") / "run", pictures, 2, network, **of).folder)


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
    assert (list(loaded.pretrained_cfg["input_size"]), loaded.pretrained_cfg["crop_pct"]) == ([3, 32, 32], 0.9)
    readme = (written.path / "README.md").read_text()
    assert readme.startswith("---\n") and "library_name: timm" in readme and "local-dir:FOLDER" in readme


def test_what_cannot_be_exported_is_said(model: TunedModel, run: Run, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="format: got 'tflite', want one of onnx, torch, hf"):
        export(model, "tflite")
    with pytest.raises(ParamsError, match="exists, and is no folder of an export"):
        export(model, "hf", tmp_path)
    with pytest.raises(ParamsError, match=r"a folder\. Want the name of a file"):
        export(model, "torch", tmp_path)
    assert tmp_path.is_dir()
    folder = shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("samples"))
    with pytest.raises(DataError, match="samples: no such file or folder"):
        export(TunedModel.load(folder), "torch")
