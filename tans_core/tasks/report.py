"""What a scan found, as a value and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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
        notes: sentences about how the input was read, such as by which column images are grouped.
        noted: (name, note) of images used that were changed to be used, such as in their colours.
        blank: names of images that show nothing: one colour, or nearly.
        straddling: groups of the input with images in more than one of its splits.
        units: by class, what can be dealt to the splits: images, and groups of images that stay together.
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
    notes: tuple[str, ...] = ()
    noted: tuple[tuple[str, str], ...] = ()
    blank: tuple[str, ...] = ()
    straddling: tuple[str, ...] = ()
    units: dict[str, int] = field(default_factory=dict)

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

    @property
    def blank_share(self) -> float:
        """Share of the files opened that are blank, 0..1."""
        return len(self.blank) / self.files if self.files else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `write_json` takes."""
        return {**asdict(self), "imbalance": round(self.imbalance, 3), "bad_share": round(self.bad_share, 6)}


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
