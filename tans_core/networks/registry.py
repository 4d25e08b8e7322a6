"""The families of networks by name: ours, and those of installed packages."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError, TansError, WeightsError, did_you_mean
from tans_core.networks.family import Family

GROUP = "tans.families"
"""Entry points of this group name instances of `Family`."""

_OWN = {
    "elastic-residual": "tans_core.networks.elastic:FAMILY",
    "elastic-mbconv": "tans_core.networks.mbconv:FAMILY",
    "once-for-all": "tans_core.networks.ofa:FAMILY",
    "library": "tans_core.networks.packaged:FAMILY",
}


@cache
def get_family(name: str) -> Family:
    """Return a family by its name in cards and params.yaml.

    Raises:
        WeightsError: there is none, or the package with it cannot be loaded.
    """
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        own_family: Family = getattr(importlib.import_module(module), attribute)
        return own_family
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        known = known_families()
        raise WeightsError(
            f"family {name[:80]!r}: no such family{did_you_mean(name, known)}. Known: {', '.join(known)}.\n"
            f"  Install the package that provides it (entry points of the group {GROUP})."
        )
    try:
        family = points[0].load()
    except Exception as error:  # a package from outside may fail in any way
        raise WeightsError(
            f"family {name!r}: {points[0].value} cannot be loaded ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(family, Family) or family.name != name:
        raise WeightsError(f"family {name!r}: {points[0].value} is not a Family of this name.")
    return family


def known_families() -> list[str]:
    """Return the names of all families, ours first."""
    return list(dict.fromkeys([*_OWN, *sorted(point.name for point in entry_points(group=GROUP))]))


def family_of_package(package: str) -> Family:
    """Return the family that takes a package's networks by name.

    Raises:
        WeightsError: there is none.
    """
    packages: list[str] = []
    for name in known_families():
        with contextlib.suppress(WeightsError):
            family = get_family(name)
            if package in family.packages:
                return family
            packages += family.packages
    raise WeightsError(f"package {package[:80]!r}: no family takes its networks by name. Known: {', '.join(packages)}.")


def network_files() -> list[str]:
    """Return the source files that define what networks compute: this package's, and those of third-party families."""
    files = [str(path) for path in Path(__file__).parent.glob("*.py")]
    for name in set(known_families()) - set(_OWN):
        with contextlib.suppress(WeightsError):  # a family that cannot be loaded computes nothing
            files.append(inspect.getfile(type(get_family(name))))
    return sorted(files)


def check_settings(
    networks: Mapping[str, Mapping[str, Any]], stored_size_px: int, fine_tuned: Iterable[str] = ()
) -> None:
    """Check the section `networks` of params.yaml: the names of families, and the settings of each.

    Args:
        networks: settings by family.
        stored_size_px: `data.stored_size_px`, the maximum input size of a family's networks.
        fine_tuned: families in `finetune.families`; newcomers may be of families that the zoo is not built from.

    Raises:
        ParamsError: a family is unknown, or its settings are wrong; lists all problems.
    """
    known = known_families()
    problems = [
        f"finetune.families: {name}: no such family{did_you_mean(name, known)}"
        for name in fine_tuned
        if name not in known
    ]
    for name, settings in networks.items():
        try:
            family = get_family(name)
            space = family.space(settings)
            size = max(space.image_size_px, *family.sizes_px(space))
        except TansError as error:
            problems.append(f"networks.{name}: {error}")
            continue
        except Exception as error:  # a family from outside may fail in any way
            problems.append(f"networks.{name}: {type(error).__name__}: {error}")
            continue
        if size > stored_size_px:
            problems.append(
                f"networks.{name}: reads images of {size} pixels, data.stored_size_px is {stored_size_px}. "
                "Raise data.stored_size_px."
            )
    if problems:
        raise ParamsError("params.yaml:\n  " + "\n  ".join(problems))
