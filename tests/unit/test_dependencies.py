"""A plain installation is enough: using the package needs nothing of the `dev` extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

WITHOUT = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
import tans_core, flows
for package in (tans_core, flows):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from tans_core.sources import SOURCES
print(len(SOURCES), len(tans_core.list_tasks({root!r})))
sys.argv = ["tans", "tasks", "list", "--sources", "--json"]
from tans_core.cli import main
main()
"""


def distributions(requirements: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9._-]+", one)[0].lower().replace("_", "-") for one in requirements}  # type: ignore[index]


def modules_of(wanted: set[str]) -> set[str]:
    """The names that these distributions are imported by."""
    return {
        module
        for module, owners in packages_distributions().items()
        if any(owner.lower().replace("_", "-") in wanted for owner in owners)
    }


def test_package_imports_and_lists_its_tasks_with_nothing_of_the_dev_extra() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: distributions(those) for name, those in project["optional-dependencies"].items()}
    # Torch looks for ONNX when it is imported, and a blocked module cannot be looked for.
    extra = extras["dev"] - extras["export"]
    assert not extra & distributions(project["dependencies"])
    blocked = sorted(modules_of(extra))
    assert {"pytest", "datasets", "mypy"} <= set(blocked)
    code = WITHOUT.format(blocked=blocked, root=str(PROJECT))
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"animal-mnist"' in done.stdout


def test_every_import_of_the_package_is_a_dependency_that_it_declares() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = modules_of(distributions(project["dependencies"] + extras["datasets"] + extras["export"]))
    # animal_mnist is fetched by `make install` without what it asks for itself; pydantic_core comes with pydantic.
    declared |= {"animal_mnist", "pydantic_core", "tans_core", "flows"} | set(sys.stdlib_module_names)
    imported = {
        name.partition(".")[0]
        for folder in ("tans_core", "flows")
        for path in (PROJECT / folder).rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) ([A-Za-z_][\w.]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    known = packages_distributions()
    assert {name for name in imported - declared if name in known} == set()


def test_what_a_plain_installation_lacks_is_imported_where_it_is_used_alone() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: distributions(those) for name, those in project["optional-dependencies"].items()}
    lacking = modules_of(extras["export"] | extras["datasets"])
    assert {"onnxruntime", "datasets"} <= lacking
    found = []
    for path in [*(PROJECT / "tans_core").rglob("*.py"), *(PROJECT / "flows").rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in lacking]
    assert found == []
