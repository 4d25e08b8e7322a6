"""Families of networks that other packages provide."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tans_core.networks.registry import get_family

TINY = """
from torch import nn
from tans_core.errors import ParamsError, WeightsError
from tans_core.networks.family import Family, Network

class Tiny(Network):
    def __init__(self, width, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.classifier = nn.Linear(width, num_classes)

    def features(self, images):
        return self.stem(images).mean(dim=(2, 3))

class TinyFamily(Family):
    name = "tiny"

    def space(self, settings):
        raise ParamsError(f"a network of one size has no settings, got {sorted(settings)}")

    def build(self, architecture, num_classes):
        if set(architecture) != {"width"}:
            raise WeightsError(f"architecture: got {sorted(architecture)}, want width")
        return Tiny(architecture["width"], num_classes)

FAMILY = TinyFamily()
"""
"""A family of networks of one convolution."""


@contextmanager
def installed_family(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, name: str = "tiny", attribute: str = "FAMILY"
) -> Iterator[None]:
    """Install a package with one module, and one entry point to a family of this name."""
    module = f"brought_{name.replace('-', '_')}"
    described = folder / f"{module}-1.0.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(f"[tans.families]\n{name} = {module}:{attribute}\n")
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    get_family.cache_clear()
    try:
        yield
    finally:
        get_family.cache_clear()
        sys.modules.pop(module, None)
