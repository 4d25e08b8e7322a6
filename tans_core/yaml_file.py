"""YAML as DVC reads it (1.2): both read the same file, so one dialect, and the same keys twice are refused by both."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tans_core.errors import ParamsError

MAX_BYTES = 2**24
MAX_VALUES = 300_000
"""Values of a file, with all that its aliases stand for: a few lines of them can stand for billions."""


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        ParamsError: it cannot be read, or is no YAML in UTF-8, has a key twice, or holds more than `MAX_VALUES`.
    """
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the text of a YAML file.

    Raises:
        ParamsError: it is no file, cannot be read, is too large, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        what = "a folder" if path.is_dir() else (error.strerror or type(error).__name__).lower()
        raise ParamsError(f"{path}: {what}; want a YAML file. Run from the project's folder, or pass --root.") from None
    if len(data) > MAX_BYTES:
        raise ParamsError(f"{path}: {len(data):,} bytes; a file of settings of at most {MAX_BYTES:,} is read.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}, line {line}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from None


def parse_yaml(text: str, path: Path) -> Any:
    """Return what a text holds; `path` is for messages.

    Raises:
        ParamsError: as for `read_yaml`.
    """
    try:
        value = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context).split(" with value ")[0]
        raise ParamsError(f"{path}{line}: not YAML: {problem}. Mend it there.") from None
    except (YAMLError, ValueError, OverflowError) as error:
        raise ParamsError(f"{path}: not YAML: {str(error)[:200]}") from None
    except RecursionError:
        raise ParamsError(f"{path}: not settings: lists or mappings nested deeper than can be read.") from None
    if _count(value, {}) > MAX_VALUES:
        raise ParamsError(f"{path}: its aliases (*name) stand for more than {MAX_VALUES:,} values. Write them out.")
    return value


def compose(text: str) -> Any:
    """Return the nodes of a text that can be parsed, with their places."""
    return YAML(typ="safe", pure=True).compose(text)


def flow(value: Any) -> str:
    """Return a value on one line; what would be read as another value is quoted."""
    writer = YAML(typ="safe")
    writer.default_flow_style, writer.width, writer.allow_unicode = True, 10**9, True
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    # In a list, a mapping of one key would lose its braces.
    writer.dump({"x": value}, text)
    return text.getvalue().strip().removeprefix("{x: ").removesuffix("}")


def _count(value: Any, known: dict[int, float]) -> float:
    """Return how many values there are below one, each time that it is met; no end where it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]
