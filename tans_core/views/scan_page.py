"""scan.html: the report of a scan and the gate's verdict, on one page without external files.

Axes: s = an image's own side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from natsort import natsorted
from PIL import Image

from tans_core.io import write_text
from tans_core.pages import page_environment, png_uri
from tans_core.tasks.report import EXAMPLES, ScanReport
from tans_core.tasks.task import SPLITS
from tans_core.text import count, shown

_CLASSES_SHOWN, _PER_CLASS, _LARGEST_PX = EXAMPLES
_ROWS_SHOWN = 50
_EXAMPLES = 3
_NAME_CHARS = 160
_GAP_PX = 2
# All pictures, uncompressed: even if they cannot be compressed, the page stays under 3 MB.
_PICTURE_BYTES = 1_600_000
_THUMBS_PX = (_LARGEST_PX, 48, 40, 32, 24)
"""Possible sides of pictures; the fewer pictures, the larger."""

_Images = Sequence[npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class _List:
    """A list of the page; `rows` are those shown of `total`."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    total: int


def render_scan_page(
    report: ScanReport,
    failures: Sequence[str],
    warnings: Sequence[str],
    samples: Mapping[str, _Images],
) -> str:
    """Return the page. Names of files and classes come from outside and are escaped.

    Args:
        report: of the scan.
        failures: sentences of the gate; if there are any, the headline is "refused".
        warnings: sentences of the gate.
        samples: images of (3, s, s) uint8 by class; at most 8 a class are shown, of at most 60 classes.
    """
    environment = page_environment("tans_core.views")
    environment.filters["name"] = _name
    environment.filters["number"] = lambda value: f"{value:,}"
    verdict, mood = _verdict(failures, warnings)
    return environment.get_template("scan.html.j2").render(
        report=report,
        mood=mood,
        verdict=verdict,
        filled=sum(map(bool, report.classes.values())),
        failures=[shown(line) for line in failures],
        warnings=[shown(line) for line in warnings],
        facts=_facts(report),
        splits=[split for split in SPLITS if split in report.splits],
        rows=_class_rows(report, samples),
        hidden_classes=max(0, len(_class_names(report)) - _CLASSES_SHOWN),
        lists=[one for one in _lists(report) if one.rows],
    )


def write_scan_page(
    report: ScanReport,
    failures: Sequence[str],
    warnings: Sequence[str],
    samples: Mapping[str, _Images],
    path: Path,
) -> None:
    """Write what `render_scan_page` returns to `path`."""
    write_text(render_scan_page(report, failures, warnings, samples), path)


def contact_strip(images: _Images, thumb_px: int) -> bytes:
    """Return a PNG of the first images in a row, with transparent gaps; all as wide as the widest, up to `thumb_px`."""
    first = images[:_PER_CLASS]
    # At least the smallest thumbnail: a browser would enlarge a smaller strip, and its gaps.
    side = min(thumb_px, max(_THUMBS_PX[-1], *(image.shape[-1] for image in first)))
    strip = Image.new("RGBA", (len(first) * (side + _GAP_PX) - _GAP_PX, side))
    for index, image in enumerate(first):
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        if picture.width != side:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        strip.paste(picture, (index * (side + _GAP_PX), 0))
    buffer = BytesIO()
    strip.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _verdict(failures: Sequence[str], warnings: Sequence[str]) -> tuple[str, str]:
    if failures:
        return "refused", "bad"
    if warnings:
        return f"passed, with {count(len(warnings), 'warning')}", "odd"
    return "passed", "good"


def _facts(report: ScanReport) -> list[tuple[str, str]]:
    facts = [
        ("Read from", report.kind),
        ("Files opened", f"{report.files:,}"),
        ("Images used", f"{report.used:,}"),
        ("Unreadable", f"{len(report.bad):,}"),
        ("Copies left out", f"{len(report.copies):,}"),
        ("Kept at", f"up to {report.stored_size_px} × {report.stored_size_px} px"),
        ("Time", f"{report.seconds:.1f} s"),
    ]
    if report.not_sampled:
        facts.insert(2, ("Not opened", f"{report.not_sampled:,}"))
    return facts


def _class_names(report: ScanReport) -> list[str]:
    return natsorted({*report.found, *report.classes})


def _class_rows(report: ScanReport, samples: Mapping[str, _Images]) -> list[dict[str, Any]]:
    names = _class_names(report)[:_CLASSES_SHOWN]
    pictures = sum(min(len(samples.get(name, ())), _PER_CLASS) for name in names)
    thumb_px = next((px for px in _THUMBS_PX if pictures * px * px * 3 <= _PICTURE_BYTES), _THUMBS_PX[-1])
    longest = max((max(report.found.get(name, 0), report.classes.get(name, 0)) for name in names), default=0)
    rows = []
    for name in names:
        used = report.classes.get(name, 0)
        parts = {split: counts.get(name, 0) for split, counts in report.splits.items()} or {"all": used}
        left_out = max(report.found.get(name, 0) - used, 0)
        rows.append(
            {
                "name": name,
                "used": used,
                "left_out": left_out,
                "parts": parts,
                "bars": [(part, _percent(number, longest)) for part, number in [*parts.items(), ("out", left_out)]],
                "strip": png_uri(contact_strip(samples[name], thumb_px)) if samples.get(name) else None,
                "shown": min(len(samples.get(name, ())), _PER_CLASS),
            }
        )
    return rows


def _percent(number: int, of: int) -> str:
    return f"{math.floor(1000 * number / max(of, 1)) / 10:g}"


def _lists(report: ScanReport) -> Iterable[_List]:
    reasons: dict[str, list[str]] = {}
    for name, reason in report.bad:
        reasons.setdefault(shown(reason), []).append(name)
    by_reason = sorted(reasons.items(), key=lambda item: -len(item[1]))
    yield _List(
        f"{count(len(report.bad), 'file')} that cannot be read",
        "Left out. Repair them, save them again, or remove them.",
        ("Reason", "Files", "Such as"),
        [(reason, f"{len(names):,}", _some(names)) for reason, names in by_reason[:_ROWS_SHOWN]],
        len(by_reason),
    )
    yield _pairs(
        f"{count(report.contradictory, 'file')} of images under two labels",
        "All are left out. Of each image keep the file with the right label.",
        ("This file", "is the same as"),
        report.contradictions,
    )
    yield _pairs(
        f"{count(len(report.doubtful), 'group')} of near-copies under two labels",
        "They stay, unless one is in another split. If they are one picture, keep the one with the right label.",
        ("This file", "looks like"),
        report.doubtful,
    )
    yield _pairs(
        f"{count(len(report.leaks), 'image')} of one split seen in another",
        "The first of each pair is left out; the other one, of the split that measures, stays.",
        ("Left out", "the same as, or looks like"),
        report.leaks,
    )
    yield _List("How it was read", "", ("Note",), [(shown(note),) for note in report.notes], len(report.notes))
    yield _pairs(
        f"{count(len(report.noted), 'image')} converted",
        "The colours or values used differ from those of the file.",
        ("File", "What was done"),
        report.noted,
    )
    yield _List(
        f"{count(len(report.blank), 'blank image')}",
        "They have one colour, or nearly; they stay. Remove them, or save them again.",
        ("File",),
        [(_name(name),) for name in report.blank[:_ROWS_SHOWN]],
        len(report.blank),
    )
    yield _List(
        f"{count(len(report.near_copies), 'group')} of near-copies",
        "They look the same; each group stays in one split, so that no test image looks like a training image.",
        ("Files", "Such as"),
        [(f"{len(group):,}", _some(group)) for group in report.near_copies[:_ROWS_SHOWN]],
        len(report.near_copies),
    )
    yield _List(
        f"{count(len(report.copies), 'copy', 'copies')}",
        "Left out: their content came before.",
        ("File",),
        [(_name(name),) for name in report.copies[:_ROWS_SHOWN]],
        len(report.copies),
    )
    yield _counts("Passed over unopened", "", "Reason", report.skipped)
    yield _counts("Formats", "", "Format by content", report.formats)
    yield _pairs(
        f"{count(len(report.mislabelled), 'file')} of another format than the name says",
        "The content counts.",
        ("File", "Format by content"),
        report.mislabelled,
    )


def _pairs(title: str, note: str, columns: tuple[str, str], pairs: Sequence[tuple[str, str]]) -> _List:
    return _List(title, note, columns, [(_name(one), _name(other)) for one, other in pairs[:_ROWS_SHOWN]], len(pairs))


def _counts(title: str, note: str, column: str, counts: Mapping[str, int]) -> _List:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    rows = [(shown(name), f"{number:,}") for name, number in ordered[:_ROWS_SHOWN]]
    return _List(title, note, (column, "Files"), rows, len(counts))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(_name(name) for name in names[:_EXAMPLES]) + more


def _name(text: str, limit: int = _NAME_CHARS) -> str:
    """Return a name, without its middle if it is long."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}…{text[-limit // 2 :]}"
    return shown(text)
