"""The families of networks by name: ours, and those of installed packages."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError, TansError, WeightsError, did_you_mean
from tans_core.io import code_digest, sha256_bytes, sha256_file, write_text, writing
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
    points = _points(name)
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
    own = [str(path) for path in Path(__file__).parent.glob("*.py")]
    return sorted({*own, *(file for name in known_families() for file in _files_of(name))})


def network_digest() -> str:
    """Return a hash of the code that computes networks: what was computed by other code is out of date."""
    return code_digest(network_files())


def write_versions(families: Iterable[str], folder: Path) -> None:
    """List the third-party families among these in a file, with the versions of their packages and a hash of the code.

    Stages depend on the folder, since DVC does not see installed packages. There is no file if there is no such family.
    """
    lines = []
    for name in sorted(set(families)):
        if files := _files_of(name):
            dist = _points(name)[0].dist
            code = sha256_bytes("".join(sha256_file(Path(file)) for file in files).encode())
            lines.append(f"{name}: {f'{dist.name} {dist.version}' if dist else 'no package'}, code {code}\n")
    path, text = folder / "versions.txt", "".join(lines)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not text:
        path.unlink(missing_ok=True)
    elif not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(text, path)


def _points(name: str) -> list[EntryPoint]:
    return [] if name in _OWN else [point for point in entry_points(group=GROUP) if point.name == name]


def _files_of(name: str) -> list[str]:
    """Return the source files of the package that provides a family; none for our own, and if it cannot be loaded."""
    try:
        get_family(name)
        module = sys.modules[_points(name)[0].module]
    except (WeightsError, LookupError):
        return []
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    file = Path((top if top.__file__ else module).__file__ or "")
    # Other modules of a package may define parts of its networks.
    files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
    return sorted(str(one) for one in files if one.is_file())


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
