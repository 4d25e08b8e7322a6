from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.embeddings.query import Backbone, embed_tasks, load_backbone, query_features
from tans_core.errors import ParamsError, TooFewImagesError, WeightsError
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family
from tans_core.tasks.task import Task, write_task
from tans_core.zoo.base import save_base
from tans_core.zoo.build import Zoo
from tests.factories.families import TINY, installed_family
from tests.factories.networks import tiny_network, tiny_space
from tests.factories.tasks import grating_task

PLAIN = Preprocess(image_size_px=16, mean=(0, 0, 0), std=(1, 1, 1))
PIXELS = Backbone("pixels", lambda images: images.mean(dim=(2, 3)), PLAIN)


def shuffled(task: Task) -> Task:
    order = np.random.default_rng(1).permutation(len(task.labels))
    return replace(task, images=task.images.take(order), labels=task.labels[order], splits=task.splits[order])


def test_each_class_gives_the_same_number_of_training_images() -> None:
    task = grating_task(classes=3, train=60)
    features, labels = query_features(task, PIXELS, images_per_class=7)
    assert features.shape == (21, 3)
    assert labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    means = task.pixels(16, split="train").mean(axis=(2, 3)) / 255
    assert all(np.abs(means - row).max(axis=1).min() < 1e-3 for row in features)


def test_features_do_not_depend_on_the_order_of_the_images() -> None:
    task = grating_task()
    first, second = (query_features(one, PIXELS, 5) for one in (task, shuffled(task)))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_empty_split_is_refused() -> None:
    with pytest.raises(TooFewImagesError, match="gratings"):
        query_features(grating_task(train=0), PIXELS, 5)


def test_base_backbone_answers_with_the_penultimate_features(tmp_path: Path) -> None:
    settings = tiny_space().model_dump(mode="json")
    save_base(
        tmp_path,
        {"elastic-residual": Zoo(tiny_space().supernet(2), [], {})},
        {"elastic-residual": settings},
        (),
        "fp32",
    )
    features, _ = query_features(grating_task(), load_backbone("base", tmp_path), 4)
    assert features.shape == (12, tiny_network().feature_dim)
    assert np.isfinite(features).all()


def test_unknown_backbone_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="resnet18"):
        load_backbone("resnet81", tmp_path)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_torchvision_backbone_reads_weights_from_the_cache_and_drops_the_classifier(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no test downloads, wherever it runs
    weights = models.get_model_weights(name).DEFAULT
    cached = tmp_path / "hub/checkpoints" / Path(weights.url).name
    with pytest.raises(WeightsError, match=str(cached.parent)):
        load_backbone(name, tmp_path)
    if name == "vit_b_16":
        return  # 350 MB of random weights prove nothing more
    cached.parent.mkdir(parents=True, exist_ok=True)
    torch.save(models.get_model(name, weights=None).state_dict(), cached)
    # The file's name ends with the start of its published hash, which torch checks on download alone.
    features, _ = query_features(grating_task(), load_backbone(name, tmp_path), 1)
    assert features.shape == (3, {"resnet18": 512, "mobilenet_v3_small": 1024}[name])


def test_tasks_are_embedded_split_by_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_task(grating_task(name), tmp_path / name)
    rows = embed_tasks([tmp_path / "a", tmp_path / "b"], PIXELS, images_per_class=4)
    assert len(rows.features) == 2 * 2 * 3 * 4
    assert rows.of("b").shape == (24, 3)
    assert set(rows.splits) == {"train", "val"}


def test_a_task_is_embedded_once_until_its_images_the_backbone_or_the_code_of_networks_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def count(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return images.mean(dim=(2, 3))

    write_task(grating_task("a"), tmp_path / "a")
    backbone = Backbone("counting", count, PLAIN, "one")
    first = embed_tasks([tmp_path / "a"], backbone, 4, tmp_path / "done")
    seen = len(calls)
    again = embed_tasks([tmp_path / "a"], backbone, 4, tmp_path / "done")
    assert len(calls) == seen > 0
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_array_equal(first.labels, again.labels)
    next((tmp_path / "done").glob("*.npz")).write_bytes(b"torn")
    embed_tasks([tmp_path / "a"], backbone, 4, tmp_path / "done")
    assert len(calls) == seen + 1
    embed_tasks([tmp_path / "a"], replace(backbone, digest="two"), 4, tmp_path / "done")
    assert len(calls) == seen + 3
    write_task(grating_task("a", classes=2), tmp_path / "a")
    embed_tasks([tmp_path / "a"], backbone, 4, tmp_path / "done")
    assert len(calls) == seen + 5
    with installed_family(tmp_path / "site", monkeypatch, TINY):
        embed_tasks([tmp_path / "a"], backbone, 4, tmp_path / "done")
    assert len(calls) == seen + 7


def test_published_network_that_a_base_started_from_embeds_queries(tmp_path: Path) -> None:
    family = "elastic-mbconv"
    settings = {
        "image_size_px": 32,
        "weights": "efficientnet-lite0",
        "kernels": [3],
        "expansions": [6],
        "min_depth": 1,
    }
    space = get_family(family).space(settings)
    save_base(tmp_path, {family: Zoo(space.supernet(2), [], {})}, {family: settings}, (), "fp32")
    backbone = load_backbone("efficientnet-lite0", tmp_path)
    features, _ = query_features(grating_task(), backbone, 4)
    whole = space.supernet(2)
    get_family(family).start(space, whole)
    images = backbone.preprocess.chosen(grating_task(), [0, 1])
    with torch.no_grad():
        torch.testing.assert_close(backbone.features(images), whole.eval().features(images))
    assert features.shape == (12, 1280) and backbone.preprocess.image_size_px == 32
