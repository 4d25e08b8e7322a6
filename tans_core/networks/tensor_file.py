"""Reads third-party tensor files: safetensors, or `torch.save` of tensors only. Nothing in them is executed."""

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

    Training scripts may nest them under a key such as `state_dict`, and multi-device training prefixes names with
    `module.`; both are removed.

    Raises:
        WeightsError: it is missing, too large, or contains anything else.
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
            warnings.simplefilter("ignore")  # about formats that it then refuses
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # any other file may fail in any way
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise WeightsError(f"{path}: not a state_dict that torch.save or safetensors wrote ({reason[:80]}).") from error
    for name in ("state_dict", "model", "state_dict_ema"):
        if isinstance(contents, Mapping) and isinstance(contents.get(name), Mapping):
            contents = contents[name]
    if not isinstance(contents, Mapping) or not all(isinstance(value, Tensor) for value in contents.values()):
        raise WeightsError(f"{path}: want a dict of tensors, got {type(contents).__name__} with other values.")
    return {str(name).removeprefix("module."): value for name, value in contents.items()}
