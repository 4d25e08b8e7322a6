"""Changes that commands make to params.yaml: add a task, remove one, apply a profile.

Only the lines that change are rewritten: the YAML parser gives their positions. All other bytes stay, comments and
layout included. ruamel's own round trip does not keep them: it joins lists that span several lines, for one.
The new text is parsed and checked before it is written.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from tans_core.errors import ParamsError, UnknownTaskError, did_you_mean
from tans_core.io import write_text, writing
from tans_core.params import Params, check_task_name, parse_params
from tans_core.yaml_file import compose, flow, parse_yaml, read_text

ROLES = {"meta-train": "meta_train", "meta-test": "meta_test"}
"""The mapping below `tasks` that holds the tasks of each role."""

_LINE = 120


@dataclass(frozen=True)
class Change:
    """One changed value: its path, and the value before and after. None means that there is no value."""

    path: tuple[str, ...]
    before: Any
    after: Any

    def __str__(self) -> str:
        where = ".".join(self.path)
        if self.before is None:
            return f"+ {where}: {flow(self.after)}"
        if self.after is None:
            return f"- {where}: {flow(self.before)}"
        return f"  {where}: {flow(self.before)} -> {flow(self.after)}"


def add_task(
    root: Path,
    name: str,
    role: str,
    source: str,
    options: Mapping[str, Any],
    replace: bool = False,
    dry_run: bool = False,
) -> list[Change]:
    """Add a task to params.yaml.

    Args:
        root: the project's folder.
        name: the task's name.
        role: a key of ROLES.
        source: name of the source of its images.
        options: the source's own.
        replace: replace an existing task of that name, whatever its role.
        dry_run: check everything, write nothing.

    Raises:
        ParamsError: the name is in use or is no valid task name.
    """
    check_task_name(name)
    with _edited(root, dry_run) as edit:
        holder = _holder(edit.values, name)
        if holder and not replace:
            raise ParamsError(
                f"{name!r}: params.yaml has a task of this name, in tasks.{holder}. Take another, or pass --replace."
            )
        if holder and holder != ROLES[role]:
            edit.remove(("tasks", holder, name))
        edit.set(("tasks", ROLES[role], name), {"source": source, "options": dict(options)})
    return edit.changes


def remove_task(root: Path, name: str) -> list[Change]:
    """Remove a task from params.yaml.

    Raises:
        UnknownTaskError: there is no task of that name.
        ParamsError: params.yaml uses it elsewhere, in `base.tasks` for example.
    """
    with _edited(root) as edit:
        holder = _holder(edit.values, name)
        if holder is None:
            known = [task for role in ROLES.values() for task in edit.values["tasks"][role]]
            raise UnknownTaskError(f"{name!r}: no such task in params.yaml{did_you_mean(name, known)}.")
        edit.remove(("tasks", holder, name))
    return edit.changes


def list_profiles(root: Path) -> list[str]:
    """Return the names of the profiles in `profiles/`."""
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def apply_profile(root: Path, name: str, dry_run: bool = False) -> list[Change]:
    """Apply `profiles/<name>.yaml` to params.yaml: mappings are merged, any other value is replaced.

    Returns:
        The changes; none if the profile is applied already.

    Raises:
        ParamsError: no such profile, or the new params.yaml is invalid.
    """
    known = list_profiles(root)
    if name not in known:
        raise ParamsError(
            f"profile {name!r}: no profiles/{name}.yaml{did_you_mean(name, known)}. "
            f"Known: {', '.join(known) or 'none'}."
        )
    path = root / "profiles" / f"{name}.yaml"
    overlay = _parse(read_text(path), path)
    with _edited(root, dry_run) as edit:
        for where, value in _differences(edit.values, overlay):
            edit.set(where, value)
    return edit.changes


class Edit:
    """The text of a YAML file and its values. Both change together."""

    def __init__(self, text: str, path: Path) -> None:
        self.text, self.path = text, path
        self.values = _parse(text, path)
        self.changes: list[Change] = []

    def set(self, where: Sequence[str], value: Any) -> None:
        """Set a key's value; a new key comes last in its mapping."""
        *parents, key = where
        holder = self.values
        for parent in parents:
            holder = holder[parent]
        self.changes.append(Change(tuple(where), holder.get(key), value))
        holder[key] = copy.deepcopy(value)
        self._write(tuple(where))

    def remove(self, where: Sequence[str]) -> None:
        """Remove a key from its mapping."""
        *parents, key = where
        holder = self.values
        for parent in parents:
            holder = holder[parent]
        self.changes.append(Change(tuple(where), holder.pop(key), None))
        chain = _find(self.text, where)
        if not holder or len(chain) <= len(where) or chain[-2][1].flow_style:
            self._write(tuple(parents))
            return
        key_node, value_node = chain[-1]
        assert key_node is not None
        start = self.text.rfind("\n", 0, key_node.start_mark.index) + 1
        self.text = self.text[:start] + self.text[self._next_line(_end(value_node, self.text)) :]

    def check(self) -> None:
        """Check that the text still parses to the values.

        Raises:
            ParamsError: the layout of the file cannot be edited line by line.
        """
        parsed: Any = None
        with contextlib.suppress(ParamsError):
            parsed = _parse(self.text, self.path)
        if parsed != self.values:
            changes = "\n  ".join(str(change) for change in self.changes)
            raise ParamsError(f"{self.path}: a command cannot edit its layout. Edit it by hand:\n  {changes}")

    def _write(self, where: tuple[str, ...]) -> None:
        """Write the value at `where` into the text. A parent that is empty or in braces is rewritten as a whole."""
        chain = _find(self.text, where)
        closed = next((depth for depth, (_, node) in enumerate(chain[: len(where)]) if _is_closed(node)), None)
        where = where[:closed]
        if not where or len(chain) < len(where):
            return  # `check` reports this
        value: Any = self.values
        for key in where:
            value = value[key]
        if len(chain) > len(where):
            key_node, value_node = chain[len(where)]
            assert key_node is not None
            column = key_node.start_mark.column
            start, end = key_node.start_mark.index - column, _end(value_node, self.text)
            self.text = self.text[:start] + "\n".join(_render(where[-1], value, column)) + self.text[end:]
            return
        parent = chain[-1][1]
        at = self._next_line(_end(parent, self.text))
        before = "" if self.text[:at].endswith("\n") else "\n"
        lines = _render(where[-1], value, parent.value[0][0].start_mark.column)
        self.text = self.text[:at] + before + "\n".join(lines) + "\n" + self.text[at:]

    def _next_line(self, index: int) -> int:
        """Return where the next line begins, after any comment that follows `index`."""
        newline = self.text.find("\n", index)
        return len(self.text) if newline < 0 else newline + 1


@contextlib.contextmanager
def _edited(root: Path, dry_run: bool = False) -> Iterator[Edit]:
    path = root / "params.yaml"
    read_text(path)
    stamp = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    lock = platformdirs.user_cache_path("tans") / "locks" / f"params-{stamp}.lock"
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    # Without the lock, of two commands at a time the second would overwrite the first one's changes.
    with FileLock(lock):
        edit = Edit(read_text(path), path)
        before: Params = parse_params(edit.text, path)
        yield edit
        edit.check()
        after = parse_params(edit.text, path)
        if after != before and not dry_run:
            write_text(edit.text, path)


def _holder(values: dict[str, Any], task: str) -> str | None:
    return next((role for role in ROLES.values() if task in values["tasks"][role]), None)


def _differences(
    values: Mapping[str, Any], overlay: Mapping[str, Any], under: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in overlay.items():
        here = (*under, key)
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            yield from _differences(values[key], value, here)
        elif key not in values or values[key] != value:
            yield here, value


def _parse(text: str, path: Path) -> dict[str, Any]:
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: got {type(values).__name__}, want a mapping.")
    return values


Pair = tuple[Any, Any]
"""The nodes of a key and of its value. The document itself has no key."""


def _find(text: str, where: Sequence[str]) -> list[Pair]:
    """Return the (key, value) nodes from the document down to `where`, or as far as they exist."""
    node = compose(text)
    chain: list[Pair] = [(None, node)]
    for key in where:
        pairs = node.value if isinstance(node, MappingNode) else []
        pair = next((pair for pair in pairs if pair[0].value == key), None)
        if pair is None:
            break
        chain.append(pair)
        node = pair[1]
    return chain


def _is_closed(node: Node) -> bool:
    """Return whether no line can be added to a node: it is in braces, empty, or no mapping."""
    return not isinstance(node, MappingNode) or bool(node.flow_style) or not node.value


def _end(node: Node, text: str) -> int:
    """Return where a value ends. The parser's end of a block is too late: comments after it are included."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last, text)
    end: int = node.end_mark.index
    while end > node.start_mark.index and text[end - 1] == "\n":
        end -= 1
    return end


def _render(key: str, value: Any, column: int) -> list[str]:
    """Write an entry on one line if it fits, else one line per key."""
    line = f"{' ' * column}{flow(key)}: {flow(value)}"
    if len(line) <= _LINE or not isinstance(value, dict) or not value:
        return [line]
    inner = [line for name, entry in value.items() for line in _render(name, entry, column + 2)]
    return [f"{' ' * column}{flow(key)}:", *inner]
