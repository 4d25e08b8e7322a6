"""The scan: every file of a user's input decoded once, in parallel, in bounded memory.

Files that cannot be used are left out and listed with a reason. Chunks of results are kept on disk while a scan runs:
if it is killed, the next scan decodes only what is missing or has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from natsort import natsorted

from tans_core.licences import USERS_OWN, normalise
from tans_core.runtime import cores, derive_seed
from tans_core.tasks.assemble import assemble
from tans_core.tasks.chunks import Chunks
from tans_core.tasks.cleaning import KeptImage, clean
from tans_core.tasks.decode import MAX_ASPECT, claims_another_format, fit_box
from tans_core.tasks.identical import with_all_pixels
from tans_core.tasks.inputs.base import Entry, Input, printable
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.pixels import Pixels, SquareImages
from tans_core.tasks.report import EXAMPLES, ScanReport
from tans_core.tasks.splits import balanced_subset, plan_splits
from tans_core.tasks.task import SPLITS, Task


@dataclass(frozen=True)
class Scan:
    """The result of a scan. Use it in a `with`, which releases the decoded images.

    Attributes:
        report: counts, and lists of what is wrong.
        rows: the images that are kept, in the order of the input.
        manifest: the status of every file; see `tans_core.tasks.cleaning`.
        digests: a hash of each row's image at its stored size.
        examples: by class, the first images of the first classes, small: `EXAMPLES`.
    """

    report: ScanReport
    rows: Sequence[KeptImage]
    manifest: pa.Table
    digests: Sequence[bytes]
    examples: Mapping[str, Sequence[Pixels]] = field(repr=False)
    _chunks: Chunks
    _order: npt.NDArray[np.int64]
    _splits: npt.NDArray[np.str_]
    _seed: int

    def task(self, name: str, *, licence: str = USERS_OWN) -> Task:
        """Load the images into memory, split as the report plans: a task of role "user". Judge the report before.

        The input's own splits are kept. Else images are split by class and by group of near-copies, from the scan's
        seed. The same pixels give the same splits; the files' names, order and formats do not matter.
        """
        return assemble(
            [self.rows[row] for row in self._order.tolist()],
            self._splits,
            lambda rows: self.pixels(self._order[rows]),
            name=name,
            source="image-folder",
            licence=normalise(licence),
            role="user",
            stored_size_px=self.report.stored_size_px,
            limits=(None, None, None),
            seed=self._seed,
        )

    def pixels(self, rows: npt.NDArray[np.int64]) -> SquareImages:
        """Return the images of some rows, at their stored size."""
        digests = (self.digests[row] for row in rows.tolist())
        return self._chunks.pixels(_entries(self.rows, rows)).knowing(digests)

    def __enter__(self) -> Scan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._chunks.close(finished=error is None)


def scan(
    path: Path | Input,
    *,
    stored_size_px: int,
    max_images: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    drop_empty_classes: bool = False,
    follow_links: bool = False,
    group: str | None = None,
    resume: Path | None = None,
    held_bytes: int = 0,
) -> Scan:
    """Decode every file of `path` once.

    Args:
        path: a folder of class folders, with or without train/val/test above them; a zip or tar of one; a CSV or
            Parquet file; a folder of Parquet files (`tans_core.tasks.inputs`). Or one that is already listed.
        stored_size_px: the largest side that images are kept at; smaller ones stay as they are.
        max_images: open at most this many files, evenly over classes; None for all.
        workers: number of jobs decoded at a time; None for one a core. It does not change the result.
        seed: of the sample and the splits.
        drop_empty_classes: leave out classes without a usable image, instead of reporting them as empty.
        follow_links: follow links to files and folders outside `path`.
        group: what keeps images in one split; see `open_input`.
        resume: a folder for decoded images, used by this scan alone; None keeps them in memory.
        held_bytes: keep so much of them in memory before the folder is used; a killed scan loses it.

    Raises:
        NoClassesError: there are fewer than two classes.
        EmptyClassError: a class has no file.
        ArchiveError: the archive is refused.
        DataError: `path` is none of these, or cannot be read.
    """
    source = open_input(path, drop_empty_classes, follow_links, group) if isinstance(path, Path) else path
    start = time.monotonic()
    entries = _sample(source.entries, max_images, seed)
    chunks = Chunks(entries, stored_size_px, resume, held_bytes)
    try:
        chunks.fill(source, cores() if workers is None else workers)
        facts = with_all_pixels(source, entries, chunks.facts())
        cleaned = clean(entries, facts)
        rows, reasons = cleaned.rows, facts["reason"].to_pylist()
        used = Counter(row.label for row in rows)
        classes = {label: used[label] for label in source.class_names if used[label] or not drop_empty_classes}
        examples = _examples(rows, [label for label in list(classes)[: EXAMPLES[0]] if used[label]], chunks)
        digests = facts["digest"].take(pa.array([row.entry for row in rows], type=pa.int64())).to_pylist()
        # Sorted by pixels, so that equal images are split in the same way whatever their names are.
        keys = [(row.label, digest, row.content) for row, digest in zip(rows, digests, strict=True)]
        order = sorted(range(len(rows)), key=keys.__getitem__)
        split_seed = derive_seed(seed, "scan")
        splits = plan_splits([rows[index] for index in order], split_seed)
    except BaseException:
        chunks.close(finished=False)
        raise
    unreadable = [(entry.name, reason) for entry, reason in zip(entries, reasons, strict=True) if reason is not None]
    formats, notes, blank = (facts[name].to_pylist() for name in ("format", "note", "blank"))
    report = ScanReport(
        path=printable(str(source.root)),
        kind=source.kind,
        stored_size_px=stored_size_px,
        files=len(entries) + len(source.bad),
        used=len(rows),
        classes=classes,
        found=dict(Counter(entry.label for entry in source.entries)),
        splits=_by_split([(row.split, row.label) for row in rows], classes),
        bad=(*source.bad, *unreadable),
        copies=cleaned.copies,
        contradictions=cleaned.contradictions,
        near_copies=cleaned.near_copies,
        doubtful=cleaned.doubtful,
        leaks=cleaned.leaks,
        skipped={reason: number for reason, number in source.skipped.items() if number},
        formats=dict(sorted(Counter(name for name, why in zip(formats, reasons, strict=True) if why is None).items())),
        mislabelled=tuple(
            (entry.name, name)
            for entry, name in zip(entries, formats, strict=True)
            if name and claims_another_format(entry.name, name)
        ),
        sides_px=_sides(rows),
        elongated=sum(max(row.width, row.height) > MAX_ASPECT * min(row.width, row.height) for row in rows),
        not_sampled=len(source.entries) - len(entries),
        digest=_digest(entries, facts["sha256"].to_pylist()),
        seconds=round(time.monotonic() - start, 2),
        notes=tuple(source.notes),
        noted=tuple((entry.name, note) for entry, note in zip(entries, notes, strict=True) if note),
        blank=tuple(entry.name for entry, empty in zip(entries, blank, strict=True) if empty),
        straddling=_straddling(rows, entries),
        planned=_by_split([(str(split), rows[row].label) for split, row in zip(splits, order, strict=True)], classes),
    )
    manifest = cleaned.manifest(entries, facts, source.bad)
    return Scan(report, rows, manifest, digests, examples, chunks, np.array(order, dtype=np.int64), splits, split_seed)


def _examples(rows: Sequence[KeptImage], labels: Sequence[str], chunks: Chunks) -> dict[str, list[Pixels]]:
    """Return, by class, the first images, small."""
    _, per_class, size_px = EXAMPLES
    chosen: dict[str, list[int]] = {label: [] for label in labels}
    for number, row in enumerate(rows):
        members = chosen.get(row.label)
        if members is not None and len(members) < per_class:
            members.append(number)
    return {
        label: [
            fit_box(image.transpose(1, 2, 0), size_px) for image in chunks.pixels(_entries(rows, np.array(members)))
        ]
        for label, members in chosen.items()
    }


def _entries(rows: Sequence[KeptImage], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.array([rows[row].entry for row in chosen.tolist()], dtype=np.int64)


def _sample(entries: Sequence[Entry], max_images: int | None, seed: int) -> Sequence[Entry]:
    if max_images is None or len(entries) <= max_images:
        return entries
    names = {label: index for index, label in enumerate(sorted({entry.label for entry in entries}))}
    labels = np.array([names[entry.label] for entry in entries], dtype=np.int64)
    # Evenly over the input's splits, too.
    picked = balanced_subset(labels, [entry.split or "" for entry in entries], max_images, np.random.default_rng(seed))
    # All entries of a sampled file: it may be listed with two labels.
    files = {entries[index].path for index in picked} - {None}
    return [entries[index] for index in sorted({*picked, *(n for n, one in enumerate(entries) if one.path in files)})]


def _digest(entries: Sequence[Entry], hashes: Sequence[str | None]) -> str:
    hashed = hashlib.sha256()
    for row in sorted(
        (entry.name, entry.label, entry.split or "", content or "", *([entry.group] if entry.group else []))
        for entry, content in zip(entries, hashes, strict=True)
    ):
        hashed.update("\0".join((*row, "")).encode())
    return hashed.hexdigest()


def _by_split(places: Sequence[tuple[str | None, str]], classes: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count (split, class) pairs; empty without splits."""
    counts, given = Counter(places), {split for split, _ in places}
    return {split: {label: counts[split, label] for label in classes} for split in SPLITS if split in given}


def _straddling(rows: Sequence[KeptImage], entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return the input's own groups that have images in more than one of its splits."""
    pairs = {(entries[row.entry].group, row.split) for row in rows if row.split and entries[row.entry].group}
    return tuple(natsorted(name for name, number in Counter(name for name, _ in pairs).items() if number > 1))


def _sides(rows: Sequence[KeptImage]) -> tuple[int, int, int, int, int]:
    """Return the least, the quartiles and the most of the shorter sides, in pixels."""
    if not rows:
        return (0, 0, 0, 0, 0)
    least, lower, median, upper, most = np.percentile(
        [min(row.width, row.height) for row in rows], (0, 25, 50, 75, 100), method="nearest"
    )
    return int(least), int(lower), int(median), int(upper), int(most)
