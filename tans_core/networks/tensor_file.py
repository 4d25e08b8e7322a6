"""Files of tensors that others wrote: safetensors, or what `torch.save` makes of tensors alone. Nothing in them is executed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tans_core.errors import WeightsError

MAX_BYTES = 512 * 1024 * 1024


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    Training scripts keep them under a name, and those that ran on several devices put `module.` before each; both are looked
    through.

    Raises:
        WeightsError: it is missing, too large, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. Want safetensors, or a file of tensors that torch wrote.")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path}: got {path.stat().st_size:,} bytes, want at most {MAX_BYTES:,}.")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: not readable as safetensors ({error}).") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that it refuses next
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no such file may fail in any way
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WeightsError(f"{path}: not a file of tensors alone ({said[:200]}).") from error
    for name in ("state_dict", "model", "state_dict_ema"):
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise WeightsError(f"{path}: want tensors by name, got {type(found).__name__} of other things.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}
