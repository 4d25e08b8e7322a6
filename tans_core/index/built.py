"""Reads and checks the result of `dvc repro` before it becomes a release."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from tans_core.embeddings.store import digest_of, read_table
from tans_core.errors import StoreError
from tans_core.index.blobs import file_digest, inside
from tans_core.index.schema import space_of
from tans_core.io import sha256_bytes
from tans_core.newcomers import ARRIVALS, newcomer_folder

if TYPE_CHECKING:
    from tans_core.index.release import Release

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """The result of `dvc repro`, as the release that it would make.

    Attributes:
        id: of that release.
        digest: of its content: its id without the time.
        space_dir: the folder of its space.
        networks: `fingerprints` of its index.
    """

    id: str
    digest: str
    space_dir: Path
    networks: Mapping[str, str]


def read_built(view: Release) -> tuple[pa.Table, dict[str, Path]]:
    """Return the index of data/ and its files: path relative to data/ -> file.

    Raises:
        StoreError: a part is missing or damaged, or parts do not belong together.
    """
    index = read_table(view.store_dir, "index")
    _check_digest(view.store_dir, index)
    for folder in (view.space_dir, view.base_dir):
        if not folder.is_dir():
            raise StoreError(f"{folder}: no such folder. Run `tans build` to build it.")
    _check_space(view.space_dir, index)
    files = _weights_of(index, view.root)
    for folder in (view.space_dir, view.base_dir):
        files |= {path.relative_to(view.root).as_posix(): path for path in sorted(folder.iterdir()) if path.is_file()}
    return index, files


def keep_admitted(
    current: Release,
    index: pa.Table,
    files: dict[str, Path],
    data: Path,
    place: Callable[[Sequence[Path]], pa.Table] | None = None,
) -> tuple[pa.Table, dict[str, Path]]:
    """Add the newcomers that the production release serves and `data` has, but that are not built in yet.

    Args:
        current: the release in production.
        index, files: of the built release.
        data: the folder of newcomers.
        place: embeds the newcomers of some folders with the built space; needed if that is another one.

    Returns:
        Index and files; the same objects if there is nothing to add.
    """
    served = read_table(current.store_dir, "index")
    known = set(index["id"].to_pylist())
    folders = {
        name: folder
        for name, card in zip(served["id"].to_pylist(), served["card"].to_pylist(), strict=True)
        if name not in known
        and (weights := json.loads(card)["weights"]).startswith(f"{ARRIVALS}/")
        and (folder := newcomer_folder(data, name))
        and (folder / Path(weights).name).is_file()
    }
    if not folders:
        return index, files
    rows = served.filter(pa.array([name in folders for name in served["id"].to_pylist()]))
    if space_of(served.schema) != space_of(index.schema):
        if place is None:
            names = ", ".join(folders)
            logger.warning("left out of the new release, embedded by another space: %s. Run `tans build` again.", names)
            return index, files
        rows = place(list(folders.values()))
    merged = pa.concat_tables([index, rows.select(index.column_names).cast(index.schema)])
    return merged, files | {
        name: _intact(current, folders[Path(name).parent.name], name) for name in weight_names(rows)
    }


def place_once(place: Callable[[Sequence[Path]], pa.Table]) -> Callable[[Sequence[Path]], pa.Table]:
    """Let `place` embed each newcomer once, however often it is asked for."""
    placed: dict[str, pa.Table] = {}

    def place_new(folders: Sequence[Path]) -> pa.Table:
        if new := [folder for folder in folders if folder.name not in placed]:
            rows = place(new)
            placed.update((folder.name, rows.slice(row, 1)) for row, folder in enumerate(new))
        return pa.concat_tables([placed[folder.name] for folder in folders])

    return place_new


def unknown_rows(current: Release, index: pa.Table, rows: pa.Table) -> pa.Table:
    """Return the rows of models that a release does not contain yet.

    Raises:
        StoreError: another space embedded the rows, or a known id has another card.
    """
    if space_of(rows.schema) != space_of(index.schema):
        raise StoreError(
            f"the new models were embedded by another space than that of release {current.id}. Admit them again."
        )
    known = dict(zip(index["id"].to_pylist(), index["card"].to_pylist(), strict=True))
    cards = dict(zip(rows["id"].to_pylist(), rows["card"].to_pylist(), strict=True))
    clashes = sorted(
        name for name, card in cards.items() if name in known and json.loads(known[name]) != json.loads(card)
    )
    if clashes:
        raise StoreError(f"release {current.id} has other models with the ids {', '.join(clashes)}. Rename these.")
    return rows.filter(pa.array([name not in known for name in rows["id"].to_pylist()], type=pa.bool_()))


def _intact(current: Release, folder: Path, name: str) -> Path:
    """Return an unchanged copy of a newcomer's published file.

    Raises:
        WeightsError: there is none.
    """
    own = folder / Path(name).name
    if own.is_file() and file_digest(own) == current.files.get(name):
        return own
    current.check(name)
    return current.root / name


def fingerprints(index: pa.Table, files: Mapping[str, str]) -> dict[str, str]:
    """Return for each model, by id, a SHA-256 of its architecture and its file of weights.

    Args:
        index: whose cards are read.
        files: SHA-256 of each file of weights, by its path relative to data/.
    """
    cards = (json.loads(card) for card in index["card"].to_pylist())
    parts = {card["id"]: [card["family"], card["architecture"], files.get(card["weights"])] for card in cards}
    return {name: sha256_bytes(json.dumps(part, sort_keys=True).encode()) for name, part in parts.items()}


def weight_names(index: pa.Table) -> list[str]:
    """Return the paths, relative to data/, of the weights in an index's cards."""
    return sorted({json.loads(card)["weights"] for card in index["card"].to_pylist()})


def _weights_of(index: pa.Table, data: Path) -> dict[str, Path]:
    """Return the weights in the index's cards, and those in the same folders (a supernet's calibrations)."""
    files: dict[str, Path] = {}
    for name in weight_names(index):
        path = data / inside(name)
        if not path.is_file():
            raise StoreError(f"{path}: no such file, but the index names it. Run `tans build` to build it again.")
        files |= {file.relative_to(data).as_posix(): file for file in sorted(path.parent.glob("*.safetensors"))}
    return files


def _check_digest(store: Path, index: pa.Table) -> None:
    path = store / "index.digest"
    if not path.is_file():
        raise StoreError(f"{path}: no such file. Run `tans build index`.")
    if path.read_text(encoding="utf-8").strip() != digest_of(index):
        raise StoreError(f"{store / 'index.lance'}: its rows do not match index.digest. Run `dvc repro --force index`.")


def _check_space(folder: Path, index: pa.Table) -> None:
    # Imported here, so that reading releases does not import torch.
    from tans_core.space.encoders import space_digest

    if space_digest(folder) != space_of(index.schema):
        raise StoreError(f"{folder}: the index was embedded by another space. Run `tans build index`.")
