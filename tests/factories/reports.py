"""Scan reports without a scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tans_core.tasks.report import ScanReport


def scanned(**changes: Any) -> ScanReport:
    """A data set without any problem. `classes` sets all values that depend on it."""
    classes = changes.get("classes", {"ash": 40, "oak": 50})
    used = sum(classes.values())
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
