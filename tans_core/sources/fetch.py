"""Packages of npm and Debian that contain images: fetched once with npm or apt-get, checked, unpacked, never run.

`fetch` returns the folder of the unpacked package. The archive must have the SHA-256 that its source names. Only the
plain files that the source needs are written, and only inside the folder. No script of a package ever runs.
Without network, put the archive into `packages_folder() / "downloads"`; it is checked in the same way.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import logging
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import platformdirs
from filelock import FileLock

from tans_core.errors import DataError, SourceUnavailableError
from tans_core.io import atomic_folder, sha256_file, writing
from tans_core.runtime import run_program

logger = logging.getLogger(__name__)

MAX_ENTRIES = 200_000
MAX_UNPACKED_BYTES = 4 << 30

_PROGRAMS = {"npm": ("npm",), "debian": ("apt-get", "dpkg-deb")}
_ORIGINS = {"npm": "npm", "debian": "the Debian archive"}


@dataclass(frozen=True)
class Package:
    """One version of one package.

    Attributes:
        manager: the package manager that fetches it.
        name: the manager's name of it; Debian packages must be of architecture `all`.
        version: the exact version.
        sha256: hash of the archive, a .tgz or .deb file.
        size_mb: size of the archive, in MB.
        licence: of the package's content.
    """

    manager: Literal["npm", "debian"]
    name: str
    version: str
    sha256: str
    size_mb: int
    licence: str = ""

    @property
    def file(self) -> str:
        """The file name under which the manager saves the archive."""
        if self.manager == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


def packages_folder() -> Path:
    """Return the folder of all packages: $TANS_PACKAGES, or one in the user's cache."""
    folder = os.environ.get("TANS_PACKAGES")
    return Path(folder).expanduser().absolute() if folder else platformdirs.user_cache_path("tans") / "packages"


def is_fetched(package: Package, wanted: Sequence[str] = ()) -> bool:
    """Return whether the package is unpacked already."""
    return _target(package, wanted).is_dir()


def missing_package(package: Package, wanted: Sequence[str] = ()) -> str | None:
    """Return None if the package is on this machine, else one sentence on how to get it."""
    if is_fetched(package, wanted):
        return None
    if (packages_folder() / "downloads" / package.file).is_file():
        return f"unpacked at first use: {package.file}"
    absent = _absent_programs(package)
    if absent:
        return f"needs `{absent[0]}`, which is not on this machine, or {_by_hand(package)}"
    return f"fetched at first use: {package.size_mb} MB from {_ORIGINS[package.manager]}"


def fetch(package: Package, wanted: Sequence[str] = ()) -> Path:
    """Return the folder of the unpacked package; the first call fetches it.

    The folder has the content of `package/` of an npm package, or `usr/share/...` of a Debian package.

    Args:
        package: the package to fetch.
        wanted: glob patterns of the paths to unpack; `*` also matches `/`. Empty unpacks all.

    Raises:
        SourceUnavailableError: it cannot be fetched, or the archive has another hash.
        DataError: the archive is damaged, too large, or names a path outside its folder.
    """
    target = _target(package, wanted)
    if target.is_dir():
        return target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    # Two stages may need the same package at a time: one fetches, the other waits. A killed process frees the lock.
    with writing(target), FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return target
        for leftover in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        with _archive(package, target) as archive, atomic_folder(target) as folder:
            _check_hash(package, archive)
            count = _unpack(package, archive, folder, wanted)
            if count == 0:
                raise DataError(f"{archive.name}: contains no file like {', '.join(wanted) or '*'}.")
        logger.info("%s %s: %d files in %s", package.name, package.version, count, target)
    return target


def _target(package: Package, wanted: Sequence[str]) -> Path:
    stamp = hashlib.sha256("\0".join((package.sha256, *sorted(wanted))).encode()).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9.+~-]+", "-", f"{package.name}-{package.version}").strip("-.")
    return packages_folder() / f"{package.manager}-{plain}-{stamp}"


@contextlib.contextmanager
def _archive(package: Package, target: Path) -> Iterator[Path]:
    """Yield the archive: one that the user put there, or a download that is deleted afterwards."""
    by_hand = packages_folder() / "downloads" / package.file
    if by_hand.is_file():
        yield by_hand
        return
    absent = _absent_programs(package)
    if absent:
        raise SourceUnavailableError(
            f"{package.name}: `{absent[0]}` is not on this machine. Install it, or {_by_hand(package)}."
        )
    folder = target.parent / f".{target.name}.download.tmp"
    folder.mkdir()
    try:
        logger.info("fetching %s %s, %d MB", package.name, package.version, package.size_mb)
        lines: list[str] = []
        code = run_program(_download_command(package, folder), folder, lines.append)
        files = [path for path in folder.iterdir() if path.suffix in (".tgz", ".deb")]
        if code != 0 or len(files) != 1:
            program = _PROGRAMS[package.manager][0]
            output = "; ".join(line.strip() for line in lines if line.strip())[:400] or "no output"
            raise SourceUnavailableError(
                f"{package.name} {package.version}: {program} could not fetch it (exit code {code}): {output}. "
                f"Try again with network, or {_by_hand(package)}."
            )
        yield files[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download_command(package: Package, folder: Path) -> list[str]:
    if package.manager == "npm":
        # A cache of its own: npm's shared cache would keep a second copy.
        own = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1", f"--cache={folder / 'cache'}"]
        return ["npm", "pack", *own, "--", f"{package.name}@{package.version}"]
    return ["apt-get", "download", "-qq", f"{package.name}={package.version}"]


def _absent_programs(package: Package) -> list[str]:
    return [program for program in _PROGRAMS[package.manager] if shutil.which(program) is None]


def _by_hand(package: Package) -> str:
    return f"put {package.file} (SHA-256 {package.sha256}) into {packages_folder() / 'downloads'}"


def _check_hash(package: Package, archive: Path) -> None:
    got = sha256_file(archive)
    if got != package.sha256:
        raise SourceUnavailableError(
            f"{archive}: got SHA-256 {got}, want {package.sha256} of {package.name} {package.version}. "
            "Nothing was unpacked. If you put the file there, replace it by the right one; else try again."
        )


def _unpack(package: Package, archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the wanted plain files; return how many."""
    try:
        if package.manager == "npm":
            with archive.open("rb") as file:
                return _unpack_tar(file, "r|gz", folder, wanted, strip=1)
        if shutil.which("dpkg-deb") is None:
            raise SourceUnavailableError(
                f"{archive.name}: `dpkg-deb` unpacks it and is not on this machine; install it."
            )
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            count = _unpack_tar(process.stdout, "r|", folder, wanted, strip=0)
            # The padding after the tar's end must be read, else dpkg-deb reports a failure.
            while process.stdout.read(1 << 20):
                pass
        if process.returncode != 0:
            raise DataError(f"{archive.name}: dpkg-deb cannot read it (exit code {process.returncode}).")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive.name}: damaged, or cannot be unpacked into {folder.parent}: {error}.") from error
    return count


def _unpack_tar(file: IO[bytes], mode: Literal["r|", "r|gz"], folder: Path, wanted: Sequence[str], strip: int) -> int:
    count = entries = size = 0
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for member in tar:
            entries += 1
            size += max(member.size, 0)
            if entries > MAX_ENTRIES or size > MAX_UNPACKED_BYTES:
                raise DataError(
                    f"package: unpacks to more than {MAX_ENTRIES:,} entries or {MAX_UNPACKED_BYTES >> 30} GB; refused."
                )
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"package: names {member.name!r}, a path outside its folder; refused.")
            if not member.isreg():  # links and devices
                continue
            parts = path.parts[strip:]
            name = "/".join(parts)
            if not parts or (wanted and not any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)):
                continue
            content = tar.extractfile(member)
            assert content is not None
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(content, out)
            count += 1
    return count
