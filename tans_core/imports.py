"""Libraries imported in less time: without the parts that TANS does not use, and without searching for garbage."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


def import_when_used(*modules: str) -> None:
    """Import modules only once something of theirs is used; `from module import name` uses them at once.

    Call it when a process starts, while it has one thread; it changes nothing that is imported already.
    """
    sys.meta_path.insert(0, _Finder(modules, _lazy))


def import_without_init(package: str, names: Mapping[str, Callable[[], object]] | None = None) -> None:
    """Import a package without running its `__init__`; its modules can be imported as always.

    Call it when a process starts, as `import_when_used`.

    Args:
        package: its name.
        names: those of its attributes that are still needed, with a function that gets each.
    """
    sys.meta_path.insert(0, _Finder([package], partial(_bare, _Names(names or {}))))


def import_lightning_lightly() -> None:
    """Let Lightning import two classes of torchmetrics, and not all its metrics with what these need.

    Only for processes of our own, since nobody in the process can use another metric then.
    """

    def get(module: str, name: str) -> object:
        import_module("torchmetrics.utilities")  # it imports `metric`, which cannot be imported first
        return getattr(import_module(module), name)

    names: dict[str, Callable[[], object]] = {
        "Metric": partial(get, "torchmetrics.metric", "Metric"),
        "MetricCollection": partial(get, "torchmetrics.collections", "MetricCollection"),
        "_logger": partial(logging.getLogger, "torchmetrics"),
    }
    import_without_init("torchmetrics", names)


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
    def __init__(self, names: Iterable[str], change: Callable[[ModuleSpec], ModuleSpec]) -> None:
        self._names, self._change = frozenset(names), change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path) if fullname in self._names else None
        return None if found is None else self._change(found)


def _lazy(spec: ModuleSpec) -> ModuleSpec:
    if spec.loader is not None:
        spec.loader = LazyLoader(spec.loader)
    return spec


class _Names(Loader):
    """Loads an empty module that gets attributes when they are asked for."""

    def __init__(self, names: Mapping[str, Callable[[], object]]) -> None:
        self._names = names

    def exec_module(self, module: ModuleType) -> None:
        def get(name: str) -> object:
            if name in self._names:
                return self._names[name]()
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = get  # type: ignore[method-assign]


def _bare(loader: Loader, spec: ModuleSpec) -> ModuleSpec:
    bare = ModuleSpec(spec.name, loader, is_package=True)
    bare.submodule_search_locations = spec.submodule_search_locations
    return bare
