"""Libraries imported in less time: without the parts that TANS does not use, and without searching for garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


def import_when_used(*modules: str) -> None:
    """Import modules only once something of theirs is used; `from module import name` uses them at once.

    Call it when a process starts, while it has one thread; it changes nothing that is imported already.
    """
    sys.meta_path.insert(0, _Finder(modules, _lazy))


def import_without_init(*packages: str) -> None:
    """Import packages without running their `__init__`; their modules can be imported as always.

    Call it when a process starts, as `import_when_used`.
    """
    sys.meta_path.insert(0, _Finder(packages, _bare))


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage: importing a large library makes objects that stay, and searching them takes a fifth."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class _Finder(MetaPathFinder):
    def __init__(self, names: Sequence[str], change: Callable[[ModuleSpec], ModuleSpec]) -> None:
        self._names, self._change = names, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path) if fullname in self._names else None
        return None if found is None else self._change(found)


def _lazy(spec: ModuleSpec) -> ModuleSpec:
    if spec.loader is not None:
        spec.loader = LazyLoader(spec.loader)
    return spec


def _bare(spec: ModuleSpec) -> ModuleSpec:
    bare = ModuleSpec(spec.name, None, is_package=True)
    bare.submodule_search_locations = spec.submodule_search_locations
    return bare
