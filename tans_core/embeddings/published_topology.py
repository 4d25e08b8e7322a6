"""The 45 integers by which the TANS authors write down a network: 20 kernel sizes, 20 expand ratios, 5 depths.

A Once-for-All MobileNetV3 has five stages of at most four blocks; the first `depth` blocks of a stage exist, and the slots of
the others hold whatever was there. Axes: M networks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tans_core.embeddings.published_values import Problems

STAGES, BLOCKS = 5, 4
SLOTS = STAGES * BLOCKS
WIDTH = 2 * SLOTS + STAGES
KERNELS, RATIOS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)
MASKED_WIDTH = SLOTS * (len(KERNELS) + len(RATIOS)) + STAGES * len(DEPTHS)

Vectors = npt.NDArray[np.float32]


def masked_topology(raw: npt.NDArray[np.float32]) -> Vectors:
    """Return codes that are equal where networks are equal: ones for what each existing block is, zeros for skipped blocks.

    Args:
        raw: (M, 45) the integers as published.

    Returns:
        (M, 135) float32 of 0 and 1: 20 slots x kernel size 3, 5, 7; 20 slots x expand ratio 3, 4, 6; 5 stages x depth 2, 3, 4.

    Raises:
        ValueError: `raw` is not (M, 45).
    """
    if raw.ndim != 2 or raw.shape[1] != WIDTH:
        raise ValueError(f"topology: {raw.shape}, must be (M, {WIDTH})")
    kernels, ratios, depths = _parts(raw)
    active = _active(depths)[:, :, None]
    count = len(raw)
    return np.concatenate(
        [
            ((kernels[:, :, None] == KERNELS) & active).reshape(count, -1),
            ((ratios[:, :, None] == RATIOS) & active).reshape(count, -1),
            (depths[:, :, None] == DEPTHS).reshape(count, -1),
        ],
        axis=1,
    ).astype(np.float32)


def check_topology(raw: npt.NDArray[np.float32], problems: Problems) -> int:
    """Add the rows of (M, 45) whose depths, or whose existing blocks, are none of the search space.

    Returns:
        how many networks hold other numbers in slots of skipped blocks, which is no problem.
    """
    kernels, ratios, depths = _parts(raw)
    wrong_depth = ~np.isin(depths, DEPTHS)
    _add(problems, f"topol: a depth that is none of {DEPTHS}", depths, wrong_depth, 2 * SLOTS)
    active = _active(depths) & ~wrong_depth.repeat(BLOCKS, axis=1)
    odd = np.zeros(len(raw), dtype=bool)
    for what, values, known, start in (("kernel size", kernels, KERNELS, 0), ("expand ratio", ratios, RATIOS, SLOTS)):
        unknown = ~np.isin(values, known)
        _add(problems, f"topol: a block's {what} that is none of {known}", values, unknown & active, start)
        odd |= (unknown & ~active).any(1)
    return int(odd.sum())


def _parts(raw: npt.NDArray[np.float32]) -> tuple[Vectors, Vectors, Vectors]:
    return raw[:, :SLOTS], raw[:, SLOTS : 2 * SLOTS], raw[:, 2 * SLOTS :]


def _active(depths: Vectors) -> npt.NDArray[np.bool_]:
    """Return (M, 20) bool: the blocks that exist."""
    found: npt.NDArray[np.bool_] = (np.arange(BLOCKS) < depths[:, :, None]).reshape(len(depths), SLOTS)
    return found


def _add(problems: Problems, what: str, values: Vectors, wrong: npt.NDArray[np.bool_], start: int) -> None:
    for row in np.flatnonzero(wrong.any(1)):
        slot = int(np.flatnonzero(wrong[row])[0])
        problems.add(what, f"row {row} slot {start + slot} ({values[row, slot]:g})")
