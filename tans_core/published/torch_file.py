"""Reads files of `torch.save` as data: tensors, numbers, text, lists and dicts. No code in a file is ever run.

Before torch reads a file, its zip directory and the instructions of its pickle are checked, so that a small file cannot
become a large one in memory.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from os import SEEK_END
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tans_core.errors import DataError

# The published zoo has 3 MB of pickle and 14,011 records.
_MAX_PICKLE_BYTES, _MAX_RECORDS, _MAX_ENCODED_BYTES = 256 * 2**20, 2_000_000, 2**32
# All names that tensors, dicts and NumPy scalars need. Other objects that torch's reader allows can be of any size.
_DATA = re.compile(
    r"torch\._utils\._rebuild_(tensor_v2|parameter)|torch\.\w+Storage|collections\.OrderedDict"
    r"|numpy\.dtype|numpy\._?core\.multiarray\.scalar|_codecs\.encode"
)
# Python's codecs from bytes to bytes, by all their names.
_OF_BYTES = re.compile(r"(base64|bz2|hex|quopri|quotedprintable|uu|zip|zlib)(codec)?")
_CONVERT = "To save its tensors, numbers and text alone, on a machine where you trust it: docs/published.md"


class _DtypeName:
    """Replaces numpy.dtype while a file is read: only the code of a number and its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: object, data: bytes) -> float | int | bool:
    """Replaces NumPy's own reconstructor of scalars: decodes a number from its bytes."""
    if not isinstance(dtype, _DtypeName) or not re.fullmatch(r"[fiu][1248]|b1", str(dtype.code)):
        raise pickle.UnpicklingError("a NumPy scalar that is not a plain number")
    number: float | int | bool = np.frombuffer(data, f"{dtype.order}{dtype.code}", count=1)[0].item()
    return number


# By the names in files of NumPy 2 and NumPy 1. NumPy's own functions are never called.
_NUMPY: list[Any] = [(_scalar, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")]
_NUMPY.append((_DtypeName, "numpy.dtype"))


def read_torch_file(path: Path) -> Any:
    """Read a file of `torch.save` (1.6 and later); tensors stay on disk, NumPy scalars become Python numbers.

    Raises:
        DataError: the file is missing, of another format, damaged or too large, or contains more than data.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    # Torch warns of pickles of other protocols, which raise an error anyway.
    with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY):
        warnings.simplefilter("ignore")
        try:
            if objects := _objects_beside_data(_read_pickle(path)):
                names = ", ".join(name[:80] for name in objects[:5])
                raise DataError(f"{path}: refused: more than data ({names}). None of it was run. {_CONVERT}.")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except DataError:
            raise
        except Exception as error:  # a damaged file can fail in any of torch's and Python's ways
            # Torch wraps the error of its reader into advice to load the file all the same.
            cause = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
            reason = (str(cause).strip() or "no reason given").splitlines()[0][:200]
            raise DataError(f"{path}: damaged, cut short or not plain data ({reason}). {_CONVERT}.") from None


def _read_pickle(path: Path) -> bytes:
    """Return the record that describes the content; raise if reading could take more memory than the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise DataError(f"{path}: not a file of torch.save, as torch writes it since 1.6. {_CONVERT}.")
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            # Torch could find another, unchecked directory unless the zip begins with the first record of this one, and
            # ends with the location of this one (APPNOTE.TXT of PKWARE, 4.3.12 to 4.3.16).
            file.seek(archive.start_dir + 42)
            begins = int.from_bytes(file.read(4), "little") == records[0].header_offset == 0
            end = file.seek(-42, SEEK_END)
            locator, last = file.read(20), file.read()
            lost = locator.startswith(b"PK\x06\x07") and int.from_bytes(locator[8:16], "little") != end - 56
            if not begins or lost or not last.startswith(b"PK\x05\x06"):
                raise zipfile.BadZipFile("its directory is in the wrong place")
            pickles = [one for one in records if re.fullmatch(r"[^/]+/data\.pkl", one.filename)]
            if len(pickles) != 1 or any(one.filename.endswith("/constants.pkl") for one in records):
                raise DataError(f"{path}: a zip, but of a TorchScript program, or not of torch.save. {_CONVERT}.")
            # Other zip readers do not end a name at a zero byte, ignore case, or read a second size.
            names = {one.orig_filename.lower() for one in records}
            extra = [len(one.extra) - 4 - int.from_bytes(one.extra[2:4], "little") for one in records if one.extra]
            if len(names) != len(records) or "\0" in "".join(names) or any(extra):
                raise zipfile.BadZipFile("records with the same name, or with two sizes")
            if any(one.compress_type != zipfile.ZIP_STORED or one.flag_bits & 1 for one in records):
                raise DataError(f"{path}: compressed or encrypted: it can unpack to any size. Save it by torch.save.")
            if (total := sum(one.file_size for one in records)) > size:
                raise DataError(f"{path}: its records claim {total:,} of {size:,} bytes: cut short, or forged.")
            if pickles[0].file_size > _MAX_PICKLE_BYTES or len(records) > _MAX_RECORDS:
                limit = f"more than {_MAX_PICKLE_BYTES:,} bytes of pickle or {_MAX_RECORDS:,} records"
                raise DataError(f"{path}: {limit}. Save tensors whole, not row by row.")
            return archive.read(pickles[0])


def _objects_beside_data(content: bytes) -> list[str]:
    """Return the names of objects in a pickle that are not data, sorted. Its instructions are read, not run."""
    names, words, longest, calls = set(), set(), 0, 0
    for instruction, argument, _ in pickletools.genops(content):
        if instruction.name == "GLOBAL":
            names.add(str(argument).replace(" ", "."))
        elif instruction.name == "REDUCE":
            calls += 1
        elif isinstance(argument, str):
            words.add(argument)
            longest = max(longest, len(argument))
    objects = {name for name in names if not _DATA.fullmatch(name)}
    # Bytes in pickles of protocol 2 are text encoded as latin1; repeated encoding could double their size every time.
    if "_codecs.encode" in names:
        codecs = {word for word in words if _OF_BYTES.fullmatch(re.sub(r"[^a-z0-9]", "", word.lower()))}
        objects |= {f"bytes encoded by {codec!r}" for codec in codecs}
        if longest * calls > _MAX_ENCODED_BYTES:
            objects.add("a long text encoded again and again")
    return sorted(objects)
