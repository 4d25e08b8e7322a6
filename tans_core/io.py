"""Files that are either complete or absent: each is written to a temporary file beside it, synced, then renamed."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tans_core.errors import StoreError

_FULL = {
    errno.ENOSPC: "Free some space there",
    errno.EDQUOT: "Free some space there, or ask for a larger quota",
    errno.EFBIG: "Raise the limit on the size of a file (`ulimit -f`), or choose another disk",
}
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


@contextlib.contextmanager
def writing(target: Path) -> Iterator[None]:
    """Wrap the code that writes `target`, so that errors of the disk become a StoreError.

    Raises:
        StoreError: the disk is full, the folder is not writable, or there cannot be such a file.
    """
    try:
        yield
    except Exception as error:
        # A file in a temporary folder: the message names the folder that it becomes.
        within = isinstance(error, StoreError) and str(error).startswith(str(target.parent / f".{target.name}."))
        cause = error.__cause__ if within and error.__cause__ else error
        trouble = None if isinstance(cause, StoreError) else _trouble(cause, target)
        if trouble is None:
            raise
        raise _unwritten(target, *trouble) from cause


def _trouble(error: BaseException, target: Path) -> tuple[str, str] | None:
    """Return why `target` cannot be written, and the remedy; None for any other error."""
    number = getattr(error, "errno", None)
    if number in _READ_ONLY + _IN_THE_WAY:
        file = str(getattr(error, "filename", None) or target)
        at_target = file.startswith(str(target.parent)) or str(target).startswith(file)  # or a folder above
        if number == errno.EROFS:
            remedy = "Mount the disk for writing, or work in a copy of the project on another disk"
        elif number in _READ_ONLY:
            remedy = "Make the folder writable for your user, or work in a copy of the project"
        else:
            remedy = f"Name another file: {file} is in the way" if number != errno.ENAMETOOLONG else "Name another file"
        return (os.strerror(number), remedy) if at_target else None
    # Libraries written in other languages, and copies of whole folders, give only a text.
    reasons = [one for one in _FULL if one == number or os.strerror(one) in str(error)]
    return (os.strerror(reasons[0]), _FULL[reasons[0]]) if reasons else None


def _unwritten(target: Path, reason: str, remedy: str) -> StoreError:
    return StoreError(
        f"{target}: cannot be written: {reason}. No partial file is left. {remedy}, then run the command again."
    )


@contextlib.contextmanager
def atomic_path(target: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on a clean exit it replaces `target`, else it is removed.

    `sync=False` does not wait for the disk: for files that can be made again after a loss of power.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            if sync:
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
            # mkstemp makes files private; the result gets the permissions that the umask allows.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on a clean exit it replaces `target`.

    A reader never sees a partly written folder. An earlier folder is removed only once the new one is complete.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        temporary.chmod(0o755)
        try:
            yield temporary
            if target.exists():
                old = temporary.with_suffix(".old")
                target.rename(old)
                temporary.rename(target)
                shutil.rmtree(old)
            else:
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_whole(target: Path) -> None:
    """Remove a file, a link, or a folder. If this is interrupted, no part of a folder stays under its name.

    The folder is hidden first; `.<name>.removed`, the remains of an interrupted call, can be removed at any time.
    """
    if target.is_symlink() or not target.is_dir():
        target.unlink(missing_ok=True)
        return
    hidden = target.with_name(f".{target.name}.removed")
    shutil.rmtree(hidden, ignore_errors=True)
    target.rename(hidden)
    shutil.rmtree(hidden)


def write_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON with sorted keys; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(text + "\n", path)


def write_text(text: str, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows under one header. Columns are ordered by first appearance; a key that a row lacks is left empty."""
    header = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(files: Iterable[str | Path]) -> str:
    """Return a hash of the code in some files and of the libraries' versions: it changes when their results may."""
    versions = [metadata.version(name) for name in ("torch", "pytorch-lightning")]
    return sha256_bytes(json.dumps([*(sha256_file(Path(file)) for file in files), *versions]).encode())


def resume_folder(folder: Path, made_from: Any) -> Path:
    """Return a folder for checkpoints of one piece of work. Checkpoints made from other inputs are removed.

    Args:
        folder: outside every DVC output, since DVC empties those before a stage runs.
        made_from: all that determines the work, as JSON values: parameters and digests of its inputs.
    """
    stamp = folder / "made_from.json"
    text = json.dumps(made_from, sort_keys=True)
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        write_text(text, stamp)
    return folder
