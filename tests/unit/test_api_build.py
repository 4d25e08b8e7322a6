"""`build` of the API: DVC is run to its end, and its failures become errors."""

import fcntl
import re
import threading
from pathlib import Path

import pytest
import yaml

import tans_core as tans
from tans_core import errors
from tans_core.project import _ERROR_OF_EXIT_CODE, reproduce
from tests.factories.families import TINY, installed_family
from tests.factories.project import PARAMS
from tests.factories.repository import init_repository


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A DVC project of two stages, the second of which ends with the code in `code.txt`."""
    init_repository(tmp_path)
    (tmp_path / "code.txt").write_text("0")
    stages = """\
stages:
  first:
    cmd: echo one > first.txt
    outs: [first.txt]
  second:
    cmd: exec python second.py
    deps: [first.txt, code.txt]
"""
    (tmp_path / "dvc.yaml").write_text(stages)
    (tmp_path / "second.py").write_text("""
import os, pathlib, sys
print("working", flush=True)
code = int(pathlib.Path("code.txt").read_text())
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
""")
    return tmp_path


def test_every_exit_code_of_a_stage_has_its_error() -> None:
    kinds = (errors.ParamsError, errors.GateError, errors.DataError, errors.StoreError, errors.WeightsError)
    assert dict(zip((2, 3, 4, 6, 7), kinds, strict=True)) == _ERROR_OF_EXIT_CODE


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (3, errors.GateError, "failed with exit code 3"),
        (9, errors.TansError, "failed with exit code 9"),
        (-9, errors.TansError, r"was killed \(SIGKILL\)"),
    ],
)
def test_build_ends_with_the_error_of_the_stage_that_failed(
    pipeline: Path, code: int, kind: type[errors.TansError], words: str
) -> None:
    (pipeline / "code.txt").write_text(str(code))
    lines: list[str] = []
    with pytest.raises(errors.TansError, match=f"'second' {words}") as caught:
        tans.build(root=pipeline, jobs=1, on_line=lines.append)
    assert type(caught.value) is kind
    assert "its message is above" in str(caught.value) or code < 0
    assert "working" in lines
    assert (pipeline / "first.txt").is_file()


def test_error_of_a_build_repeats_what_the_stage_said(pipeline: Path) -> None:
    (pipeline / "second.py").write_text('print("WeightsError: a.safetensors: cut short.\\n  Copy it."); exit(7)')
    with pytest.raises(errors.WeightsError) as caught:
        tans.build(root=pipeline, jobs=1, on_line=lambda _: None)
    first, *said = str(caught.value).splitlines()
    assert first.endswith("stage 'second' failed with exit code 7:")
    assert said[:2] == ["  WeightsError: a.safetensors: cut short.", "    Copy it."]


def test_build_of_one_stage_leaves_the_others_alone(pipeline: Path) -> None:
    (pipeline / "code.txt").write_text("3")
    tans.build("first", root=pipeline, on_line=lambda _: None)
    assert (pipeline / "first.txt").is_file()


def test_build_of_what_is_built_runs_nothing(pipeline: Path) -> None:
    tans.build(root=pipeline, jobs=1, on_line=lambda _: None)
    lines: list[str] = []
    tans.build(root=pipeline, jobs=1, on_line=lines.append)
    assert not [line for line in lines if line.startswith("Running stage")]


def test_changed_family_of_a_package_is_built_with_again_and_no_other(
    pipeline: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {
        part: {"cmd": f"echo {part} > {part}.txt", "deps": [f"data/families/{part}"], "outs": [f"{part}.txt"]}
        for part in ("zoo", "arrivals")
    }
    (pipeline / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    params = {**PARAMS, "networks": {**PARAMS["networks"], "tiny": {}}}
    (pipeline / "params.yaml").write_text(yaml.safe_dump(params))
    site, other = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("other")

    def ran() -> list[str]:
        lines: list[str] = []
        tans.build(root=pipeline, jobs=1, on_line=lines.append)
        return sorted(re.findall(r"^Running stage '(.+)'", "\n".join(lines), flags=re.MULTILINE))

    assert ran() == ["arrivals", "zoo"]
    with installed_family(site, monkeypatch, TINY):
        assert ran() == ["zoo"]
        assert "tiny: brought_tiny 1.0, code " in (pipeline / "data/families/zoo/versions.txt").read_text()
        (site / "brought_tiny.py").write_text(TINY.replace("stride=2", "stride=1"))
        with installed_family(other, monkeypatch, TINY.replace('"tiny"', '"unused"'), "unused"):
            assert ran() == ["zoo"]
            card = pipeline / "data/arrivals/arrival-1/card.json"
            card.parent.mkdir(parents=True)
            card.write_text('{"family": "unused"}')
            assert ran() == ["arrivals"]


def test_build_waits_for_another_dvc_that_holds_the_lock(pipeline: Path) -> None:
    lines: list[str] = []
    with (pipeline / ".dvc/tmp/lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Longer than the three seconds after which DVC gives up by itself.
        release = threading.Timer(4.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        release.start()
        tans.build("first", root=pipeline, on_line=lines.append)
        assert not release.is_alive()
        release.join()
    assert any(line.startswith("Running stage") for line in lines)


def test_pipeline_that_dvc_cannot_read_is_an_error(pipeline: Path) -> None:
    (pipeline / "dvc.yaml").write_text("stages: [")
    lines: list[str] = []
    with pytest.raises(errors.TansError, match="no stage failed"):
        reproduce(pipeline, jobs=1, on_line=lines.append)
    assert any("dvc.yaml" in line for line in lines)


def test_build_outside_a_project_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.ParamsError, match=r"dvc\.yaml"):
        tans.build(root=tmp_path)


def test_build_without_a_git_repository_says_so_before_dvc_does(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}")
    with pytest.raises(errors.ParamsError, match=r"not in a git repository, which DVC needs.*`git init`"):
        tans.build(root=tmp_path, jobs=1)
