from __future__ import annotations

import importlib
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
