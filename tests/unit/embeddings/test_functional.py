import copy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from tans_core.embeddings.functional import FILE, Anchors, functional_dim
from tans_core.errors import StoreError, TooFewImagesError, WeightsError
from tans_core.networks.elastic import ElasticNetwork
from tans_core.networks.family import Network
from tans_core.networks.preprocess import normalise
from tans_core.tasks.task import Task
from tans_core.zoo.weights import save_tensors
from tests.factories.networks import PREPROCESS, tiny_network
from tests.factories.project import make_task


def network(width: int, seed: int = 0) -> ElasticNetwork:
    return tiny_network(seed=seed, widths=(8, width))


def tasks() -> list[Task]:
    return [make_task(name, "made-of-lines", "meta-train", kind) for kind, name in enumerate(("one", "two"))]


def anchors(dim: int = 32, seed: int = 0, images: int = 3) -> Anchors:
    return Anchors.of_tasks(tasks(), images, dim, seed)


@pytest.mark.parametrize("width", [16, 24, 40])
@pytest.mark.parametrize(("dim", "size"), [(32, 32 + 15), (8, 8 + 8)])
def test_embedding_has_one_size_whatever_the_penultimate_width(width: int, dim: int, size: int) -> None:
    embedding = anchors(dim).embed(network(width), PREPROCESS)
    assert embedding.shape == (functional_dim(6, dim),) == (size,)
    assert embedding.dtype == np.float32


def test_embedding_depends_on_the_weights_and_on_what_is_stored_alone() -> None:
    first = anchors().embed(network(16), PREPROCESS)
    torch.rand(3)
    np.testing.assert_array_equal(first, anchors().embed(network(16), PREPROCESS))
    assert not np.allclose(first, anchors(seed=1).embed(network(16), PREPROCESS))
    assert not np.allclose(first, anchors().embed(network(16, seed=1), PREPROCESS))


def test_embedding_leaves_the_network_as_it_was() -> None:
    plain = network(16)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    anchors().embed(plain, PREPROCESS)
    assert not plain.training
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_anchors_are_training_images_of_each_task_whatever_their_order() -> None:
    one, two = tasks()
    found = anchors().inputs.images(PREPROCESS)
    assert found.shape == (6, 3, 16, 16)
    for task, chosen in ((one, found[:3]), (two, found[3:])):
        pixels = task.pixels(16, split="train")
        train = normalise(torch.from_numpy(pixels), task.info.mean, task.info.std)
        order = sorted(range(len(train)), key=lambda i, x=pixels: sha256(x[i].tobytes()).digest())  # type: ignore[misc]
        assert torch.equal(chosen, train[order[:3]])
    backwards = one.images.take(range(len(one.images) - 1, -1, -1))
    turned = replace(one, images=backwards, splits=one.splits[::-1].copy())
    assert torch.equal(Anchors.of_tasks([turned, two], 3, 32, 0).inputs.images(PREPROCESS), found)


def test_a_network_is_asked_at_its_own_size_by_its_own_statistics() -> None:
    large = PREPROCESS.model_copy(update={"image_size_px": 32})
    assert anchors().inputs.images(large).shape == (6, 3, 32, 32)
    own = PREPROCESS.model_copy(update={"statistics": "own", "mean": (0.0,) * 3, "std": (1.0,) * 3})
    assert 0 <= anchors().inputs.images(own).min() < anchors().inputs.images(own).max() <= 1
    # Of those that go by the task's, their home's play no part.
    elsewhere = PREPROCESS.model_copy(update={"mean": (0.9,) * 3})
    assert torch.equal(anchors().inputs.images(elsewhere), anchors().inputs.images(PREPROCESS))


def test_digest_tells_anchors_apart() -> None:
    assert anchors().digest() == anchors().digest()
    others = [anchors(dim=8), anchors(seed=1), anchors(images=2), Anchors.of_noise(6, 32, 0)]
    assert len({one.digest() for one in [anchors(), *others]}) == 5


def test_what_was_saved_embeds_alike(tmp_path: Path) -> None:
    anchors(dim=5, seed=7).save(tmp_path)
    np.testing.assert_array_equal(
        Anchors.load(tmp_path).embed(network(16), PREPROCESS), anchors(dim=5, seed=7).embed(network(16), PREPROCESS)
    )


def test_anchors_that_are_not_there_or_not_whole_are_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"{FILE}: no such file. Run `tans build`, then `tans publish`"):
        Anchors.load(tmp_path)
    save_tensors({"images": torch.zeros(1)}, tmp_path / FILE)
    with pytest.raises(StoreError, match=r"got \['images'\], want dim, mean, pixels, seed, sides, std"):
        Anchors.load(tmp_path)


def test_a_task_of_fewer_images_than_anchors_is_named() -> None:
    with pytest.raises(TooFewImagesError, match=r"task 'one': got \d+ training images, want 500 as anchors"):
        anchors(images=500)


class _Permuted(Network):
    def __init__(self, inner: ElasticNetwork) -> None:
        super().__init__()
        self.inner, self.classifier = inner, inner.classifier

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner.features(images).flip(1)


def test_gram_form_is_the_cosines_of_centred_answers_and_ignores_the_order_of_channels() -> None:
    noise, plain = Anchors.of_noise(5, 12, 0), network(16)
    images = noise.inputs.images(PREPROCESS)
    with torch.no_grad():
        answers = copy.deepcopy(plain).train().features(images).double().numpy()
    centred = answers - answers.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    wanted = [centred[i] @ centred[j] for i in range(5) for j in range(i + 1, 5)]
    np.testing.assert_allclose(noise.embed(plain, PREPROCESS)[12:], wanted, atol=1e-4)
    np.testing.assert_allclose(noise.embed(_Permuted(plain), PREPROCESS)[12:], wanted, atol=1e-4)


def test_network_that_answers_nan_is_refused() -> None:
    broken = network(16)
    with torch.no_grad():
        broken.stem.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="NaN"):
        anchors().embed(broken, PREPROCESS)
