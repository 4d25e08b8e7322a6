"""A data set as a search sees it: the statistics of its images, in a file that can be sent without the images.

Axes: S width of a query's statistics, d space dimension.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from tans_core.errors import DataError, problems
from tans_core.io import write_text

MAX_BYTES = 4 * 2**20
"""Largest file; that of a data set has about 100 KB."""

Numbers = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=100_000)]


class Query(BaseModel):
    """The statistics and the vector of a data set. It holds no image, no name of a file and no name of a class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["tans-query-1"] = Field(default="tans-query-1", description="Version of this file.")
    release: str = Field(min_length=1, max_length=200, description="The release whose encoders made it.")
    encoder: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="A hash of these encoders. Releases with the same encoders answer the same file.",
    )
    images: int = Field(ge=1, description="How many images the statistics are of.")
    statistics: Numbers = Field(description="(S,) as float32: what the query encoder reads.")
    vector: Numbers = Field(description="(d,) as float32: the data set's place in the space, of unit norm.")

    @classmethod
    def parse(cls, data: bytes | str, name: str) -> Query:
        """Check the content of a file; `name` is for messages.

        Raises:
            DataError: it is not JSON, or a value is missing, of a wrong type, or not finite; lists all problems.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            listed = "; ".join(problems(error, cls)[:5])
            raise DataError(
                f"{name}: not a query file: {listed}.\n  Make it with `tans embed PATH -o {name}`."
            ) from None

    @classmethod
    def read(cls, path: Path) -> Query:
        """Read a file that `tans embed` wrote.

        Raises:
            DataError: it cannot be read, is larger than `MAX_BYTES`, or is no query.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or type(error).__name__}. `tans embed` makes a file.") from None
        if len(data) > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES:,} bytes, too many for a query. `tans embed` makes a file.")
        return cls.parse(data, str(path))

    def write(self, path: Path) -> None:
        """Write the file, as JSON."""
        write_text(self.model_dump_json(indent=1) + "\n", path)
