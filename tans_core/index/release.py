"""What a reader of a release holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tans_core.errors import WeightsError
from tans_core.index.blobs import file_digest, inside


@dataclass(frozen=True)
class Release:
    """What a reader holds from start to end.

    Attributes:
        id: of the release; `pipeline` for the view of data/.
        root: the folder that holds space/, store/, base/, zoo/ and arrivals/.
        params: the sections of params.yaml that it was built with.
        files: SHA-256 by path of what was published; empty for the view of data/.
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
        """Return the file that a card names, relative to data/. It, and what lies beside it under its name, is as published.

        Raises:
            WeightsError: it leads out of the release, is not there, or was changed since.
        """
        path = self.root / inside(relative)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file in release {self.id}. Run `dvc repro`, then `tans publish`.")
        self.check(relative.removesuffix(".safetensors") + ".")
        return path

    def check(self, *prefixes: str) -> None:
        """Hold all files whose path begins with one of these against what was published; without any, all of them.

        Raises:
            WeightsError: some are missing or were changed since.
        """
        if damaged := [name for name in self.files if name.startswith(prefixes or ("",)) and not self._whole(name)]:
            raise WeightsError(
                f"{', '.join(str(self.root / name) for name in damaged[:5])}: not what release {self.id} was published "
                "with: the file is damaged. Run `tans publish`, which stores it again."
            )

    def _whole(self, name: str) -> bool:
        path = self.root / name
        return path.is_file() and file_digest(path) == self.files[name]
