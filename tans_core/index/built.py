"""What `dvc repro` built, read and checked before it becomes a release."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from tans_core.embeddings.store import digest_of, read_table
from tans_core.errors import StoreError
from tans_core.index.blobs import file_digest, inside
from tans_core.index.schema import space_of

if TYPE_CHECKING:
    from tans_core.index.release import Release

logger = logging.getLogger(__name__)


def read_built(view: Release) -> tuple[pa.Table, dict[str, Path]]:
    """Return the index of data/ and the files that go with it: path relative to data/ -> file.

    Raises:
        StoreError: something is not built, is damaged, or the parts do not belong together.
    """
    index = read_table(view.store_dir, "index")
    _check_digest(view.store_dir, index)
    for folder in (view.space_dir, view.base_dir):
        if not folder.is_dir():
            raise StoreError(f"{folder}: no such folder. Run `dvc repro` to build it.")
    _check_space(view.space_dir, index)
    files = _weights_of(index, view.root)
    for folder in (view.space_dir, view.base_dir):
        files |= {path.relative_to(view.root).as_posix(): path for path in sorted(folder.iterdir()) if path.is_file()}
    return index, files


def keep_admitted(
    current: Release, index: pa.Table, files: dict[str, Path], data: Path
) -> tuple[pa.Table, dict[str, Path]]:
    """Add the production release's models that were admitted to `data`'s arrivals but not built into its index yet.

    Returns:
        Index and files as they came where there is nothing to add.
    """
    served = read_table(current.store_dir, "index")
    known = set(index["id"].to_pylist())
    weights = [json.loads(card)["weights"] for card in served["card"].to_pylist()]
    waiting = [
        name not in known and path.startswith("arrivals/") and (data / path).is_file()
        for name, path in zip(served["id"].to_pylist(), weights, strict=True)
    ]
    if not any(waiting):
        return index, files
    rows = served.filter(pa.array(waiting))
    if space_of(served.schema) != space_of(index.schema):
        names = ", ".join(rows["id"].to_pylist())
        logger.warning("not in the new release, since another space embedded them: %s. Run `dvc repro` again.", names)
        return index, files
    merged = pa.concat_tables([index, rows.select(index.column_names).cast(index.schema)])
    return merged, files | {name: _whole(current, data, name) for name in _weights_of(rows, current.root)}


def _whole(current: Release, data: Path, name: str) -> Path:
    """Return the copy of a newcomer's file that is as it was published.

    Raises:
        WeightsError: none is.
    """
    own = data / name
    if own.is_file() and file_digest(own) == current.files.get(name):
        return own
    current.check(name)
    return current.root / name


def weight_names(index: pa.Table) -> list[str]:
    """Return the paths, relative to data/, of the weights that an index's cards name."""
    return sorted({json.loads(card)["weights"] for card in index["card"].to_pylist()})


def _weights_of(index: pa.Table, data: Path) -> dict[str, Path]:
    """Return the weights that the index's cards name, and what lies beside them (a supernet's calibrations)."""
    files: dict[str, Path] = {}
    for name in weight_names(index):
        path = data / inside(name)
        if not path.is_file():
            raise StoreError(f"{path}: no such file, but the index names it. Run `dvc repro` to build it again.")
        files |= {one.relative_to(data).as_posix(): one for one in sorted(path.parent.glob("*.safetensors"))}
    return files


def _check_digest(store: Path, index: pa.Table) -> None:
    path = store / "index.digest"
    if not path.is_file():
        raise StoreError(f"{path}: no such file. Run `dvc repro index`.")
    if path.read_text(encoding="utf-8").strip() != digest_of(index):
        raise StoreError(
            f"{store / 'index.lance'}: its rows are not those of index.digest. Run `dvc repro --force index`."
        )


def _check_space(folder: Path, index: pa.Table) -> None:
    # Reading releases should not wait for torch.
    from tans_core.space.encoders import space_digest

    if space_digest(folder) != space_of(index.schema):
        raise StoreError(f"{folder}: another space than this one embedded the index. Run `dvc repro index`.")
