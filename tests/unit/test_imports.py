from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tans_core.imports import import_when_used, import_without_init


def test_parts_of_a_library_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe_later.py").write_text("import sys\nsys.probe_ran = True\nVALUE = 1\n")
    (tmp_path / "probe_bare").mkdir()
    (tmp_path / "probe_bare/__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "probe_bare/part.py").write_text("VALUE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    import_when_used("probe_later", "probe_missing")
    import_without_init("probe_bare")
    later = importlib.import_module("probe_later")
    assert not hasattr(sys, "probe_ran")
    assert later.VALUE == 1
    assert hasattr(sys, "probe_ran")
    assert importlib.import_module("probe_bare.part").VALUE == 2
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("probe_missing")


def test_package_without_init_gets_the_names_that_are_needed(tmp_path, monkeypatch):
    package = tmp_path / "probe_names"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('run')\n")
    (package / "part.py").write_text("from probe_names import NEEDED\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    import_without_init("probe_names", {"NEEDED": lambda: 3})

    assert importlib.import_module("probe_names.part").NEEDED == 3
    with pytest.raises(AttributeError, match="'probe_names' has no attribute 'other'"):
        importlib.import_module("probe_names").other  # noqa: B018


def test_stage_imports_lightning_without_metrics_that_it_does_not_use():
    code = (
        "import sys, tans_core.stages.zoo, pytorch_lightning\n"
        "print(sorted({'torchmetrics.metric', 'torchmetrics.functional', 'scipy.signal'} & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "['torchmetrics.metric']"
