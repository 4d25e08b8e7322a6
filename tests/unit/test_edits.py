"""params.yaml edited by commands: all that a command does not change stays byte for byte."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tans_core.edits import Edit, add_task, apply_profile, list_profiles, remove_task
from tans_core.errors import ParamsError, UnknownTaskError
from tans_core.params import load_params
from tans_core.yaml_file import parse_yaml

PROJECT = Path(__file__).resolve().parents[2]
Write = Callable[[str], Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    return tmp_path


def lines(root: Path) -> list[str]:
    return (root / "params.yaml").read_text(encoding="utf-8").splitlines()


def test_a_task_is_added_as_lines_and_nothing_else_changes(root: Path) -> None:
    before = lines(root)
    changes = add_task(root, "leaves", "meta-test", "image-folder", {"path": "/photos/my leaves", "digest": "ab" * 32})
    after = lines(root)
    added = [line for line in after if line not in before]
    assert [line for line in after if line not in added] == before
    # Last of its mapping, before the blank line and whatever comes next.
    at = after.index(added[-1])
    assert after[at + 1] == "" and "networks:" in after[at + 2 : at + 4]
    assert load_params(root).tasks.meta_test["leaves"].options["path"] == "/photos/my leaves"
    assert [str(change) for change in changes] == [
        f"+ tasks.meta_test.leaves: {{source: image-folder, options: {{path: /photos/my leaves, digest: {'ab' * 32}}}}}"
    ]


def test_adding_and_removing_gives_the_same_bytes(root: Path) -> None:
    before = (root / "params.yaml").read_bytes()
    for role in ("meta-train", "meta-test"):
        add_task(root, "leaves", role, "image-folder", {"path": "x"})
        remove_task(root, "leaves")
        assert (root / "params.yaml").read_bytes() == before


def test_a_name_in_use_is_refused_unless_it_is_to_be_replaced(root: Path) -> None:
    before = (root / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=r"'faces': .* in tasks\.meta_test.*--replace"):
        add_task(root, "faces", "meta-train", "image-folder", {})
    assert (root / "params.yaml").read_bytes() == before
    add_task(root, "faces", "meta-train", "image-folder", {"path": "x"}, replace=True)
    tasks = load_params(root).tasks
    assert "faces" not in tasks.meta_test
    assert tasks.meta_train["faces"].source == "image-folder"


@pytest.mark.parametrize("name", ["Leaves", "a b", "../x", "", "a" * 64])
def test_a_name_that_is_none_is_refused_and_nothing_is_written(root: Path, name: str) -> None:
    before = (root / "params.yaml").read_bytes()
    with pytest.raises(ParamsError):
        add_task(root, name, "meta-train", "image-folder", {})
    assert (root / "params.yaml").read_bytes() == before


def test_a_task_that_others_need_stays(root: Path) -> None:
    with pytest.raises(ParamsError, match=r"base\.tasks: optdigits"):
        remove_task(root, "optdigits")
    with pytest.raises(UnknownTaskError, match="did you mean 'animals'"):
        remove_task(root, "animal")


@pytest.mark.parametrize(
    "value", ["no", "1e3", "07", "a: b", "# x", "ünï 🌲", "a\nb", "", "null", "'q\"", "{x}", True, 2.5]
)
def test_values_are_read_back_as_they_were_meant(root: Path, value: Any) -> None:
    add_task(root, "leaves", "meta-train", "image-folder", {"path": value, value if isinstance(value, str) else "k": 1})
    options = load_params(root).tasks.meta_train["leaves"].options
    assert options["path"] == value and type(options["path"]) is type(value)


def test_tasks_added_at_the_same_time_are_all_there(root: Path) -> None:
    threads = [
        threading.Thread(target=add_task, args=(root, f"leaves-{number}", "meta-train", "image-folder", {"path": "x"}))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"leaves-{number}" for number in range(6)} <= set(load_params(root).tasks.meta_train)


LAYOUTS = {
    "block": "a:\n  b:\n    c: 1\nz: 2\n",
    "comments": "# top\na:\n  b:  # of b\n    # of c\n    c: 1  # one\n\n# of z\nz: 2\n",
    "deep indent": "a:\n      b:\n         c: 1\nz: 2\n",
    "braces": "a: {b: {c: 1}}\nz: 2\n",
    "braces inside": "a:\n  b: {c: 1}  # why\nz: 2\n",
    "empty braces": "a:\n  b: {}\nz: 2\n",
    "several lines of braces": "a:\n  b: {\n    c: 1,\n  }\nz: 2\n",
    "no newline at the end": "z: 2\na:\n  b:\n    c: 1",
    "comment at the end": "z: 2\na:\n  b:\n    c: 1\n    # the end",
    "block text": "a:\n  b:\n    c: |\n      one\n      two\n\nz: 2\n",
    "list": "a:\n  b:\n    c:\n    - 1\n    - 2\nz: 2\n",
    "quotes": "'a':\n  \"b\":\n    'c': 'x'\nz: 2\n",
    "marks": "---\na:\n  b:\n    c: 1\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("change", ["new", "same", "gone"])
def test_every_usual_layout_can_be_edited(name: str, change: str) -> None:
    text = LAYOUTS[name]
    edit = Edit(text, Path("params.yaml"))
    had = "c" in edit.values["a"]["b"]
    if change == "gone":
        if had:
            edit.remove(("a", "b", "c"))
    else:
        edit.set(("a", "b", "d" if change == "new" else "c"), {"x": [1, 2], "y": "no"})
    edit.check()
    assert parse_yaml(edit.text, edit.path) == edit.values
    assert edit.text.count("#") == text.count("#") or change == "gone"


@pytest.mark.parametrize("text", ["a: &x\n  b: {c: 1}\nz:\n  <<: *x\n", "x: &b {c: 1}\na:\n  b: *b\n"])
def test_a_layout_that_cannot_be_edited_is_left_to_the_user(text: str) -> None:
    edit = Edit(text, Path("params.yaml"))
    where = ("z", "b", "d") if "<<" in text else ("a", "b", "d")
    edit.set(where, 1)
    with pytest.raises(ParamsError, match=r"Edit it by hand:\n  \+ "):
        edit.check()


def test_a_profile_is_laid_over_once(root: Path) -> None:
    (root / "profiles").mkdir()
    (root / "profiles/big.yaml").write_text(
        "zoo: {subnets: 48}\nbase: {tasks: [optdigits]}\ntasks: {meta_train: {leaves: {source: image-folder}}}\n"
    )
    assert list_profiles(root) == ["big"]
    before = load_params(root).zoo
    comments = [line for line in lines(root) if "#" in line]
    shown = [str(change) for change in apply_profile(root, "big", dry_run=True)]
    assert shown[0] == f"  zoo.subnets: {before.subnets} -> 48"
    assert shown[-1] == "+ tasks.meta_train.leaves: {source: image-folder}"
    assert load_params(root).zoo == before
    apply_profile(root, "big")
    params = load_params(root)
    assert params.zoo.subnets == 48 and params.zoo.steps == before.steps
    assert (
        params.base.tasks == ["optdigits"]
        and "leaves" in params.tasks.meta_train
        and "arrows" in params.tasks.meta_train
    )
    assert [line for line in lines(root) if "#" in line] == comments
    written = (root / "params.yaml").stat().st_mtime_ns
    assert apply_profile(root, "big") == []
    assert (root / "params.yaml").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("zoo: {subnest: 4}", "did you mean 'subnets'"),
        ("zoo: [", "not YAML"),
        ("- 1", "want a mapping"),
        ("", "want a mapping"),
    ],
)
def test_an_invalid_profile_changes_nothing(root: Path, overlay: str, words: str) -> None:
    before = (root / "params.yaml").read_bytes()
    (root / "profiles").mkdir()
    (root / "profiles/bad.yaml").write_text(overlay)
    with pytest.raises(ParamsError, match=words):
        apply_profile(root, "bad")
    with pytest.raises(ParamsError, match="did you mean 'bad'"):
        apply_profile(root, "bda")
    assert (root / "params.yaml").read_bytes() == before
