"""The report of a scan as a few lines for a terminal."""

from __future__ import annotations

from collections import Counter

from tans_core.tasks.report import ScanReport
from tans_core.text import SHOWN, count, shown


def summary(report: ScanReport) -> str:
    """Return the report in a few lines."""
    lines = [f"{report.path}: {report.used:,} images in {sum(map(bool, report.classes.values()))} classes"]
    if report.not_sampled:
        lines.append(f"  a sample: {report.not_sampled:,} more files were not opened")
    if report.bad:
        lines.append(f"  {count(len(report.bad), 'file')} left out, unreadable:")
        lines += _some([f"{name}: {reason}" for name, reason in report.bad])
    if report.copies:
        lines.append(f"  {count(len(report.copies), 'copy', 'copies')} left out, such as {report.copies[0]}")
    if report.contradictions:
        lines.append(f"  {count(report.contradictory, 'file')} of images under two labels, left out:")
        lines += _some([f"{one}, {other}" for one, other in report.contradictions])
    if report.leaks:
        lines.append(f"  {count(len(report.leaks), 'image')} of one split seen in another, left out of the first:")
        lines += _some([f"{one}, {other}" for one, other in report.leaks])
    if report.near_copies:
        images = sum(len(group) for group in report.near_copies)
        lines.append(
            f"  {count(len(report.near_copies), 'group')} of near-copies ({images:,} images), each kept in one split, "
            f"such as {', '.join(report.near_copies[0][:3])}"
        )
    if report.mislabelled:
        lines.append(
            f"  {count(len(report.mislabelled), 'file')} of another format than the name says; the content counts:"
        )
        lines += _some([f"{name}: {kind}" for name, kind in report.mislabelled])
    if report.blank:
        lines.append(f"  {count(len(report.blank), 'blank image')}, such as {', '.join(report.blank[:3])}")
    noted = Counter(note for _, note in report.noted)
    lines += _some([f"{count(number, 'image')}: {note}" for note, number in noted.items()], indent=2)
    lines += [f"  note: {note}" for note in report.notes]
    if report.skipped:
        lines.append("  passed over: " + ", ".join(f"{number} x {reason}" for reason, number in report.skipped.items()))
    return "\n".join(map(shown, lines))


def _some(lines: list[str], indent: int = 4) -> list[str]:
    more = [f"... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [" " * indent + line for line in [*lines[:SHOWN], *more]]
