"""Releases: one space with its index and its weights, published whole for serving.

    serving/production               the id of the release that answers
    serving/releases/<id>/           laid out as data/: space, store, base, zoo, arrivals; and release.json
    serving/blobs/<sha256>           each file of weights once; releases hold hard links to it

A release never changes once its folder has its name. Readers take the id from `production` once, and keep it to the end. Writers
hold `serving/.lock`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from tans_core.embeddings.store import digest_of, read_table, write_table
from tans_core.errors import NoReleaseError, StoreError, WeightsError, did_you_mean
from tans_core.index.blobs import inside, link_blob, store_blob, writers_lock
from tans_core.index.schema import space_of
from tans_core.index.settings import read_params
from tans_core.io import atomic_folder, read_json, sha256_bytes, write_json, write_text

logger = logging.getLogger(__name__)

PIPELINE = "pipeline"


@dataclass(frozen=True)
class Release:
    """What a reader holds from start to end.

    Attributes:
        id: of the release; `pipeline` for the view of data/.
        root: the folder that holds space/, store/, base/, zoo/ and arrivals/.
        params: the sections of params.yaml that it was built with.
    """

    id: str
    root: Path
    params: dict[str, Any]

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
        """Return the file that a card names, relative to data/.

        Raises:
            WeightsError: it leads out of the release, or is not there.
        """
        path = self.root / inside(relative)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file in release {self.id}. Run `dvc repro`, then `tans publish`.")
        return path


@dataclass(frozen=True)
class ReleaseInfo:
    """A line of the list of releases."""

    id: str
    created: str
    models: int
    production: bool


def open_pipeline(root: Path) -> Release:
    """Return a view of what `dvc repro` built in data/, for the evaluate stage; serving reads releases.

    Raises:
        ParamsError: params.yaml cannot be read.
    """
    return Release(PIPELINE, root / "data", read_params(root))


def open_production(serving: Path) -> Release:
    """Return the release in production.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: the release that `production` names is not there.
    """
    current = _production_id(serving)
    if current is None:
        raise NoReleaseError(f"{serving}: holds no release. Run `tans build`, then `tans publish`.")
    return _open(serving, current)


def list_releases(serving: Path) -> list[ReleaseInfo]:
    """Return all releases, oldest first."""
    current = _production_id(serving)
    described = [read_json(path) for path in (serving / "releases").glob("[!.]*/release.json")]
    ordered = sorted(described, key=lambda one: (one["created"], one["id"]))
    return [ReleaseInfo(one["id"], one["created"], one["models"], one["id"] == current) for one in ordered]


def publish(root: Path, serving: Path) -> Release:
    """Copy what `dvc repro` built into a release and make it the production one. The same content gives the same release.

    Models that were admitted since the last `dvc repro` stay searchable as long as the space is the same.

    Raises:
        StoreError: something is not built, is damaged, or the parts do not belong together.
        ParamsError: params.yaml cannot be read.
    """
    view = open_pipeline(root)
    index = read_table(view.store_dir, "index")
    _check_digest(view.store_dir, index)
    for folder in (view.space_dir, view.base_dir):
        if not folder.is_dir():
            raise StoreError(f"{folder}: no such folder. Run `dvc repro` to build it.")
    _check_space(view.space_dir, index)
    files = _weights_of(index, view.root)
    for folder in (view.space_dir, view.base_dir):
        files |= {path.relative_to(view.root).as_posix(): path for path in sorted(folder.iterdir()) if path.is_file()}
    with writers_lock(serving):
        if (serving / "production").is_file():
            index, files = _keep_admitted(open_production(serving), index, files, view.root)
        return _add_release(serving, index, files, view.params, parent=_production_id(serving))


def add_models(serving: Path, rows: pa.Table, files: dict[str, Path]) -> Release:
    """Make a release of the production one and more models, and make it the production one.

    Args:
        serving: the folder of releases.
        rows: of the index's schema, embedded by the production release's space. Models that are there already are skipped.
        files: the weights that the new cards name: path relative to data/ -> file to copy.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: another space embedded the rows, a known id comes with another card, or weights are missing.
    """
    with writers_lock(serving):
        current = open_production(serving)
        index = read_table(current.store_dir, "index")
        if space_of(rows.schema) != space_of(index.schema):
            raise StoreError(
                f"another space than that of release {current.id} embedded the new models. Embed them again with this one."
            )
        known = dict(zip(index["id"].to_pylist(), index["card"].to_pylist(), strict=True))
        cards = dict(zip(rows["id"].to_pylist(), rows["card"].to_pylist(), strict=True))
        clashes = sorted(
            name for name, card in cards.items() if name in known and json.loads(known[name]) != json.loads(card)
        )
        if clashes:
            raise StoreError(f"release {current.id} has other models of the ids {', '.join(clashes)}.")
        new = rows.filter(pa.array([name not in known for name in rows["id"].to_pylist()], type=pa.bool_()))
        if len(new) == 0:
            return current
        merged = pa.concat_tables([index, new.select(index.column_names).cast(index.schema)])
        described = read_json(current.root / "release.json")
        kept = {name: current.root / name for name in described["files"]}
        return _add_release(serving, merged, kept | files, current.params, parent=current.id)


def rollback(serving: Path, to: str | None = None) -> Release:
    """Make an earlier release the production one: `to`, or the one made before the one in production.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: there is no such release.
    """
    with writers_lock(serving):
        current = open_production(serving)
        ids = [one.id for one in list_releases(serving)]
        if to is None:
            earlier = ids[: ids.index(current.id)]
            if not earlier:
                raise StoreError(f"{serving}: {current.id} is the first release, there is none before it.")
            to = earlier[-1]
        release = _open(serving, to)
        write_text(to + "\n", serving / "production")
        return release


def _open(serving: Path, release_id: str) -> Release:
    described = serving / "releases" / release_id / "release.json"
    if not release_id or "/" in release_id or not described.is_file():
        known = [one.id for one in list_releases(serving)]
        raise StoreError(
            f"{serving}: no release {release_id!r}{did_you_mean(release_id, known)}. "
            f"There {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}. `tans rollback --to ID` picks one."
        )
    return Release(release_id, described.parent, read_json(described)["params"])


def _production_id(serving: Path) -> str | None:
    pointer = serving / "production"
    return pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None


def _add_release(
    serving: Path, index: pa.Table, files: dict[str, Path], params: dict[str, Any], parent: str | None
) -> Release:
    """Write a release, unless there is one of the same content, and point `production` to it; the lock is held."""
    missing = [name for name in _weight_names(index) if name not in files]
    if missing:
        raise StoreError(f"{len(missing)} models' weights are missing: {', '.join(missing[:5])}.")
    hashes = {name: store_blob(serving, files[name]) for name in sorted(files)}
    index = index.sort_by("id")
    content = {"files": hashes, "index": digest_of(index), "params": params}
    digest = sha256_bytes(json.dumps(content, sort_keys=True).encode())
    same = [path.parent.name for path in (serving / "releases").glob(f"[!.]*-{digest[:12]}/release.json")]
    if same:
        release_id = same[0]
    else:
        now = datetime.now(UTC)
        release_id = f"{now:%Y%m%dT%H%M%S}-{digest[:12]}"
        described = {
            **content,
            "created": now.isoformat(timespec="microseconds"),
            "digest": digest,
            "id": release_id,
            "models": len(index),
            "parent": parent,
            "space": space_of(index.schema),
        }
        with atomic_folder(serving / "releases" / release_id) as folder:
            for name, sha256 in hashes.items():
                link_blob(serving, sha256, folder / name)
            write_table(folder / "store", "index", index)
            write_json(described, folder / "release.json")
    write_text(release_id + "\n", serving / "production")
    return _open(serving, release_id)


def _keep_admitted(
    current: Release, index: pa.Table, files: dict[str, Path], data: Path
) -> tuple[pa.Table, dict[str, Path]]:
    """Add the production release's models that were admitted to `data`'s arrivals but not built into its index yet."""
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
    return merged, files | _weights_of(rows, current.root)


def _weight_names(index: pa.Table) -> list[str]:
    return sorted({json.loads(card)["weights"] for card in index["card"].to_pylist()})


def _weights_of(index: pa.Table, data: Path) -> dict[str, Path]:
    """Return the weights that the index's cards name, and what lies beside them (a supernet's calibrations)."""
    files: dict[str, Path] = {}
    for name in _weight_names(index):
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
