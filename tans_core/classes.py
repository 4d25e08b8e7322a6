"""What a classifier needs of the classes of a data set: at least two, none empty, enough images in each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from natsort import natsorted

from tans_core.errors import DataError, EmptyClassError, NoClassesError, TooFewImagesError
from tans_core.text import count, listed, quoted

LEAVE_OUT = (
    "Add images, delete the classes, or leave them out: `tans tasks scan PATH --drop-empty-classes --save NAME`, "
    "`tans tasks add PATH --drop-empty-classes --name NAME`."
)
"""The advice on classes without an image."""


@dataclass(frozen=True)
class ClassFault:
    """A reason why these classes cannot be used.

    Attributes:
        error: its error.
        classes: the classes at fault, in natural order; for NoClassesError those that have images.
        shown: the first of them, with their numbers.
        text: a sentence, and what to do.
    """

    error: type[DataError]
    classes: tuple[str, ...]
    shown: str
    text: str


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in natural order, the same in every process."""
    # Natural order treats 1 and 01 as equal, so letters come first.
    return tuple(natsorted(sorted(names)))


def class_faults(
    counts: Mapping[str, int], min_images: int = 1, found: Mapping[str, int] | None = None
) -> list[ClassFault]:
    """Return what is wrong with the classes, the gravest first.

    Args:
        counts: by class, the number of usable images; may be 0.
        min_images: a class with fewer has too few.
        found: by class, the number of files that were listed, for the sentence on empty classes.
    """

    def of(classes: Collection[str]) -> str:
        return f"{len(classes):,} of {count(len(counts), 'class', 'classes')}"

    names, found = in_order(counts), found or {}
    empty = tuple(name for name in names if counts[name] == 0)
    filled = tuple(name for name in names if counts[name])
    few = tuple(name for name in filled if counts[name] < min_images)
    faults = []
    if empty:
        files = {name: count(found.get(name, 0), "file") for name in empty}
        shown = listed([f"{quoted(name)} ({'0 of ' * bool(found.get(name))}{files[name]})" for name in empty])
        faults.append(
            ClassFault(EmptyClassError, empty, shown, f"no usable image in {of(empty)}: {shown}. {LEAVE_OUT}")
        )
    if len(filled) < 2:
        shown = listed([quoted(name) for name in filled])
        text = f"only one class has usable images, {shown}" if filled else "no class has a usable image"
        text += "; a classifier needs at least two classes. Put the images of each class into a folder of its own."
        faults.append(ClassFault(NoClassesError, filled, shown, text))
    if few:
        shown = listed([f"{quoted(name)} ({counts[name]})" for name in few])
        text = f"{of(few)} {'has' if len(few) == 1 else 'have'} fewer than {min_images} usable images: {shown}. "
        text += "Add images, delete these classes, or lower data.min_images_per_class in params.yaml."
        faults.append(ClassFault(TooFewImagesError, few, shown, text))
    return faults


def require_classes(
    where: str, counts: Mapping[str, int], min_images: int = 1, found: Mapping[str, int] | None = None
) -> None:
    """Raise the gravest of `class_faults`: EmptyClassError, NoClassesError or TooFewImagesError."""
    for fault in class_faults(counts, min_images, found):
        raise fault.error(f"{where}: {fault.text}")
