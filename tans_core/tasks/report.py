"""What a scan found, as a value, as JSON, and as a few lines for a person."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 5
# Joiners hold emoji and Persian words together; what else is not printable could turn a line around or end it.
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class ScanReport:
    """What a scan found.

    Attributes:
        path: what was scanned, as it was given.
        kind: what it is: "folder", "zip", "tar", "csv", "parquet".
        stored_size_px: the largest side that the images are kept at.
        files: files that were opened.
        used: images that are left for a task.
        classes: images used, by class, in natural order; a class of which nothing is left is there with 0.
        found: files listed, by class.
        splits: images used, by split and class, where the input itself draws the line; else empty.
        bad: (name, reason) of files that could not be read.
        copies: names left out because their content came before.
        contradictions: pairs of names with two labels and the same pixels; all are left out.
        near_copies: groups of names whose images look the same; a group never straddles splits.
        doubtful: pairs of names that look the same and have two labels, one pair a group; they stay, unless they leak.
        leaks: pairs (train or val, test), or (train, val), of names whose images are the same or look the same although the
            input puts them into different splits; the first of each pair is left out.
        skipped: what was passed over unopened, by reason.
        formats: files by what their content is.
        mislabelled: (name, format) of files whose name claims another format than that of their content.
        sides_px: shorter side of the images used, in pixels: least, lower quartile, median, upper quartile, most.
        elongated: images used whose sides are in a ratio above `tans_core.tasks.decode.MAX_ASPECT`; their ends are cut off.
        not_sampled: files that were not opened because of the cap on images.
        digest: SHA-256 over names, classes, splits and contents of the files opened, whatever their order and times.
        seconds: how long it took.
    """

    path: str
    kind: str
    stored_size_px: int
    files: int
    used: int
    classes: dict[str, int]
    found: dict[str, int]
    splits: dict[str, dict[str, int]]
    bad: tuple[tuple[str, str], ...]
    copies: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...]
    near_copies: tuple[tuple[str, ...], ...]
    doubtful: tuple[tuple[str, str], ...]
    leaks: tuple[tuple[str, str], ...]
    skipped: dict[str, int]
    formats: dict[str, int]
    mislabelled: tuple[tuple[str, str], ...]
    sides_px: tuple[int, int, int, int, int]
    elongated: int
    not_sampled: int
    digest: str
    seconds: float

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest that has any; 1 where there is none."""
        counts = [count for count in self.classes.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def bad_share(self) -> float:
        """Share of the files opened that could not be read, 0..1."""
        return len(self.bad) / self.files if self.files else 0.0

    @property
    def contradictory(self) -> int:
        """Files left out for an image under two labels."""
        return len({name for pair in self.contradictions for name in pair})

    @property
    def contradiction_share(self) -> float:
        """Their share of the files opened, 0..1."""
        return self.contradictory / self.files if self.files else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `write_json` takes."""
        return {**asdict(self), "imbalance": round(self.imbalance, 3), "bad_share": round(self.bad_share, 6)}

    def summary(self) -> str:
        """Return a few lines for a person."""
        lines = [f"{self.path}: {self.used:,} images in {sum(map(bool, self.classes.values()))} classes"]
        if self.not_sampled:
            lines.append(f"  a sample: {self.not_sampled:,} more files were not opened")
        if self.bad:
            lines.append(f"  {count(len(self.bad), 'file')} left out, unreadable:")
            lines += _some([f"{name}: {reason}" for name, reason in self.bad])
        if self.copies:
            lines.append(f"  {count(len(self.copies), 'copy', 'copies')} left out, such as {self.copies[0]}")
        if self.contradictions:
            lines.append(f"  {count(self.contradictory, 'file')} of images under two labels, left out:")
            lines += _some([f"{one}, {other}" for one, other in self.contradictions])
        if self.leaks:
            lines.append(f"  {count(len(self.leaks), 'image')} of one split seen in another, left out of the first:")
            lines += _some([f"{one}, {other}" for one, other in self.leaks])
        if self.near_copies:
            images = sum(len(group) for group in self.near_copies)
            lines.append(
                f"  {count(len(self.near_copies), 'group')} of near-copies ({images:,} images), each kept in one split, "
                f"such as {', '.join(self.near_copies[0][:3])}"
            )
        if self.mislabelled:
            lines.append(
                f"  {count(len(self.mislabelled), 'file')} of another format than the name says; the content counts:"
            )
            lines += _some([f"{name}: {kind}" for name, kind in self.mislabelled])
        if self.skipped:
            lines.append(
                "  passed over: " + ", ".join(f"{number} x {reason}" for reason, number in self.skipped.items())
            )
        return "\n".join(map(shown, lines))


def count(number: int, one: str, many: str | None = None) -> str:
    """Return "1 file", "2,000 files"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shown(text: str) -> str:
    """Return text that a terminal, UTF-8 and HTML can hold, and that runs in its own direction.

    What is not printable becomes its code.
    """
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _some(lines: list[str]) -> list[str]:
    more = [f"    ... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [f"    {line}" for line in lines[:SHOWN]] + more
