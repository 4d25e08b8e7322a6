"""Compares every stored file of weights with its hash when written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tans_core.errors import ParamsError, StoreError, TansError
from tans_core.io import read_json, sha256_file
from tans_core.newcomers import newcomer_folders
from tans_core.yaml_file import read_yaml
from tans_core.zoo.admission import CARD_FILE, WEIGHTS_FILE, identify
from tans_core.zoo.card import ModelCard

_BUILT = ("data/base", "data/zoo/")


@dataclass(frozen=True)
class FileFinding:
    """A stored file and its problem; `problem` is empty for an intact file."""

    path: str
    problem: str


def verify_weights(root: Path) -> Iterator[FileFinding]:
    """Compare the files of all releases, admitted newcomers and the built zoo with their recorded hashes.

    Args:
        root: the project's folder.

    Yields:
        One finding a file, paths relative to the project. Files of the built zoo without a list by DVC are skipped.
    """
    for description in sorted((root / "serving/releases").glob("[!.]*/release.json")):
        try:
            files = sorted(read_json(description)["files"].items())
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            yield FileFinding(str(description.relative_to(root)), f"cannot be read ({error}). Run `tans publish`.")
            continue
        for name, sha256 in files:
            yield _compare(root, description.parent / name, sha256, "Run `tans publish`, which stores it again.")
    for folder in newcomer_folders(root / "data"):
        problem = ""
        try:
            card = ModelCard.from_dict(read_json(folder / CARD_FILE))
            if identify(card, folder / WEIGHTS_FILE) != folder.name:
                problem = "card or weights are not those admitted under this id"
        except (OSError, ValueError, TansError) as error:
            problem = f"cannot be read ({error})"
        advice = f". `tans zoo remove {folder.name}` removes it; submit it again." if problem else ""
        yield FileFinding(str((folder / WEIGHTS_FILE).relative_to(root)), problem + advice)
    for path, md5 in _built(root):
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ""
        advice = "Run `dvc checkout --force`, or `tans build`."
        yield FileFinding(str(path.relative_to(root)), "" if digest == md5 else f"not as it was built. {advice}")


def _compare(root: Path, path: Path, sha256: str, advice: str) -> FileFinding:
    intact = path.is_file() and sha256_file(path) == sha256
    return FileFinding(str(path.relative_to(root)), "" if intact else f"not as it was published. {advice}")


def _built(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the weights of the built zoo with their MD5, from DVC's lists of stage outputs."""
    lock = root / "dvc.lock"
    try:
        stages = read_yaml(lock)["stages"] if lock.is_file() else {}
    except (ParamsError, LookupError, TypeError) as error:
        raise StoreError(f"{lock}: cannot be read ({error}). Run `tans build`.") from error
    for out in (out for stage in stages.values() for out in stage.get("outs", ())):
        if not out["path"].startswith(_BUILT):
            continue
        listed = root / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]
        try:
            entries = json.loads(listed.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for entry in entries:
            if entry["relpath"].endswith(".safetensors"):
                yield root / out["path"] / entry["relpath"], entry["md5"]
