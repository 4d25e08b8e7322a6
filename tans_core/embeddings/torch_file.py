"""Reads what `torch.save` wrote as data: tensors, numbers, text, lists and dicts. Nothing that a file brings is ever run.

Before anything is read, the file's own directory is looked at (such a file is a zip of uncompressed records), so that a small
file cannot become a large one.
"""

from __future__ import annotations

import codecs
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Sequence
from os import SEEK_END
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tans_core.errors import DataError

# The published zoo has 3 MB of pickle and 14,011 records.
_MAX_PICKLE_BYTES = 256 * 2**20
_MAX_RECORDS = 2_000_000
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_ENCRYPTED = 0x1
# The records at the end of a zip, after APPNOTE.TXT of PKWARE, 4.3.14 to 4.3.16; those of 64 bits stand before the other.
_END = struct.Struct("<4s4H2LH")
_LOCATOR_64 = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_SIZES_64 = 0x0001
_NUMBER_CODES = re.compile(r"[fiu][1248]|b1")
_PROGRAMS = {"builtins", "nt", "os", "posix", "runpy", "subprocess", "sys"}
HOW_TO_CONVERT = (
    "On a machine where you trust it: load it by torch.load(path, weights_only=False), and save its numbers, text and tensors "
    "(of a module: module.state_dict()) by torch.save; docs/published.md has the lines"
)


class _DtypeName:
    """Stands for numpy.dtype while a file is read: the code of a plain number, and no more."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not _NUMBER_CODES.fullmatch(code):
            raise pickle.UnpicklingError(f"a NumPy scalar of type {code!r:.40}, which is no plain number")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def _scalar(dtype: object, data: object) -> float | int | bool:
    """Stands for NumPy's own reconstructor of scalars: makes the number that the bytes are."""
    if not isinstance(dtype, _DtypeName) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a NumPy scalar that is no plain number")
    number: float | int | bool = np.frombuffer(data, np.dtype(dtype.order + dtype.code), count=1)[0].item()
    return number


# By the names that files of NumPy 2 and NumPy 1 use. NumPy's own functions are never reached.
_NUMPY_SCALARS: list[Any] = [
    (_DtypeName, "numpy.dtype"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
]


def read_torch_file(path: Path) -> Any:
    """Return what a file of `torch.save` holds; tensors stay on disk until they are used.

    NumPy scalars come back as Python numbers.

    Args:
        path: a file in torch's zip form (torch 1.6 and later).

    Raises:
        DataError: no such file, no file of this form, a damaged or outsized one, or one that asks for more than data.
    """
    _check_file(path)
    _check_directory(path)
    # Warnings of torch's reader are about pickles of other protocols; those end in an error of their own.
    with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_SCALARS):
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            raise DataError(_refusal(path, error)) from None
        except Exception as error:  # a damaged file can fail in any of torch's and Python's ways
            reason = (str(error).strip() or "no reason given").splitlines()[0][:200]
            raise DataError(f"{path}: damaged: {type(error).__name__}: {reason}. Copy or download it again.") from None


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path}: a folder, where a file of torch.save is wanted.")
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    if not path.is_file():
        raise DataError(f"{path}: no plain file.")
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    if not start:
        raise DataError(f"{path}: empty. Copy or download it again.")
    if start == _LEGACY_START:
        raise DataError(
            f"{path}: written in the form of torch before 1.6, whose sizes cannot be checked. Convert it: "
            "torch.save(torch.load(path, weights_only=True), new_path)."
        )
    if start[:4] != b"PK\x03\x04":
        what = "a bare pickle" if start[:1] == b"\x80" else f"its first bytes are {start[:8]!r}"
        raise DataError(f"{path}: not a file of torch.save ({what}). {HOW_TO_CONVERT}.")


def _check_end(path: Path) -> int:
    """Return how many records the zip's end speaks of; raise where it does not name the place right before it as the directory's.

    Readers of zips make up for that in different ways: the directory that is checked here would not be the one torch reads.
    """
    with path.open("rb") as file:
        size = file.seek(0, SEEK_END)
        start = size - min(size, _END_64.size + _LOCATOR_64.size + _END.size)
        file.seek(start)
        tail = file.read()
    place = len(tail) - _END.size
    signature, *_, count, length, offset, comment = _END.unpack(tail[place:])
    if signature != b"PK\x05\x06" or comment:
        raise zipfile.BadZipFile("no end record of a zip at its end")
    locator = place - _LOCATOR_64.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        place = locator - _END_64.size
        _, _, at, _ = _LOCATOR_64.unpack(tail[locator : locator + _LOCATOR_64.size])
        if place < 0 or at != start + place:
            raise zipfile.BadZipFile("its end record points elsewhere")
        signature, *_, count, length, offset = _END_64.unpack(tail[place : place + _END_64.size])
        if signature != b"PK\x06\x06":
            raise zipfile.BadZipFile("its end record points elsewhere")
    if offset + length != start + place:
        raise zipfile.BadZipFile("its directory does not lie where its end record says")
    return int(count)


def _check_names(records: Sequence[zipfile.ZipInfo], count: int) -> None:
    """Raise where readers of zips would find different records in one directory, or different sizes of them."""
    # Python cuts a name at its first zero byte; torch's reader takes capital and small letters for the same.
    names = {record.orig_filename.lower() for record in records}
    if len(records) != count or len(names) != count or any("\0" in name for name in names):
        raise zipfile.BadZipFile("its names are not unique")
    if any(_extra_ids(record.extra).count(_SIZES_64) > 1 for record in records):
        raise zipfile.BadZipFile("a record with two sizes")


def _extra_ids(extra: bytes) -> list[int]:
    """Return the ids of a record's extra fields."""
    found, place = [], 0
    while place + 4 <= len(extra):
        own, length = struct.unpack_from("<HH", extra, place)
        found.append(own)
        place += 4 + length
    return found


def _check_directory(path: Path) -> None:
    """Raise where the zip's directory, or its pickle, says that reading the file would take more than the file."""
    try:
        count = _check_end(path)
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            _check_names(records, count)
            content = archive.read(_checked_pickle(path, records))
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, struct.error) as error:
        raise DataError(f"{path}: damaged or cut short ({error}). Copy or download it again.") from None
    if asked := _grows(content):
        raise DataError(f"{path}: refused: it asks for {asked}, which can be of any size. {HOW_TO_CONVERT}.")


def _grows(content: bytes) -> str:
    """Name what a pickle asks for that torch's reader makes, and that can become far larger than the pickle; "" for nothing."""
    if b"\nbytearray\n" in content:
        return "a bytearray"
    if b"_codecs\nencode\n" not in content:
        return ""
    # Bytes in pickles of protocol 2 are text to be encoded as latin1; what encodes bytes anew can be asked for again and again.
    try:
        words = {word for _, word, _ in pickletools.genops(content) if isinstance(word, str) and len(word) < 40}
    except Exception as error:  # a hostile pickle can fail in any of Python's ways
        return f"encoded bytes by instructions that cannot be followed ({type(error).__name__})"
    return next((f"bytes encoded by {word!r}" for word in sorted(words) if _encodes_bytes(word)), "")


def _encodes_bytes(codec: str) -> bool:
    try:
        codecs.encode(b"", codec)  # type: ignore[call-overload]
    except Exception:  # no codec, or one of text
        return False
    return True


def _checked_pickle(path: Path, records: Sequence[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """Return the record that says what is in the file; raise where a record is none that torch.save writes, or outsized."""
    size = path.stat().st_size
    pickles = [
        record for record in records if record.filename.count("/") == 1 and record.filename.endswith("/data.pkl")
    ]
    if len(pickles) != 1:
        raise DataError(f"{path}: a zip, but not one of torch.save: {len(pickles)} records data.pkl in it, must be 1.")
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise DataError(f"{path}: a TorchScript program, not data. {HOW_TO_CONVERT}.")
    packed = [record for record in records if record.compress_type != zipfile.ZIP_STORED]
    locked = [record for record in records if record.flag_bits & _ENCRYPTED]
    if packed or locked:
        raise DataError(
            f"{path}: {len(packed)} compressed and {len(locked)} encrypted records, and torch.save writes neither; such a file "
            "can unpack to any size. Unpack it and save it anew by torch.save."
        )
    total = sum(record.file_size for record in records)
    beyond = [record for record in records if record.header_offset + record.file_size > size]
    if total > size or beyond:
        raise DataError(f"{path}: its records claim {total:,} bytes, and the file has {size:,}: cut short, or forged.")
    if pickles[0].file_size > _MAX_PICKLE_BYTES or len(records) > _MAX_RECORDS:
        raise DataError(
            f"{path}: {pickles[0].file_size:,} bytes of pickle and {len(records):,} records; at most {_MAX_PICKLE_BYTES:,} and "
            f"{_MAX_RECORDS:,} are read. Save tensors whole, not row by row."
        )
    return pickles[0]


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Say what a file asks for beside data; found by reading its instructions, not by following them."""
    try:
        wanted = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # written with instructions that the lister does not know
        wanted = []
    if not wanted:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The reader's own reason stands between what it says of every file.
        own = [
            line for line in lines if not line.startswith(("Weights only", "Check the", "Please file", "(1)", "(2)"))
        ]
        return f"{path}: refused: not plain data ({(own or lines or ['no reason given'])[0][:200]}). {HOW_TO_CONVERT}."
    names = ", ".join(name[:80] for name in wanted[:5]) + (f" and {len(wanted) - 5} more" if len(wanted) > 5 else "")
    module = any(name.startswith("torch.nn.modules.") for name in wanted)
    module = module and not any(name.partition(".")[0] in _PROGRAMS for name in wanted)
    what = "holds a whole pickled module" if module else "holds more than data"
    return f"{path}: refused: {what}: to load it, code would have to run ({names}). Nothing of it was run. {HOW_TO_CONVERT}."
