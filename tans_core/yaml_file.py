"""YAML 1.2, as DVC reads it: DVC and TANS read the same file, and both refuse duplicate keys."""

from __future__ import annotations

import io
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tans_core.errors import ParamsError

MAX_BYTES = 2**24
MAX_DEPTH = 500
"""Most brackets that are open at a time. For each one, the parser goes through all that are open."""
MAX_VALUES = 300_000
"""Most values of a file once its aliases are expanded. A few lines of nested aliases can expand to billions."""


def read_yaml(path: Path) -> Any:
    """Return the values of a YAML file.

    Raises:
        ParamsError: it cannot be read, is not YAML in UTF-8, has a key twice, or has more than `MAX_VALUES` values.
    """
    return parse_yaml(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the text of a YAML file.

    Raises:
        ParamsError: it is not a file, cannot be read, is too large, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        problem = "a folder" if path.is_dir() else (error.strerror or type(error).__name__).lower()
        raise ParamsError(
            f"{path}: {problem}; want a YAML file. Run from the project's folder, or pass --root."
        ) from None
    if len(data) > MAX_BYTES:
        raise ParamsError(f"{path}: got {len(data):,} bytes, want at most {MAX_BYTES:,} in a file of settings.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}, line {line}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from None


def parse_yaml(text: str, path: Path) -> Any:
    """Return the values of a text; `path` is for messages.

    Raises:
        ParamsError: as for `read_yaml`.
    """
    _check_depth(text, path)
    try:
        value = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = str(error.problem or error.context).split(" with value ")[0]
        raise ParamsError(
            f"{path}{line}: not YAML: {problem}. Correct this line, or the indentation of the one above."
        ) from None
    except (YAMLError, ValueError, OverflowError) as error:
        raise ParamsError(f"{path}{_line_of_value(text)}: not YAML: {str(error)[:200]}") from None
    except RecursionError:
        raise ParamsError(f"{path}: lists or mappings are nested deeper than can be read. Flatten them.") from None
    counts: dict[int, float] = {}
    if _count(value, counts) > MAX_VALUES:
        key = f"{max(value, key=lambda key: _count(value[key], counts))}: " if isinstance(value, dict) else ""
        raise ParamsError(f"{path}: {key}aliases (*name) stand for more than {MAX_VALUES:,} values. Write them out.")
    return value


def _check_depth(text: str, path: Path) -> None:
    """Raise ParamsError if more than `MAX_DEPTH` brackets are open at a time."""
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", text):
        depth = max(depth + (1 if bracket[0] in "[{" else -1), 0)
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, bracket.start()) + 1
            raise ParamsError(f"{path}, line {line}: more than {MAX_DEPTH} brackets are open. Flatten the lists.")


def _line_of_value(text: str) -> str:
    """Return ", line N" for the first line whose value no number or date can hold; "" if it is not on one line."""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            with suppress(YAMLError):
                YAML(typ="safe").load(line.partition(":")[2])
        except (ValueError, OverflowError):
            return f", line {number}"
    return ""


def compose(text: str) -> Any:
    """Return the nodes of a valid text, with their positions."""
    return YAML(typ="safe", pure=True).compose(text)


def flow(value: Any) -> str:
    """Return a value as YAML on one line. Strings that would be read as another type are quoted."""
    writer = YAML(typ="safe")
    writer.default_flow_style, writer.width, writer.allow_unicode = True, 10**9, True
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    # In a list instead, a mapping of one key would lose its braces.
    writer.dump({"x": value}, text)
    return text.getvalue().strip().removeprefix("{x: ").removesuffix("}")


def _count(value: Any, counts: dict[int, float]) -> float:
    """Return how many values a value contains, aliases expanded; infinity if it contains itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = math.inf
        inner = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count(one, counts) for one in inner)
    return counts[id(value)]
