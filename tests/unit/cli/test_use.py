"""`tans predict`, run in this process."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

from tests.factories.runs import CLASSES, Run


def test_predictions_are_shown_with_their_accuracy(tans: Any, run: Run, pictures: Path) -> None:
    done = tans("predict", run.folder, pictures, "--split", "test")
    assert (done.code, done.err) == (0, "")
    assert f"Accuracy {run.result.test_accuracy:.3f} on {run.task.info.counts['test']} images" in done.out
    assert "left out: 45 x not of this split" in done.out


def test_csv_and_json_have_every_image_and_probability(tans: Any, run: Run, pictures: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "ash/broken[b].png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    done = tans("predict", run.folder, folder, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.code == 0 and len(rows) == 61
    assert "1 of 61 images could not be read" in done.err
    read = [row for row in rows if not row["error"]]
    assert len(read) == 60
    for row in read:
        values = {name: float(row[f"p({name})"]) for name in CLASSES}
        assert max(values, key=values.__getitem__) == row["label"] and abs(sum(values.values()) - 1) < 1e-5
    plain = json.loads(tans("predict", run.folder, folder, "--json").out)
    assert (plain["images"], plain["unreadable"], plain["judged"]) == (61, 1, 60)
    assert "broken[b].png" in tans("predict", run.folder, folder / "ash").out


def test_wrong_uses_end_with_their_codes(tans: Any, run: Run, pictures: Path, tmp_path: Path) -> None:
    assert tans("predict", run.folder, pictures, "--csv", "--json").code == 2
    assert tans("predict", run.folder, pictures, "--split", "all").code == 2
    assert tans("predict", run.folder, tmp_path / "none").code == 4
    assert tans("predict", tmp_path, pictures).code == 7


def test_export_says_where_and_how_near(tans: Any, run: Run, tmp_path: Path) -> None:
    done = tans("export", run.folder, "--format", "hf", "--out", tmp_path / "hub")
    assert done.code == 0, done.err
    assert f"Wrote {tmp_path / 'hub'}: logits differ by at most 0.0e+00 on {run.task.info.counts['test']}" in done.out
    assert tans("export", run.folder, "--format", "tflite").code == 2
