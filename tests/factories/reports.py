"""Scan reports without a scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from tans_core.tasks.cleaning import KeptImage
from tans_core.tasks.report import ScanReport
from tans_core.tasks.splits import plan_splits
from tans_core.tasks.task import SPLITS


def scanned(**changes: Any) -> ScanReport:
    """A data set without any problem. `classes` sets all values that depend on it."""
    classes = changes.get("classes", {"ash": 40, "oak": 50})
    used = sum(classes.values())
    if "planned" not in changes:
        changes["planned"] = _planned(changes.get("splits") or {None: classes})
    good = ScanReport(
        path="leaves",
        kind="folder",
        stored_size_px=32,
        files=used,
        used=used,
        classes=classes,
        found=dict(classes),
        splits={},
        bad=(),
        copies=(),
        contradictions=(),
        near_copies=(),
        doubtful=(),
        leaks=(),
        skipped={},
        formats={"PNG": used},
        mislabelled=(),
        sides_px=(32, 64, 80, 100, 200),
        elongated=0,
        not_sampled=0,
        digest="0" * 64,
        seconds=0.1,
    )
    return replace(good, **changes)


def _planned(given: dict[Any, dict[str, int]]) -> dict[str, dict[str, int]]:
    images = [
        KeptImage(0, "", label, split, "", 1, 1)
        for split, counts in given.items()
        for label, number in counts.items()
        for _ in range(number)
    ]
    places = zip(plan_splits(images, seed=7).tolist(), (image.label for image in images), strict=True)
    planned: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for split, label in places:
        planned[split][label] += 1
    return {split: dict(counts) for split, counts in planned.items()}
