"""The sentences of the gate of a search: they name classes and files, and advise what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tans_core.classes import ClassFault, class_faults
from tans_core.errors import EmptyClassError, TansError
from tans_core.params import QueryGateParams
from tans_core.tasks.report import ScanReport
from tans_core.text import count, listed, quoted


@dataclass(frozen=True)
class Facts:
    """A report, and the limits that it is checked against."""

    report: ScanReport
    thresholds: QueryGateParams
    min_images_per_class: int
    max_bad_share: float
    drop_empty_classes: bool = False

    @cached_property
    def counts(self) -> dict[str, int]:
        """Usable images by class, also of classes that are to be dropped."""
        return dict.fromkeys(self.report.found, 0) | self.report.classes

    @cached_property
    def faults(self) -> dict[type[TansError], ClassFault]:
        return {fault.error: fault for fault in class_faults(self.counts, self.min_images_per_class, self.report.found)}


def plain(text: str) -> str:
    """Return a library's message on one line, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def say_bad(facts: Facts, _: Sequence[str]) -> str:
    report = facts.report
    return (
        f"{len(report.bad):,} of {count(report.files, 'file')} cannot be read "
        f"({len(report.bad) / max(report.files, 1):.0%}, allowed: {facts.max_bad_share:.0%}): "
        f"{listed([f'{quoted(name)} ({plain(reason)})' for name, reason in report.bad], 3)}. "
        "Repair or remove them, or raise data.max_bad_share in params.yaml."
    )


def say_fault(error: type[TansError]) -> Callable[[Facts, Sequence[str]], str]:
    return lambda facts, _: facts.faults[error].text


def say_dropped(facts: Facts, names: Sequence[str]) -> str:
    shown = facts.faults[EmptyClassError].shown
    return f"{count(len(names), 'class', 'classes')} left out for want of a usable image: {shown}."


def say_small(facts: Facts, _: Sequence[str]) -> str:
    return (
        f"the median image is {facts.report.sides_px[2]} pixels on its shorter side, want at least "
        f"{facts.thresholds.min_median_side_px}. Give the images themselves, not their thumbnails."
    )


def say_enlarged(facts: Facts, _: Sequence[str]) -> str:
    report = facts.report
    return (
        f"the median image is {report.sides_px[2]} pixels on its shorter side; a network that reads "
        f"{report.stored_size_px} pixels enlarges it. Give larger images where there are any."
    )


def say_leaks(facts: Facts, _: Sequence[str]) -> str:
    leaks = facts.report.leaks
    allowed = facts.thresholds.max_leak_share
    share = len(leaks) / (facts.report.used + len(leaks))
    over = f" ({share:.0%}, allowed: {allowed:.0%})" if share > allowed else ""
    return (
        f"{count(len(leaks), 'image')} of one split seen in another{over}, left out of the earlier one: "
        f"{_pairs(leaks)}. Accuracies that you measured on these splits are too high. Keep a picture and its copies in "
        "one split."
    )


def say_contradictions(facts: Facts, _: Sequence[str]) -> str:
    pairs = facts.report.contradictions
    allowed = facts.thresholds.max_contradiction_share
    share = facts.report.contradiction_share
    over = f" ({share:.0%} of the files, allowed: {allowed:.0%})" if share > allowed else ""
    files = count(facts.report.contradictory, "file")
    return (
        f"{files} of images under two labels{over}, left out: {_pairs(pairs)}. "
        "Of each image keep the file with the right label."
    )


def say_doubtful(facts: Facts, _: Sequence[str]) -> str:
    pairs = facts.report.doubtful
    return (
        f"{count(len(pairs), 'group')} of images that look the same under two labels: {_pairs(pairs)}. "
        "Look at them: if they are one picture, keep the one with the right label."
    )


def say_untaught(facts: Facts, names: Sequence[str]) -> str:
    return (
        f"{count(len(names), 'class', 'classes')} with images for val or test and none to train on: {listed(names)}. "
        "Add images of them to train, or take them out of the other splits."
    )


def say_unseen(split: str, purpose: str) -> Callable[[Facts, Sequence[str]], str]:
    def say(facts: Facts, names: Sequence[str]) -> str:
        where = f" to {split}" if split in facts.report.splits else ""
        return (
            f"{count(len(names), 'class', 'classes')} will have no {split} image to {purpose}: "
            f"{_with_images(facts, names)}. Add images of them{where}."
        )

    return say


def say_imbalance(facts: Facts, _: Sequence[str]) -> str:
    filled = {name: number for name, number in facts.report.classes.items() if number}
    most, least = max(filled, key=lambda name: filled[name]), min(filled, key=lambda name: filled[name])
    return (
        f"the largest class has {facts.report.imbalance:.0f} times the images of the smallest: {quoted(most)} "
        f"({filled[most]:,}), {quoted(least)} ({filled[least]:,}). "
        "The accuracy on small classes will be uncertain; add images of them."
    )


def say_copies(facts: Facts, _: Sequence[str]) -> str:
    copies = facts.report.copies
    return (
        f"{len(copies):,} of {count(facts.report.files, 'file')} are copies of others and left out, such as "
        f"{listed([quoted(name) for name in copies], 3)}. The data set is smaller than it looks."
    )


def say_blank(facts: Facts, _: Sequence[str]) -> str:
    report, allowed = facts.report, facts.thresholds.max_blank_share
    over = f" ({report.blank_share:.0%}, allowed: {allowed:.0%})" if report.blank_share > allowed else ""
    return (
        f"{len(report.blank):,} of {count(report.files, 'file')} are blank, of one colour or nearly{over}: "
        f"{listed([quoted(name) for name in report.blank], 3)}. "
        "Look at them: remove them, or save them again from their source."
    )


def say_straddling(facts: Facts, _: Sequence[str]) -> str:
    groups = facts.report.straddling
    return (
        f"{count(len(groups), 'group')} with images in more than one of your splits: "
        f"{listed([quoted(group) for group in groups])}. Accuracies will be too good: move each group into one split."
    )


def say_elongated(facts: Facts, _: Sequence[str]) -> str:
    return (
        f"{facts.report.elongated:,} of {count(facts.report.used, 'image')} have sides in a ratio above "
        f"{facts.report.max_aspect:g} to 1, and their ends are cut off. Crop them yourself if the subject is at an end."
    )


def say_outside(facts: Facts, _: Sequence[str]) -> str:
    files = count(facts.report.outside, "file")
    return f"{files} outside the class folders passed over. Move what belongs to a class into its folder."


def _with_images(facts: Facts, names: Sequence[str]) -> str:
    images = {quoted(name): number for name, number in facts.report.classes.items()}
    return listed([f"{name} ({images[name]})" for name in names])


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return listed([f"{quoted(one)} and {quoted(other)}" for one, other in pairs], 3)
