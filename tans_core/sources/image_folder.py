"""Source `image-folder`: a user's own images, in the same forms as for `tans retrieve`: a folder, archive or table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tans_core.classes import require_classes
from tans_core.errors import DataError, ParamsError, TooManyBadFilesError
from tans_core.licences import USERS_OWN, Licence, normalise
from tans_core.sources.base import Sample, check_options
from tans_core.tasks.inputs.open import open_input
from tans_core.tasks.reading import read_images

logger = logging.getLogger(__name__)

# Enough to find copies and near-copies. The images themselves are decoded again, at their own size.
_SCANNED_PX = 32


class ImageFolder:
    """Options: path (folder, archive, table), licence, max_bad_share, drop_empty_classes, follow_links, group.

    The last three are those of `scan`. Also licence_texts, the terms of each LicenseRef-... in the licence; and digest,
    that of the `ScanReport`: the images must still have it, unless it is empty.
    """

    name = "image-folder"
    package = ""
    licence = USERS_OWN
    defaults: Mapping[str, Any] = {
        "path": "",
        "licence": licence,
        "licence_texts": {},
        "max_bad_share": 0.5,
        "drop_empty_classes": False,
        "follow_links": False,
        "group": "",
        "digest": "",
    }

    def stated_licence(self, options: Mapping[str, Any]) -> Licence:
        stated = normalise(str(options.get("licence") or self.licence))
        texts = options.get("licence_texts")
        kept = {str(name): str(text) for name, text in texts.items()} if isinstance(texts, Mapping) else {}
        return Licence(stated.expression, {**stated.texts, **kept})

    def missing(self, options: Mapping[str, Any]) -> str | None:
        path = str(options.get("path", ""))
        if not path:
            return "set options.path to the folder of the images"
        return None if Path(path).exists() else f"put the images into {path}, or change options.path"

    def load(self, options: Mapping[str, Any], seed: int) -> Iterator[Sample]:
        chosen = check_options(self.name, options, self.defaults)
        if not chosen["path"]:
            raise ParamsError(
                f"source {self.name!r}: options.path: missing; want a folder with one folder of images per class, "
                "an archive of one, or a CSV or Parquet table"
            )
        root = Path(chosen["path"])
        drop = chosen["drop_empty_classes"]
        opened = open_input(root, drop, chosen["follow_links"], chosen["group"] or None)
        # Imported here, since no other source needs the scan.
        from tans_core.tasks.scan import scan

        # Without workers: stages of several tasks run side by side.
        with scan(opened, stored_size_px=_SCANNED_PX, workers=0, drop_empty_classes=drop) as scanned:
            require_classes(str(root), scanned.report.classes, found=scanned.report.found)
            report, kept = scanned.report, {row.path: row for row in scanned.rows}
        if chosen["digest"] and report.digest != chosen["digest"]:
            raise DataError(
                f"{root}: its images changed since it was added as a task: got digest {report.digest[:12]}…, want "
                f"{chosen['digest'][:12]}… of params.yaml.\n"
                "  Run `tans tasks add ... --replace` to use it as it is now."
            )
        for name, reason in report.bad:
            logger.warning("%s: left out: %s", name, reason)
        for one, other in (*report.leaks, *report.contradictions):
            logger.warning("%s: left out: the same image as %s", one, other)
        if len(report.bad) > chosen["max_bad_share"] * report.files:
            raise TooManyBadFilesError(
                f"{root}: {len(report.bad)} of {report.files} files cannot be read, more than the share of "
                f"{chosen['max_bad_share']}."
            )
        wanted = [entry for entry in opened.entries if entry.name in kept]
        for entry, data in read_images(opened, wanted):
            if isinstance(data, str):
                logger.warning("%s: left out: %s", entry.name, data)
                continue
            row = kept[entry.name]
            yield Sample(data.pixels, entry.label, row.group, entry.name, entry.split, row.content)
