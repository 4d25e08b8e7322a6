"""A fine-tuned network with its preprocessing, read from the folder of its run and from nothing else.

Axes: B images, K classes, 3 channels (RGB), S = side of the input in pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tans_core.errors import ParamsError, WeightsError, problems
from tans_core.io import read_json
from tans_core.networks.family import Network, load_state
from tans_core.networks.preprocess import Preprocess, normalise
from tans_core.networks.registry import get_family
from tans_core.runtime import device
from tans_core.use.predictions import Predictions
from tans_core.zoo.weights import load_tensors

USE_FILE = "predict.json"
WEIGHTS_FILE = "weights.safetensors"
IMAGES_FILE = "images.csv"
HUB_WEIGHTS_FILE = "model.safetensors"
SAMPLES = "samples"


class UseCard(BaseModel):
    """`predict.json`: with the weights beside it, all that is needed to predict.

    Attributes:
        family, architecture: of the network, as on its card.
        class_names: K names in the order of the logits.
        preprocess: how its input images are prepared, with the statistics that it was tuned with.
        stored_size_px: images are first reduced to squares of at most this side, as for the training.
        temperature: logits are divided by it before the softmax.
        model: the network of the zoo that it started from.
        task: the data set.
        val_accuracy, test_accuracy: as reported by the fine-tuning, 0..1.
        licence: an SPDX expression, of the weights and of everything that they descend from.
    """

    # Fields of newer versions are kept.
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    version: int = 1
    family: str
    architecture: dict[str, Any]
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    preprocess: Preprocess
    stored_size_px: Annotated[int, Field(ge=8)]
    temperature: Annotated[float, Field(gt=0)]
    model: str
    task: str
    val_accuracy: float
    test_accuracy: float
    licence: str


class TunedModel(nn.Module):
    """A fine-tuned network: maps images to logits; the normalisation is inside.

    Attributes:
        card: the content of `predict.json`.
        network: maps normalised images (B, 3, S, S) float32 to logits (B, K).
        folder: of the run.
    """

    def __init__(self, network: Network, card: UseCard, folder: Path) -> None:
        super().__init__()
        self.network, self.card, self.folder = network, card, folder
        self.eval()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a run.

        Raises:
            WeightsError: the folder is no run of a fine-tuning, or its files are damaged or do not match.
        """
        path = folder / USE_FILE
        if not path.is_file():
            raise WeightsError(
                f"{path}: no such file. Want the folder of a run of `tans finetune`, such as runs/2026-11-30T…; runs "
                "of earlier versions lack this file: fine-tune again."
            )
        try:
            card = UseCard.model_validate_json(json.dumps(read_json(path)))
        except ValidationError as error:
            raise WeightsError(f"{path}: {'; '.join(problems(error, UseCard))}.") from error
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"{path}: not readable as JSON ({error}). Fine-tune again, or export again.") from error
        weights = folder / WEIGHTS_FILE
        if not weights.is_file() and (folder / HUB_WEIGHTS_FILE).is_file():  # as `tans export --format hf` writes it
            weights = folder / HUB_WEIGHTS_FILE
        with torch.random.fork_rng(devices=[]):  # a network is built with random weights
            network = get_family(card.family).build(card.architecture, len(card.class_names))
        # Not `Family.load`, which also takes a part of larger weights: these are the network's own.
        load_state(network, load_tensors(weights), str(weights))
        return cls(network, card, folder).to(device())

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names in the order of the logits."""
        return self.card.class_names

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def preprocess(self) -> Preprocess:
        return self.card.preprocess

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) float32.

        Args:
            images: (B, 3, S, S) uint8, RGB, on the model's device. `prepare` makes one from a picture.

        Raises:
            ParamsError: they are of another size, or not uint8.
        """
        side = self.preprocess.image_size_px
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != (3, side, side):
            raise ParamsError(
                f"images: got {tuple(images.shape)} {images.dtype}, want (B, 3, {side}, {side}) torch.uint8: RGB in "
                "0..255, not normalised. `prepare` makes such an image from a picture of any size."
            )
        logits: Tensor = self.network(normalise(images, self.preprocess.mean, self.preprocess.std))
        return logits

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return calibrated probabilities (B, K) of images as for `forward`; rows sum to 1."""
        return torch.softmax(self(images) / self.card.temperature, dim=1)

    def prepare(self, picture: Image.Image | bytes) -> Tensor:
        """Return a picture as the network sees it: (3, S, S) uint8, on the CPU.

        Args:
            picture: the bytes of an image file, or a Pillow image, upright and of any size.

        Raises:
            DataError: the bytes are no readable image.
        """
        from tans_core.use.predict import prepare

        return prepare(picture, self.card.stored_size_px, self.preprocess)

    def predict(self, images: str | Path, split: str | None = None) -> Predictions:
        """Predict the classes of images on disk; see `tans_core.use.predict.predict`."""
        from tans_core.use.predict import predict

        return predict(self, Path(images), split)
