"""The result of a prediction: a row for each image, read or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        name: of the file, below the path that was given.
        label: the most probable class; None if the image could not be read.
        probability: of this class, calibrated, 0..1.
        error: why the image could not be read; None if it was.
        truth: the class that the input tells; None where it tells none, or one that the network does not know.
    """

    name: str
    label: str | None
    probability: float | None
    error: str | None
    truth: str | None


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """Predictions in the order of the input. A sequence.

    Attributes:
        class_names: K names.
        names, errors, truths: of each of N images; see `Prediction`.
        probabilities: (N, K) float32, calibrated; NaN for images that could not be read.
        skipped: counts of files that were not opened, by reason.
        missing: with a split, how many of its images were not found.
    """

    class_names: tuple[str, ...]
    names: Sequence[str]
    errors: Sequence[str | None]
    truths: Sequence[str | None]
    probabilities: npt.NDArray[np.float32] = field(repr=False)
    skipped: Mapping[str, int] = field(default_factory=dict)
    missing: int = 0

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if self.errors[index] is not None:
            return Prediction(self.names[index], None, None, self.errors[index], self.truths[index])
        best = int(self.probabilities[index].argmax())
        likely = float(self.probabilities[index, best])
        return Prediction(self.names[index], self.class_names[best], likely, None, self.truths[index])

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[index] for index in range(len(self)))

    @property
    def unreadable(self) -> int:
        """How many images could not be read."""
        return sum(error is not None for error in self.errors)

    @property
    def judged(self) -> int:
        """How many images were read whose class is known."""
        return sum(one.label is not None and one.truth is not None for one in self)

    @property
    def accuracy(self) -> float | None:
        """Share of the judged images whose class was predicted; None if there are none."""
        right = sum(one.label is not None and one.label == one.truth for one in self)
        return right / self.judged if self.judged else None

    def to_dicts(self, every_class: bool = True) -> list[dict[str, Any]]:
        """Return one dict per image; `probabilities` by class, unless `every_class` is false."""
        rows = []
        for number, one in enumerate(self):
            row: dict[str, Any] = dict(vars(one))
            if every_class:
                values = self.probabilities[number].tolist() if one.error is None else []
                row["probabilities"] = dict(zip(self.class_names, values, strict=False)) if values else None
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `tans predict --json` prints them."""
        counts = {"images": len(self), "unreadable": self.unreadable, "judged": self.judged, "missing": self.missing}
        return {
            **counts,
            "accuracy": self.accuracy,
            "class_names": list(self.class_names),
            "predictions": self.to_dicts(),
            "skipped": dict(self.skipped),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image: name, label, probability, error, truth, and a column `p(<class>)` per class."""
        import pandas as pd

        plain = pd.DataFrame(self.to_dicts(every_class=False), columns=[*Prediction.__dataclass_fields__])
        every = pd.DataFrame(self.probabilities, columns=[f"p({name})" for name in self.class_names])
        return pd.concat([plain, every], axis=1)
