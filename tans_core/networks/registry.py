"""The families of networks by name: ours, and those that installed packages bring."""

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

LIBRARY = "library"
"""The family of networks that others wrote; their files of weights can be handed in by name."""
GROUP = "tans.families"
"""Entry points of this group name instances of `Family`."""

_OWN = {
    "elastic-residual": "tans_core.networks.elastic:FAMILY",
    "elastic-mbconv": "tans_core.networks.mbconv:FAMILY",
    "once-for-all": "tans_core.networks.ofa:FAMILY",
    LIBRARY: "tans_core.networks.packaged:FAMILY",
}


@cache
def get_family(name: str) -> Family:
    """Return a family by the name that cards and params.yaml use.

    Raises:
        WeightsError: there is none, or the package that brings it cannot be loaded.
    """
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        own: Family = getattr(importlib.import_module(module), attribute)
        return own
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = known_families()
        raise WeightsError(
            f"family {name[:80]!r}: no such family{did_you_mean(name, known)}. Known: {', '.join(known)}.\n"
            f"  Install the package that brings it (entry points of the group {GROUP})."
        )
    try:
        family = found[0].load()
    except Exception as error:  # a package from outside may fail in any way
        raise WeightsError(
            f"family {name!r}: {found[0].value} cannot be loaded ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(family, Family) or family.name != name:
        raise WeightsError(f"family {name!r}: {found[0].value} is not a Family of this name.")
    return family


def known_families() -> list[str]:
    """Return the names of all families, ours first."""
    return list(dict.fromkeys([*_OWN, *sorted(point.name for point in entry_points(group=GROUP))]))


def network_files() -> list[str]:
    """Return the files of this package, and of families that other packages bring: what networks compute is theirs."""
    own = [str(path) for path in Path(__file__).parent.glob("*.py")]
    for name in set(known_families()) - set(_OWN):
        with contextlib.suppress(WeightsError):  # what cannot be loaded computes nothing
            own.append(inspect.getfile(type(get_family(name))))
    return sorted(own)


def check_settings(
    networks: Mapping[str, Mapping[str, Any]], stored_size_px: int, fine_tuned: Iterable[str] = ()
) -> None:
    """Check the section `networks` of params.yaml: families by name, and each one's own settings.

    Args:
        networks: settings by family.
        stored_size_px: `data.stored_size_px`, which no family's input may exceed.
        fine_tuned: families that `finetune.families` names; a newcomer may be of one that no zoo is built of.

    Raises:
        ParamsError: a family is unknown, or some of its settings are wrong; all of them are listed.
    """
    known = known_families()
    problems = [
        f"finetune.families: {name}: no such family{did_you_mean(name, known)}"
        for name in fine_tuned
        if name not in known
    ]
    for name, settings in networks.items():
        try:
            size = get_family(name).space(settings).image_size_px
        except TansError as error:
            problems.append(f"networks.{name}: {error}")
            continue
        except Exception as error:  # a family from outside may fail in any way
            problems.append(f"networks.{name}: {type(error).__name__}: {error}")
            continue
        if size > stored_size_px:
            problems.append(
                f"networks.{name}: reads images of {size} pixels, and data.stored_size_px keeps {stored_size_px}. "
                "Raise the latter."
            )
    if problems:
        raise ParamsError("params.yaml:\n  " + "\n  ".join(problems))
