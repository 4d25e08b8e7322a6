"""The report of a scan, as a value and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tans_core.tasks.decode import MAX_ASPECT
from tans_core.tasks.inputs.base import OUTSIDE_CLASSES

EXAMPLES = (60, 8, 64)
"""Of a scan's examples: how many classes have them, how many images each, and their largest side in pixels."""


@dataclass(frozen=True)
class ScanReport:
    """The report of a scan.

    Attributes:
        path: of the input, as the user gave it.
        kind: of the input: "folder", "zip", "tar", "csv", "parquet".
        stored_size_px: the largest side that the images are kept at.
        files: files that were opened.
        used: images that a task can use.
        classes: images used, by class, in natural order; 0 for a class that is left without images.
        found: files listed, by class.
        splits: images used, by split and class, if the input defines splits; else empty.
        bad: (name, reason) of files that could not be read.
        copies: names left out because their content came before.
        contradictions: pairs of names with two labels and the same pixels; all are left out.
        near_copies: groups of names whose images look the same; a group stays in one split.
        doubtful: pairs of names that look the same and have two labels, one pair a group; kept unless they leak.
        leaks: pairs (train or val, test), or (train, val), of names in different splits of the input whose images are
            the same or look the same; the first of each pair is left out.
        skipped: counts of what was not opened, by reason.
        formats: counts of files by the format of their content.
        mislabelled: (name, format) of files whose content has another format than their suffix.
        sides_px: shorter side of the images used, in pixels: least, lower quartile, median, upper quartile, most.
        elongated: images used with sides in a ratio above `max_aspect`; their ends are cut off.
        not_sampled: files that were not opened because of the cap on images.
        digest: SHA-256 of names, classes, splits and contents of the files opened; order and times do not matter.
        seconds: duration of the scan.
        notes: sentences about how the input was read, such as the column by which images are grouped.
        noted: (name, note) of images used that were converted, such as in their colours.
        blank: names of images of one colour, or nearly.
        straddling: groups of the input with images in more than one of its splits.
        planned: images by split and class, as `Scan.task` splits them.
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
    planned: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def max_aspect(self) -> float:
        """The ratio of sides above which an image counts as elongated."""
        return MAX_ASPECT

    @property
    def outside(self) -> int:
        """Files outside the class folders, which were not opened."""
        return self.skipped.get(OUTSIDE_CLASSES, 0)

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest class with images; 1 if no class has any."""
        counts = [count for count in self.classes.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    @property
    def bad_share(self) -> float:
        """Share of the files opened that could not be read, 0..1."""
        return len(self.bad) / self.files if self.files else 0.0

    @property
    def contradictory(self) -> int:
        """Number of files left out because their image has two labels."""
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
