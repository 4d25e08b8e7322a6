"""Every error that a user can act on, with the exit code that `tans` and the DVC stages end with.

    TansError               1  a bug, or an error without a class of its own
    ├── ParamsError         2  params.yaml or an argument
    │   └── DivergedError      a training whose loss is no longer finite
    ├── GateError           3  a gate refused data
    ├── DataError           4  images, folders, sources
    │   ├── ArchiveError
    │   ├── EmptyClassError
    │   ├── TooFewImagesError
    │   ├── NoClassesError
    │   ├── TooManyBadFilesError
    │   ├── UnknownTaskError
    │   └── SourceUnavailableError
    ├── NoModelFitsError    5  constraints that no model satisfies
    ├── StoreError          6  LanceDB tables, digests, releases
    │   ├── NoReleaseError
    │   ├── WithdrawnReleaseError
    │   └── RefusedReleaseError
    └── WeightsError        7  safetensors, cards, backbones

A message contains what happened, where, what was got against what was wanted, and the next command.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

_SHOWN = 80
"""Characters of a wrong value that a message shows."""


class TansError(Exception):
    """Base of every error that TANS raises on purpose; shown without a stack trace."""

    exit_code = 1


class ParamsError(TansError):
    """params.yaml or an argument has an invalid value."""

    exit_code = 2


class DivergedError(ParamsError):
    """A training's loss is no longer finite; `curve` has the points before (`FinetuneResult.curve`)."""

    def __init__(self, message: str, curve: Sequence[dict[str, float]] = ()) -> None:
        super().__init__(message)
        self.curve = list(curve)


class GateError(TansError):
    """A gate refused data; `failures` lists what, where, how many, and examples."""

    exit_code = 3

    def __init__(self, message: str, failures: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class DataError(TansError):
    """A data set cannot be read, or cannot be used as it is."""

    exit_code = 4


class ArchiveError(DataError):
    """An archive is refused: names that lead outside, encryption, damage, or too much memory or time."""


class EmptyClassError(DataError):
    """A class has no readable image."""


class TooFewImagesError(DataError):
    """A class, or a whole data set, has fewer images than the minimum."""


class NoClassesError(DataError):
    """A folder has no class folders, or only one."""


class TooManyBadFilesError(DataError):
    """The share of unreadable files is above the maximum."""


class UnknownTaskError(DataError):
    """A name is neither a task nor a path."""


class SourceUnavailableError(DataError):
    """A source's package or files are not on this machine."""


class NoModelFitsError(TansError):
    """No model in the index satisfies the constraints."""

    exit_code = 5


class StoreError(TansError):
    """A LanceDB table, a digest or a release is missing, stale or malformed."""

    exit_code = 6


class NoReleaseError(StoreError):
    """Nothing has been published yet."""


class WithdrawnReleaseError(StoreError):
    """A release was rolled back, and has not been requested since."""


class RefusedReleaseError(StoreError):
    """What is built was compared with the release in production, and may not replace it."""


class WeightsError(TansError):
    """Weights or a card cannot be loaded, or do not match each other."""

    exit_code = 7


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(wanted, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def problems(error: ValidationError, model: type[BaseModel], within: Sequence[str] = ()) -> list[str]:
    """Return a line for each problem that pydantic found: where, what was got, what is wanted.

    Args:
        error: from validation by the model.
        model: its keys are suggested for an unknown one.
        within: the keys that lead to the validated part, for messages.
    """
    lines = []
    for detail in error.errors():
        where = ".".join(map(str, (*within, *detail["loc"])))
        text = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            *parents, key = detail["loc"]
            known = _keys_at(model, parents)
            hint = did_you_mean(str(key), known) or (f"; want one of {', '.join(known)}" if known else "")
            lines.append(f"{where}: unknown key{hint}")
        elif detail["type"] == "missing":
            lines.append(f"{where}: missing")
        else:
            # For an error of the whole, the value is left out: the text is enough.
            whole = detail["type"] == "value_error" and isinstance(detail["input"], Mapping)
            got = [] if whole else [f"got {repr(detail['input'])[:_SHOWN]}"]
            lines.append(": ".join([*([where] if where else []), *got, text]))
    return lines


def _keys_at(model: type[BaseModel], parents: Sequence[int | str]) -> list[str]:
    kind: Any = model
    for part in parents:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            # Entries of a mapping or a list are all of one kind.
            kind = next(iter(get_args(kind)[-1:]), None)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
