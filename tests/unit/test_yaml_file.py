"""params.yaml that is ambiguous or too large to read: refused at once, with key and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tans_core.dataset import QueryLimits
from tans_core.edits import add_task
from tans_core.errors import ParamsError
from tans_core.index.settings import read_params
from tans_core.params import load_params

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "params.yaml").read_text(encoding="utf-8")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


def _write(tmp_path: Path, data: str | bytes) -> Path:
    (tmp_path / "params.yaml").write_bytes(data if isinstance(data, bytes) else data.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TEXT + "seed: 1\n", f'line {TEXT.count(chr(10)) + 1}: not YAML: found duplicate key "seed"'),
        (TEXT.replace("seed: 0\n", "seed: " + "9" * 5000 + "\n"), "line 2: not YAML: Exceeds the limit"),
        (TEXT.replace("seed: 0\n", "seed: 2026-13-01\n"), "line 2: not YAML: month must be in 1..12"),
        ("seed: 0\nlr: " + "[" * 100_000, "line 2: more than 500 brackets are open"),
        ("seed: 0\n" + BOMB, "j: aliases (*name) stand for more than 300,000 values"),
        (BOMB + "seed: *j\n", "j: aliases (*name) stand for more than 300,000 values"),
        (TEXT.replace("seed: 0\n", "seed: 0 # café\n").encode("latin-1"), "line 2: not UTF-8"),
        (TEXT.encode("utf-16"), "line 1: not UTF-8"),
        ("seed: &a [*a]\n", "stand for more than"),
        ("seed: [1\n", "not YAML"),
        ("seed: \x07\n", "not YAML"),
    ],
)
@pytest.mark.parametrize("read", [load_params, lambda root: read_params(root, ("data", "gates")), QueryLimits.of])
def test_invalid_files_are_refused_at_once(read: object, data: str | bytes, words: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(ParamsError) as raised:
        read(_write(tmp_path, data))  # type: ignore[operator]
    assert words in str(raised.value) and str(tmp_path / "params.yaml") in str(raised.value)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_numbers_without_an_end_are_no_settings(value: str, tmp_path: Path) -> None:
    lines = [f"  lr: {value}" if line.startswith("  lr:") else line for line in TEXT.splitlines()]
    with pytest.raises(ParamsError, match=r"lr: got .*finite number"):
        load_params(_write(tmp_path, "\n".join(lines)))


def test_a_folder_in_place_of_params_yaml_is_said(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    for read in (load_params, lambda root: QueryLimits.of(root, {"data": {"stored_size_px": 32}})):
        with pytest.raises(ParamsError, match=r"params\.yaml: a folder; want a YAML file"):
            read(tmp_path)


@pytest.mark.parametrize("name", ["1e3", "5e2", "1e-3", "0o17", "0200", "true", "null", "0x1f"])
def test_names_that_look_like_numbers_stay_names_for_every_reader(name: str, tmp_path: Path) -> None:
    add_task(_write(tmp_path, TEXT), name, "meta-train", "image-folder", {"path": "x", "licence": "1e3"})
    task = load_params(tmp_path).tasks.meta_train[name]
    by_dvc = YAML(typ="safe").load((tmp_path / "params.yaml").read_text())["tasks"]["meta_train"][name]
    assert task.options == by_dvc["options"] == {"path": "x", "licence": "1e3"}


def test_a_number_with_zeros_before_it_is_what_dvc_takes_it_for(tmp_path: Path) -> None:
    lines = ["  stored_size_px: 0200" if line.startswith("  stored_size_px:") else line for line in TEXT.splitlines()]
    root = _write(tmp_path, "\n".join(lines))
    assert load_params(root).data.stored_size_px == read_params(root)["data"]["stored_size_px"] == 200
