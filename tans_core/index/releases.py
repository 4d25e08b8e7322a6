"""Releases: one space with its index and weights, published together for serving.

    serving/production               the id of the live release
    serving/history.jsonl            which release went live when, and after which one (`history`)
    serving/releases/<id>/           laid out as data/: space, store, base, zoo, arrivals; and release.json
    serving/blobs/<sha256>           each file of weights once; releases hold hard links to it

A release never changes once its folder has its final name. A reader reads `production` once and keeps that release.
Writers hold `serving/.lock`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from tans_core.embeddings.store import digest_of, read_table, write_table
from tans_core.errors import StoreError, did_you_mean
from tans_core.index.blobs import link_blob, mend, store_blob, writers_lock
from tans_core.index.built import (
    Built,
    fingerprints,
    keep_admitted,
    place_once,
    read_built,
    unknown_rows,
    weight_names,
)
from tans_core.index.history import History, production_id, read_history
from tans_core.index.listing import list_releases
from tans_core.index.release import FORMAT, Release, in_production, open_production, open_release
from tans_core.index.schema import space_of
from tans_core.index.settings import read_params
from tans_core.index.withdrawn import check_networks, check_withdrawn
from tans_core.io import atomic_folder, read_json, sha256_bytes, write_json

__all__ = ["PIPELINE", "add_models", "open_pipeline", "open_production", "publish", "remove_models", "rollback"]

logger = logging.getLogger(__name__)

PIPELINE = "pipeline"
_LEAVE_OUT = (
    "`tans build` leaves out newcomers that were rolled back; other networks follow from params.yaml. "
    "`tans publish --again` publishes them all the same."
)


@dataclass(frozen=True)
class _Draft:
    """A release whose files are in blobs/, perhaps without a folder yet. Its id depends on `content`."""

    id: str
    digest: str
    content: dict[str, Any]
    index: pa.Table
    created: str


def open_pipeline(root: Path) -> Release:
    """Return a view of data/ as `dvc repro` built it, for the evaluate stage; serving reads releases.

    Raises:
        ParamsError: params.yaml cannot be read.
    """
    return Release(PIPELINE, root / "data", read_params(root))


def publish(
    root: Path,
    serving: Path,
    again: bool = False,
    judge: Callable[[Release, Built], bool] | None = None,
    place: Callable[[Sequence[Path]], pa.Table] | None = None,
) -> Release:
    """Copy the result of `dvc repro` into a release and put it into production. Equal content gives the same release.

    Models admitted since the last `dvc repro` are kept.

    Args:
        root: the project's folder.
        serving: the folder of releases.
        again: also publish what was rolled back.
        judge: called with the release in production and the new one, if they differ; False keeps the former.
        place: embeds the newcomers of some folders with the built space. Without it, admitted models are kept only as
            long as the space is the same.

    Returns:
        The release in production.

    Raises:
        StoreError: a part is missing or damaged, or parts do not belong together.
        WithdrawnReleaseError: the result was rolled back, and `again` is False.
        ParamsError: params.yaml cannot be read.
    """
    view = open_pipeline(root)
    index, files = read_built(view)
    if place is not None:
        place = place_once(place)
        # Others need not wait for this: below, only what was admitted meanwhile is embedded.
        with contextlib.suppress(StoreError):
            keep_admitted(open_production(serving), index, files, view.root, place)
    with writers_lock(serving):
        history = read_history(serving)
        built = draft = _draft(serving, history, index, files, view.params)
        current = _readable_production(serving)
        if current is not None:
            merged, all_files = keep_admitted(current, index, files, view.root, place)
            if merged is not index:
                draft = _draft(serving, history, merged, all_files, view.params)
        if not again and draft.id != history.live:
            # A rolled-back release does not return with a newcomer added to it, either.
            for candidate in (built, draft):
                check_withdrawn(history, candidate.id, "Run `tans publish --again`, or change its content.")
            networks = fingerprints(draft.index, draft.content["files"])
            check_networks(history, networks.items(), _LEAVE_OUT)
        if judge is not None and current is not None and draft.id != history.live:
            networks = fingerprints(draft.index, draft.content["files"])
            if not judge(current, Built(draft.id, draft.digest, view.space_dir, networks)):
                return current
        return _go_live(serving, history, draft, "publish")


def add_models(serving: Path, rows: pa.Table, files: dict[str, Path], again: bool = False) -> Release:
    """Put a release into production that adds models to the present one.

    Args:
        serving: the folder of releases.
        rows: of the index's schema, embedded by the production release's space. Known models are skipped.
        files: the weights of the new cards: path relative to data/ -> file to copy.
        again: also add models that were rolled back.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: another space embedded the rows, a known id has another card, or weights are missing.
        WithdrawnReleaseError: some models were rolled back, and `again` is False.
    """
    with writers_lock(serving):
        history, current = read_history(serving), open_production(serving)
        current.check()
        index = read_table(current.store_dir, "index")
        new = unknown_rows(current, index, rows)
        if len(new) == 0:
            return current
        merged = pa.concat_tables([index, new.select(index.column_names).cast(index.schema)])
        description = read_json(current.root / "release.json")
        kept = {name: current.root / name for name in description["files"]}
        draft = _draft(serving, history, merged, kept | files, current.params)
        if not again:
            check_networks(history, fingerprints(new, draft.content["files"]).items(), "Nothing was admitted.")
        return _go_live(serving, history, draft, "admit")


def remove_models(serving: Path, ids: Collection[str]) -> Release:
    """Put a release into production that lacks some newcomers of the present one.

    Args:
        serving: the folder of releases.
        ids: of admitted models. Those of the zoo follow from params.yaml and are removed with their task.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: the release has no such model, or it is not a newcomer.
        WeightsError: a file of the release was changed since.
    """
    with writers_lock(serving):
        history, current = read_history(serving), open_production(serving)
        index = read_table(current.store_dir, "index")
        weights = {row["id"]: json.loads(row["card"])["weights"] for row in index.select(["id", "card"]).to_pylist()}
        for name in ids:
            if name not in weights:
                raise StoreError(
                    f"release {current.id} has no model {name!r}{did_you_mean(name, weights)}. See `tans models list`."
                )
            if not weights[name].startswith("arrivals/"):
                raise StoreError(
                    f"{name}: not a newcomer, it follows from params.yaml. `tans tasks remove` removes a task and its "
                    "networks."
                )
        kept = index.filter(pa.array([name not in ids for name in index["id"].to_pylist()], type=pa.bool_()))
        removed = tuple(weights[name].rpartition("/")[0] + "/" for name in ids)
        files = {name: current.root / name for name in current.files if not name.startswith(removed)}
        if files:
            current.check(*files)
        return _go_live(serving, history, _draft(serving, history, kept, files, current.params), "remove")


def rollback(serving: Path, to: str | None = None) -> Release:
    """Put an earlier release into production: `to`, or the one before the present one.

    The present release and those between it and the target are withdrawn.

    Raises:
        NoReleaseError: nothing was published yet.
        StoreError: there is no such release, or another version of TANS made it.
        WeightsError: some of its files and their stored copies are damaged.
    """
    with writers_lock(serving):
        current, history = in_production(serving), read_history(serving)
        if to is None:
            # `prune` may have removed old ones.
            earlier = [event for event in history.chain()[1:] if (serving / "releases" / event.release).is_dir()]
            if not earlier:
                then = "There is no other release to go to: `tans build`, then `tans publish`, make one."
                if len(list_releases(serving)) > 1:
                    then = "`tans rollback --to ID` goes to another one that `tans releases` lists."
                raise StoreError(f"{serving}: no release was in production before {current}. {then}")
            to = earlier[0].release
        release = open_release(serving, to)
        for name, sha256 in release.files.items():
            mend(serving, sha256, release.root / name)
        release.check()
        history.back(to)
        return release


def _readable_production(serving: Path) -> Release | None:
    if production_id(serving) is None:
        return None
    try:
        current = open_production(serving)
        read_table(current.store_dir, "index")
    except StoreError as error:
        # Publishing repairs this.
        logger.warning("models admitted since the last build are left out until the next one: %s", error)
        return None
    return current


def _draft(serving: Path, history: History, index: pa.Table, files: dict[str, Path], params: dict[str, Any]) -> _Draft:
    """Store a release's files and return it with its id; equal content always has the same id."""
    missing = [name for name in weight_names(index) if name not in files]
    if missing:
        raise StoreError(f"{len(missing)} models' weights are missing: {', '.join(missing[:5])}. Run `tans build`.")
    hashes = {name: store_blob(serving, files[name]) for name in sorted(files)}
    index = index.sort_by("id")
    content = {"files": hashes, "format": FORMAT, "index": digest_of(index), "params": params}
    digest = sha256_bytes(json.dumps(content, sort_keys=True).encode())
    now, suffix = datetime.now(UTC), f"-{digest[:12]}"
    known = [*history.releases, *(path.parent.name for path in (serving / "releases").glob("[!.]*/release.json"))]
    release_id = next((one for one in known if one.endswith(suffix)), f"{now:%Y%m%dT%H%M%S}{suffix}")
    return _Draft(release_id, digest, content, index, now.isoformat(timespec="microseconds"))


def _mend_table(store: Path, index: pa.Table) -> None:
    """Write a release's table again if it is damaged."""
    try:
        intact = digest_of(read_table(store, "index")) == digest_of(index)
    except StoreError:
        intact = False
    if not intact:
        write_table(store, "index", index)


def _go_live(serving: Path, history: History, draft: _Draft, action: Literal["publish", "admit", "remove"]) -> Release:
    """Write a release, unless its folder exists, and put it into production. The caller holds the lock."""
    folder = serving / "releases" / draft.id
    if (folder / "release.json").is_file():
        for name, sha256 in draft.content["files"].items():
            mend(serving, sha256, folder / name)
        _mend_table(folder / "store", draft.index)
    else:
        description = {
            **draft.content,
            "created": draft.created,
            "digest": draft.digest,
            "id": draft.id,
            "models": len(draft.index),
            "parent": history.live,
            "space": space_of(draft.index.schema),
        }
        with atomic_folder(folder) as temporary:
            for name, sha256 in draft.content["files"].items():
                link_blob(serving, sha256, temporary / name)
            write_table(temporary / "store", "index", draft.index)
            write_json(description, temporary / "release.json")
    history.forward(draft.id, action)
    return open_release(serving, draft.id)
