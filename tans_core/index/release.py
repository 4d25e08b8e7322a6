"""A release, as a reader sees it. Nothing here imports torch or LanceDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tans_core.errors import NoReleaseError, StoreError, WeightsError, did_you_mean
from tans_core.index.blobs import file_digest, inside
from tans_core.index.history import production_id
from tans_core.index.listing import list_releases
from tans_core.io import read_json

FORMAT = 2
"""Version of a release's tables and cards; raised when old code cannot read new ones, or new code old ones."""


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


def open_production(serving: Path) -> Release:
    """Return the release in production.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: the release in `production` is missing, or another version of TANS made it.
    """
    return open_release(serving, in_production(serving))


def in_production(serving: Path) -> str:
    """Return the id of the release in production.

    Raises:
        NoReleaseError: nothing was published yet.
    """
    current = production_id(serving)
    if current is None:
        raise NoReleaseError(f"{serving}: no release. Run `tans build`, then `tans publish`.")
    return current


def open_release(serving: Path, release_id: str) -> Release:
    """Return a release.

    Raises:
        StoreError: there is no such release, or another version of TANS made it.
    """
    description = serving / "releases" / release_id / "release.json"
    if not release_id or "/" in release_id or not description.is_file():
        known = [one.id for one in list_releases(serving)]
        then = f"There {'is' if len(known) == 1 else 'are'} {', '.join(known)}. `tans rollback --to ID` goes to one."
        raise StoreError(
            f"{serving}: no release {release_id!r}{did_you_mean(release_id, known)}. "
            f"{then if known else 'There is none: run `tans build`, then `tans publish`.'}"
        )
    try:
        content = read_json(description)
    except (OSError, ValueError) as error:
        advice = "Run `tans publish`, or `tans rollback` to another one"
        raise StoreError(f"{description}: not readable as JSON ({error}): it is damaged. {advice}.") from error
    if content.get("format") != FORMAT:
        raise StoreError(
            f"{description}: release {release_id} is of format {content.get('format', 0)}, this version of TANS reads "
            f"{FORMAT}. Run `tans build`, then `tans publish`."
        )
    return Release(release_id, description.parent, content["params"], content["files"])
