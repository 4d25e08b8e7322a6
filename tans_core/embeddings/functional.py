"""The functional embedding: what a network answers to fixed Gaussian noise, as a vector of fixed size.

Axes: P noise probes, D feature width, E = `functional_dim(P, dim)`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tans_core.errors import WeightsError
from tans_core.runtime import derive_seed


class NoiseProbe:
    """Embeds networks by their penultimate answers (P, D) to the same noise images.

    Two forms, concatenated. Both have a fixed size whatever D is:

    - projected: all P x D answers through a random matrix of a stored seed (it keeps distances); networks of one width are
      compared channel by channel;
    - Gram: the upper triangle of the P x P matrix of cosines between centred answers; it compares networks of any width and
      does not change when channels are permuted or rotated.

    TANS feeds one noise image and keeps the answer itself, which needs every network to have the same width.
    """

    def __init__(self, probes: int, dim: int, seed: int, image_size_px: int) -> None:
        self.probes, self.dim, self.seed = probes, dim, seed
        generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
        self.images = torch.randn(probes, 3, image_size_px, image_size_px, generator=generator)
        self._matrices: dict[int, Tensor] = {}

    @torch.no_grad()
    def embed(self, network: nn.Module) -> npt.NDArray[np.float32]:
        """Return the (E,) float32 embedding of a network in eval mode.

        Raises:
            WeightsError: the network answers with NaN or infinity.
        """
        device = next(network.parameters()).device
        answers: Tensor = network.features(self.images.to(device)).float().cpu()  # type: ignore[operator]
        if not torch.isfinite(answers).all():
            raise WeightsError("the network answers noise with NaN or infinity: its weights are damaged.")
        centred = torch.nn.functional.normalize(answers - answers.mean(dim=0), dim=1)  # (P, D)
        rows, columns = torch.triu_indices(self.probes, self.probes, offset=1)
        gram = (centred @ centred.T)[rows, columns]  # (P (P - 1) / 2,)
        projected = answers.flatten() @ self._matrix(answers.shape[1])  # (P D,) -> (dim,)
        return torch.cat([projected, gram]).numpy()

    def _matrix(self, width: int) -> Tensor:
        if width not in self._matrices:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "projection", width))
            rows = self.probes * width
            self._matrices[width] = torch.randn(rows, self.dim, generator=generator) / self.dim**0.5
        return self._matrices[width]


def functional_dim(probes: int, dim: int) -> int:
    """E, the size of a functional embedding."""
    return dim + probes * (probes - 1) // 2
