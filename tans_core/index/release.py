"""A release, as a reader sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tans_core.errors import WeightsError
from tans_core.index.blobs import file_digest, inside


@dataclass(frozen=True)
class Release:
    """A release, fixed while a reader uses it.

    Attributes:
        id: of the release; `pipeline` for the view of data/.
        root: the folder that holds space/, store/, base/, zoo/ and arrivals/.
        params: sections of params.yaml that it was built with.
        files: SHA-256 of each published file by path; empty for the view of data/.
    """

    id: str
    root: Path
    params: dict[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def space_dir(self) -> Path:
        return self.root / "space"

    @property
    def store_dir(self) -> Path:
        return self.root / "store"

    @property
    def base_dir(self) -> Path:
        return self.root / "base"

    def resolve(self, relative: str) -> Path:
        """Return a card's file, given relative to data/, checked together with other files of its stem.

        Raises:
            WeightsError: it is outside the release, missing, or changed since it was published.
        """
        path = self.root / inside(relative)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file in release {self.id}. Run `tans build`, then `tans publish`.")
        self.check(relative.removesuffix(".safetensors") + ".")
        return path

    def check(self, *prefixes: str) -> None:
        """Compare all files whose path has one of the prefixes with those published; without prefixes, all files.

        Raises:
            WeightsError: some are missing or were changed since.
        """
        if damaged := [name for name in self.files if name.startswith(prefixes or ("",)) and not self._intact(name)]:
            raise WeightsError(
                f"{', '.join(str(self.root / name) for name in damaged[:5])}: missing or changed since release "
                f"{self.id} was published: the file is damaged. Run `tans publish`, which stores it again."
            )

    def _intact(self, name: str) -> bool:
        path = self.root / name
        return path.is_file() and file_digest(path) == self.files[name]
