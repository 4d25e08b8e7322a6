"""Scan a user's folder of class folders: what `tans retrieve photos/` looks at.

Every file is fully decoded once. What cannot be used is listed with its reason and left out; it never stops the scan until the
share of bad files is too high.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tans_core.errors import EmptyClassError, TooManyBadFilesError
from tans_core.runtime import derive_seed, progress
from tans_core.tasks.assemble import Prepared, assemble, drop_copies
from tans_core.tasks.decode import UnreadableImageError, decode_file, fit_box
from tans_core.tasks.inputs.base import Entry as ImageFile
from tans_core.tasks.inputs.folder import list_folder
from tans_core.tasks.splits import balanced_subset
from tans_core.tasks.task import Task

_CHUNK = 512
_SHOWN = 5


@dataclass(frozen=True)
class ScanReport:
    """What a scan found.

    Attributes:
        folder: the folder as it was given.
        files: files that were opened.
        used: images in the task.
        classes: images used, by class.
        bad: (path, reason) of files that could not be read.
        copies: paths left out because their content came before.
        contradictions: pairs of paths with one content and two labels; both are left out.
        skipped: what was passed over unopened, by reason.
        formats: files by what their content is.
        not_sampled: files that were not opened because of the cap on images.
        warnings: sentences for the user.
    """

    folder: str
    files: int
    used: int
    classes: dict[str, int]
    bad: tuple[tuple[str, str], ...]
    copies: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...]
    skipped: dict[str, int]
    formats: dict[str, int]
    not_sampled: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that `write_json` takes."""
        return asdict(self)

    def summary(self) -> str:
        """Return a few lines for a person."""
        lines = [f"{self.folder}: {self.used:,} images in {len(self.classes)} classes"]
        if self.not_sampled:
            lines.append(f"  a sample: {self.not_sampled:,} more files were not opened")
        if self.bad:
            lines.append(f"  {_count(len(self.bad), 'file')} left out, unreadable:")
            lines += [f"    {path}: {reason}" for path, reason in self.bad[:_SHOWN]]
            lines += [f"    ... and {len(self.bad) - _SHOWN} more"] if len(self.bad) > _SHOWN else []
        if self.copies:
            lines.append(f"  {_count(len(self.copies), 'copy', 'copies')} left out, such as {self.copies[0]}")
        for one, other in self.contradictions[:_SHOWN]:
            lines.append(f"  the same image under two labels, left out: {one}, {other}")
        if self.skipped:
            lines.append("  passed over: " + ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items()))
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def scan_folder(
    path: Path,
    *,
    image_size_px: int,
    max_images: int | None = None,
    min_images_per_class: int = 2,
    max_bad_share: float = 0.5,
    workers: int = 0,
    seed: int = 0,
    drop_empty_classes: bool = False,
) -> tuple[Task, ScanReport]:
    """Read `path/<class>/**` (or `path/{train,val,test}/<class>/**`) into a task of role "user".

    Args:
        path: the folder.
        image_size_px: working size of the square images.
        max_images: open at most so many files, evenly over classes; None for all.
        min_images_per_class: a class with fewer usable images is refused. A class of one goes to train, with a warning.
        max_bad_share: the scan fails when more than this share of the files cannot be read, 0..1.
        workers: threads that decode; 0 for none. The result is the same.
        seed: of the sample and the splits.
        drop_empty_classes: leave class folders without a readable image out instead of failing.

    Raises:
        NoClassesError: there are fewer than two class folders.
        EmptyClassError: a class has no readable image.
        TooFewImagesError: a class has fewer than `min_images_per_class`.
        TooManyBadFilesError: too many files cannot be read.
        DataError: `path` is no folder.
    """
    listing = list_folder(path, drop_empty_classes)
    files = _sample(listing.entries, max_images, seed)
    rows, bad, formats = _read(files, image_size_px, workers)
    if len(bad) > max_bad_share * len(files):
        examples = "; ".join(f"{name}: {reason}" for name, reason in bad[:3])
        raise TooManyBadFilesError(
            f"{path}: {len(bad)} of {len(files)} files cannot be read, more than the share of {max_bad_share} that is allowed "
            f"({examples}).\n  Remove them, or allow a larger share."
        )
    kept, copies, contradictions = drop_copies(rows)
    _check_empty(path, files, kept, drop_empty_classes)
    name = path.resolve().name or "folder"
    task = assemble(
        kept,
        name=name,
        source="image-folder",
        licence="the user's own",
        role="user",
        image_size_px=image_size_px,
        limits=(None, None, None),
        min_images_per_class=min_images_per_class,
        seed=derive_seed(seed, "scan"),
    )
    counts = Counter(int(label) for label in task.labels)
    report = ScanReport(
        folder=str(path),
        files=len(files),
        used=len(task.labels),
        classes={label: counts[index] for index, label in enumerate(task.info.class_names)},
        bad=tuple(bad),
        copies=tuple(copies),
        contradictions=tuple(contradictions),
        skipped={reason: count for reason, count in listing.skipped.items() if count},
        formats=dict(sorted(formats.items())),
        not_sampled=len(listing.entries) - len(files),
        warnings=tuple(_warnings(task)),
    )
    return task, report


def _sample(files: list[ImageFile], max_images: int | None, seed: int) -> list[ImageFile]:
    if max_images is None or len(files) <= max_images:
        return files
    names = {label: index for index, label in enumerate(sorted({file.label for file in files}))}
    labels = np.array([names[file.label] for file in files], dtype=np.int64)
    # Evenly over the splits too, where the folder has them.
    picked = balanced_subset(labels, [file.split or "" for file in files], max_images, np.random.default_rng(seed))
    return [files[index] for index in sorted(picked)]


def _read(
    files: list[ImageFile], image_size_px: int, workers: int
) -> tuple[list[Prepared], list[tuple[str, str]], Counter[str]]:
    rows: list[Prepared] = []
    bad: list[tuple[str, str]] = []
    formats: Counter[str] = Counter()
    results = _read_all(files, image_size_px, workers)
    for file, result in zip(files, progress(results, "Reading images", len(files)), strict=True):
        if isinstance(result, str):
            bad.append((file.name, result))
        else:
            row, file_format = result
            rows.append(row)
            formats[file_format] += 1
    return rows, bad, formats


def _read_all(files: list[ImageFile], image_size_px: int, workers: int) -> Iterator[tuple[Prepared, str] | str]:
    if workers == 0:
        for file in files:
            yield _read_one(file, image_size_px)
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), _CHUNK):
            yield from pool.map(lambda file: _read_one(file, image_size_px), files[start : start + _CHUNK])


def _read_one(file: ImageFile, image_size_px: int) -> tuple[Prepared, str] | str:
    try:
        decoded, data = decode_file(file.path or Path(), image_size_px)
    except UnreadableImageError as error:
        return str(error)
    image = fit_box(decoded.pixels, image_size_px)
    digest = hashlib.sha256(data).hexdigest()
    row = Prepared(image, file.label, "", file.name, file.split, digest, decoded.width, decoded.height)
    return row, decoded.format


def _check_empty(path: Path, files: list[ImageFile], kept: list[Prepared], drop_empty_classes: bool) -> None:
    listed = Counter(file.label for file in files)
    usable = Counter(row.label for row in kept)
    empty = [f"{label!r} (0 of {_count(count, 'file')} usable)" for label, count in listed.items() if not usable[label]]
    if empty and not (drop_empty_classes and len(usable) > 1):
        raise EmptyClassError(
            f"{len(empty)} of {len(listed)} class folders in {path} hold no usable image: {', '.join(empty[:_SHOWN])}.\n"
            "  Add images, delete the folders, or pass --drop-empty-classes."
        )


def _warnings(task: Task) -> Iterator[str]:
    for split, purpose in (
        ("val", "fine-tuning cannot choose its best epoch on"),
        ("test", "no accuracy can be measured on"),
    ):
        present = set(task.split(split)[1].tolist())
        missing = [name for index, name in enumerate(task.info.class_names) if index not in present]
        if missing:
            shown = ", ".join(repr(name) for name in missing[:_SHOWN])
            yield f"{_count(len(missing), 'class', 'classes')} with no {split} image, so {purpose} them: {shown}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
