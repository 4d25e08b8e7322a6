"""Detection of the kind of an input, by its content."""

from __future__ import annotations

import os
from pathlib import Path

from tans_core.errors import DataError
from tans_core.tasks.inputs.archive import archive_kind, list_archive
from tans_core.tasks.inputs.base import Input
from tans_core.tasks.inputs.folder import list_folder
from tans_core.tasks.inputs.table import is_parquet_folder, is_table, list_table


def open_input(
    path: Path, drop_empty_classes: bool = False, follow_links: bool = False, group: str | None = None
) -> Input:
    """List the entries of a path, without decoding them.

    Args:
        path: a folder of class folders, with or without train/val/test above them; a zip or tar of one; a CSV of paths
            and labels; a Parquet file with images, or a folder of such files.
        drop_empty_classes: leave out classes without a file instead of failing.
        follow_links: follow links that lead outside the folder, or the table's folder; links in archives never are.
        group: keeps images in one split: a table's column, or "folder" for the folders below each class; "none" for no
            groups. None: a column with a usual name, if there is one (`tans_core.tasks.inputs.groups`).

    Raises:
        ArchiveError: the archive is refused.
        NoClassesError: there are no classes, or only one.
        EmptyClassError: a class has no file.
        DataError: `path` does not exist, cannot be read, or is none of these.
    """
    check_readable(path)
    if path.is_dir():
        if is_parquet_folder(path):
            return list_table(path, drop_empty_classes, follow_links, group)
        return list_folder(path, drop_empty_classes, follow_links, group)
    kind = archive_kind(path)
    if kind is not None:
        return list_archive(path, kind, drop_empty_classes, group=group)
    if is_table(path):
        return list_table(path, drop_empty_classes, follow_links, group)
    raise DataError(
        f"{path}: neither an archive (zip, tar) nor a table (CSV, Parquet). Want one, or a folder of class folders.\n"
        "  A CSV begins with the names of its columns, such as path,label. Rename it to .csv, .tsv or .tab: then the "
        "error names the missing column."
    )


def check_readable(path: Path) -> None:
    """Raise DataError unless the path is a file or a folder that can be read."""
    try:
        if path.is_dir():
            with os.scandir(path):
                return
        if path.is_file():
            with path.open("rb"):
                return
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or type(error).__name__}. Make it readable for your user, or scan a copy."
        ) from error
    what = "neither a file nor a folder" if path.exists() else "no such file or folder"
    wanted = "a folder of class folders, a zip or tar of one, or a table (CSV, Parquet)"
    raise DataError(f"{path}: {what}. Want {wanted}.")
