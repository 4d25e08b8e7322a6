"""Upper bounds of many cosines from one byte a number: a quarter of the memory to read, and no answer changes."""

from __future__ import annotations

import torch

_STEPS = 127


class Coarse:
    """Rounded copies of unit vectors. Axes: M rows, d width."""

    def __init__(self, vectors: torch.Tensor) -> None:
        """Round (M, d) float32 vectors."""
        self._step = float(vectors.abs().max()) / _STEPS or 1.0
        self._rounded = torch.empty(vectors.shape, dtype=torch.int8)
        self._lost = 0.0
        for begin in range(0, len(vectors), 65536):
            part = vectors[begin : begin + 65536]
            rounded = torch.round(part / self._step)
            self._rounded[begin : begin + len(part)] = rounded.to(torch.int8)
            self._lost = max(self._lost, float((part - rounded * self._step).norm(dim=1).max()))

    def bounds(self, query: torch.Tensor, begin: int, end: int) -> torch.Tensor:
        """Return numbers that the cosines of a unit query (d,) with some rows do not exceed, (end - begin,) float32."""
        step = float(query.abs().max()) / _STEPS
        rounded = torch.round(query / step)
        # v.q = v'.q' + v.(q - q') + (v - v').q', and |v.(q - q')| is at most |q - q'|, since |v| is 1.
        lost = float((query - rounded * step).norm()) * 1.001 + self._lost * float(rounded.norm()) * step
        products = torch._int_mm(self._rounded[begin:end], rounded.to(torch.int8)[:, None])
        return products[:, 0].to(torch.float32).mul_(self._step * step).add_(lost)
