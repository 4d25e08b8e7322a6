"""Source `image-folder`: a folder of class folders, as `tans_core.tasks.folder` scans it for one-off requests."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tans_core.errors import ParamsError, TooManyBadFilesError
from tans_core.tasks.decode import UnreadableImageError, decode_file
from tans_core.tasks.inputs.folder import list_folder
from tans_core.tasks.sources.base import Sample, check_options

logger = logging.getLogger(__name__)


class ImageFolder:
    """Options: path (of the folder), licence is the user's own, max_bad_share."""

    name = "image-folder"
    package = ""
    licence = "the user's own"
    defaults: Mapping[str, Any] = {"path": "", "max_bad_share": 0.5}

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        if not chosen["path"]:
            raise ParamsError(
                f"source {self.name!r}: options.path: missing; want a folder with one folder of images a class"
            )
        root = Path(chosen["path"])
        files = list_folder(root).entries
        bad = 0
        for file in files:
            try:
                assert file.path is not None
                decoded, data = decode_file(file.path)
            except UnreadableImageError as error:
                bad += 1
                logger.warning("%s: left out: %s", file.name, error)
                continue
            digest = hashlib.sha256(data).hexdigest()
            yield Sample(decoded.pixels, file.label, "", file.name, file.split, digest)
        if bad > chosen["max_bad_share"] * len(files):
            raise TooManyBadFilesError(
                f"{root}: {bad} of {len(files)} files cannot be read, more than the share of {chosen['max_bad_share']}."
            )
