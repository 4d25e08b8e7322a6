"""Ways in which the published files can be wrong, and the expected message of each."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.factories.published import FEATURES, WIDTH, Content, save, zoo_and_queries


@dataclass(frozen=True)
class Damage:
    """A way in which files can be wrong.

    Attributes:
        change: of the content before it is saved, in place.
        words: parts of the error's message; all must occur.
        spoil: of the saved file of the zoo.
    """

    change: Callable[[Content, Content], object]
    words: tuple[str, ...]
    spoil: Callable[[Path], object] = lambda path: None


def _file(spoil: Callable[[Path], object], *words: str) -> Damage:
    return Damage(lambda zoo, queries: None, words, spoil)


def _put(key: str, row: int, value: Any) -> Callable[[Content, Content], object]:
    def change(zoo: Content, queries: Content) -> None:
        zoo[key][row] = value

    return change


def _slot(row: int, slot: int, value: int) -> Callable[[Content, Content], object]:
    def change(zoo: Content, queries: Content) -> None:
        zoo["topol"][row][slot] = value

    return change


def _first(key: str, value: Any) -> Callable[[Content, Content], object]:
    """Put a value into the first data set's queries."""

    def change(zoo: Content, queries: Content) -> None:
        queries[next(iter(queries))][key] = value

    return change


def _rewrite(
    path: Path, compression: int = zipfile.ZIP_STORED, drop: str = "", add: tuple[str, bytes] | None = None
) -> None:
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in [*records, *([add] if add else [])]:
            if not drop or not name.endswith(drop):
                archive.writestr(name, data)


def _claim_more(path: Path) -> None:
    """Claim in the zip's directory that the first tensor has two billion bytes."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    entry = data.index(b"/data/0", start)
    entry = data.rindex(b"PK\x01\x02", 0, entry)
    struct.pack_into("<II", data, entry + 20, 2**31 - 1, 2**31 - 1)
    path.write_bytes(bytes(data))


def _two_directories(path: Path) -> None:
    """Add a second directory of the same length: one directly before the end record, one where its offset points.

    The first claims that the pickle is compressed, and unpacks to 64 times the file; the second that all is small.
    """
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records:
            archive.writestr(name, data + bytes(2**20))
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    length, offset = struct.unpack_from("<II", data, end + 12)
    second, place = bytearray(data[offset : offset + length]), 0
    while place < length:
        struct.pack_into("<H", second, place + 10, zipfile.ZIP_STORED)
        struct.pack_into("<II", second, place + 20, 4, 4)
        place += 46 + sum(struct.unpack_from("<HHH", second, place + 28))
    path.write_bytes(data[:end] + second + data[end:])


def _doubling() -> bytes:
    """Request bytes as hexadecimal digits of bytes as such digits, and so on, thirty times."""
    asks = b"c_codecs\nencode\n" * 30
    return b"\x80\x02" + asks + b"U\x04aaaa" + b"X\x03\x00\x00\x00hex\x86R" * 30 + b"."


def _repeating() -> bytes:
    """Request five million bytes of one text a thousand times."""
    text = b"X" + struct.pack("<I", 5_000_000) + b"a" * 5_000_000 + b"q\x000"
    return b"\x80\x02" + text + b"]" + b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86Ra" * 1000 + b"."


def _pickled(path: Path, content: bytes) -> None:
    """Put another pickle in the place of the file's own."""
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            archive.writestr(name, content if name.endswith("/data.pkl") else data)


def _zero_in_a_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"/byteorder", b"/byteorde\0"))


def _two_sizes(path: Path) -> None:
    """Give a record's size twice, as one that takes 64 bits."""
    with zipfile.ZipFile(path, "a") as archive:
        record = zipfile.ZipInfo(f"{path.stem}/data/more")
        record.extra = 2 * struct.pack("<HHQQ", 1, 16, 2**40, 2**40)
        archive.writestr(record, b"")


def _cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _legacy(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)


def _scripted(path: Path) -> None:
    _rewrite(path, add=(f"{path.stem}/constants.pkl", pickle.dumps(())))


def _overwrite_pickle(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"dataset", b"\xff\xff\xff\xff\xff\xff\xff", 1))


def _module(path: Path) -> None:
    torch.save({"net": torch.nn.Sequential(torch.nn.Linear(2, 2))}, path)


def _bytes_of(content: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, content=content)
    return buffer.getvalue()


NAN = float("nan")
DAMAGES: dict[str, Damage] = {
    "missing file": _file(Path.unlink, "no such file"),
    "a folder": _file(_folder, "no such file"),
    "empty file": _file(lambda path: path.write_bytes(b""), "not a file of torch.save"),
    "truncated": _file(lambda path: _cut(path, 0.6), "damaged, cut short or not plain data"),
    "one byte left": _file(lambda path: path.write_bytes(b"P"), "not a file of torch.save"),
    "text": _file(lambda path: path.write_text("dataset,topol\n"), "not a file of torch.save"),
    "npz": _file(
        lambda path: path.write_bytes(_bytes_of([1])), "a zip, but of a TorchScript program, or not of torch.save"
    ),
    "bare pickle": _file(lambda path: path.write_bytes(pickle.dumps({"acc": [1]}, 4)), "not a file of torch.save"),
    "before torch 1.6": _file(_legacy, "as torch writes it since 1.6"),
    "whole module": _file(_module, "refused: ", "torch.nn.modules.linear.Linear", "None of it was run"),
    "TorchScript": _file(_scripted, "TorchScript"),
    "bomb": _file(
        lambda path: _rewrite(path, zipfile.ZIP_DEFLATED), "compressed or encrypted", "can unpack to any size"
    ),
    "forged sizes": _file(_claim_more, "claim 2,147,", "cut short, or forged"),
    "two directories": _file(_two_directories, "its directory is in the wrong place"),
    "two pickles": _file(
        lambda path: _rewrite(path, add=(f"{path.stem}/DATA.PKL", pickle.dumps({}, 2))),
        "records with the same name, or with two sizes",
    ),
    "zero in a name": _file(_zero_in_a_name, "records with the same name, or with two sizes"),
    "two sizes": _file(_two_sizes, "records with the same name, or with two sizes"),
    # Two billion bytes, asked for in twenty.
    "bytearray of any size": _file(
        lambda path: _pickled(path, b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        "refused: more than data (builtins.bytearray)",
    ),
    "bytes that double": _file(lambda path: _pickled(path, _doubling()), "more than data (bytes encoded by 'hex')"),
    "bytes of one text again and again": _file(
        lambda path: _pickled(path, _repeating()), "more than data (a long text encoded again and again)"
    ),
    "bytes after the end": _file(
        lambda path: path.write_bytes(path.read_bytes() + bytes(9)), "its directory is in the wrong"
    ),
    "no pickle": _file(lambda path: _rewrite(path, drop="data.pkl"), "not of torch.save"),
    "lost tensor": _file(lambda path: _rewrite(path, drop="/data/3"), "damaged"),
    "spoilt pickle": _file(_overwrite_pickle, "p_mod_zoo.pt"),
    "NumPy array": Damage(_put("f_emb", 0, np.zeros(WIDTH)), ("refused", "numpy.ndarray")),
    "NumPy text": Damage(_put("acc", 0, np.str_("0.5")), ("p_mod_zoo.pt: damaged", "not a plain number")),
    "a list": _file(lambda path: torch.save([1, 2], path), "a list of 2, must be a dict of dataset, topol"),
    "queries as the zoo": _file(
        lambda path: torch.save({"a_0_1": {"x_query_train": []}}, path),
        "a dict of 'a_0_1', must be a dict of dataset, topol",
    ),
    "key missing": Damage(
        lambda zoo, _: zoo.update(accs=zoo.pop("acc")), ("'accs', must be a dict of dataset, topol",)
    ),
    "unequal lists": Damage(lambda zoo, _: zoo["acc"].pop(), ("differ in length", "acc 119", "topol 120")),
    "no networks": Damage(
        lambda zoo, _: zoo.update({key: [] for key in zoo}), ("acc: a list of 0, must be rows of numbers",)
    ),
    "accuracy NaN": Damage(_put("acc", 7, NAN), ("acc: NaN, infinite or no number: row 7",)),
    "accuracy text": Damage(_put("acc", 7, "0.9"), ("acc: NaN, infinite or no number: row 7",)),
    "accuracy negative": Damage(_put("acc", 7, -0.1), ("acc: not in 0 to 1: row 7",)),
    "accuracy above 1": Damage(_put("acc", 7, 1.2), ("acc: not in 0 to 1: row 7",)),
    "accuracy above 100": Damage(
        _put("acc", 7, 170.0), ("acc: not in 0 to 100: row 7", "at most 1 in all networks of data sets")
    ),
    "accuracy in two units": Damage(
        lambda zoo, _: zoo.update(acc=[(1 if row < 20 else 100) * value for row, value in enumerate(zoo["acc"])]),
        ("acc: percent elsewhere", "'leaf-shapes_ann_0_5'", "'street_signs_1_6'"),
    ),
    "accuracies without end": Damage(
        lambda zoo, _: zoo.update(acc=torch.zeros(1).expand(9_000_000)),
        ("acc: a float32 tensor (9000000,), must be rows",),
    ),
    "accuracies in pairs": Damage(
        lambda zoo, _: zoo.update(acc=torch.ones(120, 2)),
        ("acc: not 1 wide", "tensor (2,): row 0, row 1, row 2 and 117 more"),
    ),
    "parameters in two units": Damage(
        _put("n_params", 3, 4_100_000),
        ("n_params: at most 10,000, while others are above", "row 0, row 1, row 2 and 116 more"),
    ),
    "parameters zero": Damage(_put("n_params", 3, 0), ("n_params: at most 0, while others are above: row 3",)),
    "embedding infinite": Damage(_put("f_emb", 5, torch.full((WIDTH,), torch.inf)), ("f_emb: NaN, infinite", "row 5")),
    "embedding beyond float32": Damage(
        _put("f_emb", 5, torch.full((WIDTH,), 1e300, dtype=torch.float64)),
        ("f_emb: NaN, infinite or no number: row 5",),
    ),
    "embedding of another width": Damage(
        _put("f_emb", 0, torch.zeros(7)), ("f_emb: not 24 wide", "a float32 tensor (7,): row 0")
    ),
    "embedding complex": Damage(
        _put("f_emb", 2, torch.zeros(WIDTH, dtype=torch.complex64)),
        ("f_emb: not 24 wide, such as a complex64 tensor (24,): row 2",),
    ),
    "embedding of any size": Damage(
        _put("f_emb", 1, torch.zeros(1).expand(1_000_000_000)),
        ("f_emb: not 24 wide", "tensor (1000000000,): row 1"),
    ),
    "embeddings absurdly wide": Damage(
        lambda zoo, _: zoo.update(f_emb=[torch.zeros(1).expand(1_000_000_000)] * 120),
        ("f_emb: a list of 120, must be rows of numbers, no more than fit a file of its size",),
    ),
    "embeddings more than the file": Damage(
        lambda zoo, _: zoo.update(f_emb=torch.zeros(1).expand(1_000_000, 60_000)),
        ("f_emb: a float32 tensor (1000000, 60000), must be rows of numbers, no more than",),
    ),
    "topology without end": Damage(
        lambda zoo, _: zoo.update(topol=torch.zeros(1, 44).expand(9_000_000, 44)),
        ("topol: a float32 tensor (9000000, 44), must be rows of numbers",),
    ),
    "topology of bits": Damage(
        lambda zoo, _: zoo.update(topol=torch.zeros(1, 45, dtype=torch.bool).expand(9_000_000, 45)),
        ("topol: a bool tensor (9000000, 45), must be rows of numbers",),
    ),
    "topology named again and again": Damage(
        lambda zoo, _: zoo.update(topol=[[3] * 65_536] * 20_000),
        ("topol: not 45 wide, such as a list of 65,536: row 0",),
    ),
    "topology too short": Damage(
        lambda zoo, _: zoo["topol"][4].pop(), ("topol: not 45 wide, such as a list of 44: row 4",)
    ),
    "kernel size": Damage(_slot(4, 0, 4), ("topol: not in the search space: row 4 slot 0 (4)",)),
    "expand ratio": Damage(_slot(4, 20, 5), ("topol: not in the search space: row 4 slot 20 (5)",)),
    "depth": Damage(_slot(4, 44, 5), ("topol: not in the search space: row 4 slot 44 (5)",)),
    "name no text": Damage(_put("dataset", 6, 6), ("dataset: must be a name: printable text", "row 6")),
    "name unprintable": Damage(
        _put("dataset", 6, "a\x1b[2J_0_1"), ("dataset: must be a name: printable text", "row 6")
    ),
    "zoo without queries": Damage(
        lambda _, queries: queries.pop("leaf-shapes_ann_0_5"), ("lacks 1 data sets", "'leaf-shapes_ann_0_5'")
    ),
    "queries without zoo": Damage(
        lambda _, queries: queries.update(stray_0_1=queries["leaf-shapes_ann_0_5"]),
        ("p_mod_zoo.pt: lacks 1 data sets of p_m_train.pt", "'stray_0_1'"),
    ),
    "no queries at all": Damage(
        lambda _, queries: queries.clear(), ("p_m_train.pt: a dict of , must be a dict of data sets",)
    ),
    "split missing": Damage(
        lambda _, queries: queries["leaf-shapes_ann_0_5"].pop("x_query_test"),
        ("'leaf-shapes_ann_0_5': a dict of 4, must be a name and a dict of x_query_train, x_query_test",),
    ),
    "data set no dict": Damage(
        lambda _, queries: queries.update({"leaf-shapes_ann_0_5": []}),
        ("'leaf-shapes_ann_0_5': a list of 0, must be a name and a dict of x_query_train",),
    ),
    "queries empty": Damage(_first("x_query_train", []), ("'leaf-shapes_ann_0_5' x_query_train: a list of 0",)),
    "queries NaN": Damage(
        _first("x_query_test", torch.full((3, FEATURES), NAN)),
        ("leaf-shapes_ann_0_5' x_query_test: NaN", "row 0"),
    ),
    "queries of another width": Damage(
        _first("x_query_test", torch.zeros(3, 5)),
        ("_ann_0_5' x_query_test: not 16 wide", "(5,): row 0"),
    ),
}


def damaged(folder: Path, *names: str) -> tuple[Path, Path]:
    """Save both files, with these damages."""
    zoo, queries = zoo_and_queries()
    for name in names:
        DAMAGES[name].change(zoo, queries)
    files = save(folder, zoo, queries)
    for name in names:
        DAMAGES[name].spoil(files[0])
    return files
