"""A package is complete, checked and inside its folder, or not there at all."""

from __future__ import annotations

import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tans_core.errors import DataError, SourceUnavailableError
from tans_core.io import sha256_file
from tans_core.sources import fetch as fetching
from tans_core.sources.fetch import Package, fetch, is_fetched, missing_package, packages_folder

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_PACKAGES", str(tmp_path / "packages"))


def put_npm(entries: dict[str, bytes | tarfile.TarInfo], name: str = "@tans/seeds") -> Package:
    """Put an archive of these entries into the folder for manual downloads."""
    package = Package("npm", name, "1.2.0", "", 1)
    path = packages_folder() / "downloads" / package.file
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for entry, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return Package("npm", name, "1.2.0", sha256_file(path), 1)


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_put_there_by_hand_is_unpacked_once(caplog: pytest.LogCaptureFixture) -> None:
    package = put_npm({"package/package.json": b"{}", "package/json/oak.json": b"1"})
    assert missing_package(package) == "unpacked at first use: tans-seeds-1.2.0.tgz"
    assert not is_fetched(package)
    folder = fetch(package)
    assert contents(folder) == {"package.json": b"{}", "json/oak.json": b"1"}
    assert is_fetched(package) and missing_package(package) is None
    (packages_folder() / "downloads" / package.file).unlink()
    assert fetch(package) == folder


def test_only_what_is_wanted_is_unpacked() -> None:
    package = put_npm({"package/json/oak.json": b"1", "package/json/a/ash.json": b"2", "package/readme.md": b"3"})
    part = fetch(package, wanted=("json/*.json",))
    assert set(contents(part)) == {"json/oak.json", "json/a/ash.json"}
    assert not is_fetched(package)
    assert fetch(package, wanted=("json/*.json",)) == part != fetch(package)
    with pytest.raises(DataError, match=r"contains no file like \*\.png"):
        fetch(package, wanted=("*.png",))
    assert not is_fetched(package, wanted=("*.png",))


def test_a_tampered_archive_is_not_opened() -> None:
    package = put_npm({"package/a.txt": b"a"})
    archive = packages_folder() / "downloads" / package.file
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(package)
    for part in (str(archive), package.sha256, sha256_file(archive), "@tans/seeds 1.2.0"):
        assert part in str(caught.value)
    assert not is_fetched(package)


@pytest.mark.parametrize("name", ["package/../../evil.txt", "/tmp/evil.txt", "../evil.txt"])
def test_a_path_outside_the_folder_refuses_the_package(name: str, tmp_path: Path) -> None:
    package = put_npm({"package/a.txt": b"a", name: b"evil"})
    with pytest.raises(DataError, match="outside its folder"):
        fetch(package)
    assert not is_fetched(package)
    assert not list(tmp_path.rglob("evil.txt")) and not list(tmp_path.rglob("*.tmp"))


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    package = put_npm(
        {
            "package/a.txt": b"a",
            "soft": link("package/door", str(outside)),
            "hard": link("package/hard", "/etc/passwd", tarfile.LNKTYPE),
            "pipe": link("package/pipe", "", tarfile.FIFOTYPE),
            "package/door/b.txt": b"b",
        }
    )
    folder = fetch(package)
    assert contents(folder) == {"a.txt": b"a", "door/b.txt": b"b"}
    assert not list(outside.iterdir())


def test_more_than_a_package_may_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package = put_npm({f"package/{number}.txt": b"12345" for number in range(4)})
    monkeypatch.setattr(fetching, "MAX_UNPACKED_BYTES", 19)
    with pytest.raises(DataError, match="unpacks to more than"):
        fetch(package)
    monkeypatch.setattr(fetching, "MAX_UNPACKED_BYTES", 20)
    monkeypatch.setattr(fetching, "MAX_ENTRIES", 3)
    with pytest.raises(DataError, match="3 entries"):
        fetch(package)


def test_a_cut_archive_is_named() -> None:
    package = put_npm({"package/a.bin": os.urandom(50_000)})
    archive = packages_folder() / "downloads" / package.file
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"tans-seeds-1\.2\.0\.tgz: damaged"):
        fetch(Package("npm", "@tans/seeds", "1.2.0", sha256_file(archive), 1))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine")
def test_a_debian_package_gives_its_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: tans-seeds\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: seeds\n"
    )
    (tree / "DEBIAN" / "postinst").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tree / "DEBIAN" / "postinst").chmod(0o755)
    (tree / "usr" / "share" / "seeds").mkdir(parents=True)
    (tree / "usr" / "share" / "seeds" / "oak.png").write_bytes(b"oak" * 1000)
    (tree / "usr" / "share" / "seeds" / "ash.png").symlink_to("oak.png")
    package = Package("debian", "tans-seeds", "1:2.0-1", "", 1)
    assert package.file == "tans-seeds_1%3a2.0-1_all.deb"
    archive = packages_folder() / "downloads" / package.file
    archive.parent.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, archive], check=True, capture_output=True)
    package = Package("debian", "tans-seeds", "1:2.0-1", sha256_file(archive), 1)
    assert contents(fetch(package)) == {"usr/share/seeds/oak.png": b"oak" * 1000}
    assert not (tmp_path / "ran").exists()


def test_without_the_program_the_message_says_which_file_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    package = Package("npm", "@tans/seeds", "1.2.0", "ab" * 32, 7)
    with pytest.raises(SourceUnavailableError) as caught:
        fetch(package)
    for text in (str(caught.value), str(missing_package(package))):
        for part in ("`npm`", "tans-seeds-1.2.0.tgz", "ab" * 32, str(packages_folder() / "downloads")):
            assert part in text


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_a_download_that_fails_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Nothing listens there: the real program, without network.
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retry_mintimeout", "1")
    package = Package("npm", "@tans/seeds", "1.2.0", "ab" * 32, 7)
    with (
        caplog.at_level(logging.INFO, logger="tans_core.sources.fetch"),
        pytest.raises(
            SourceUnavailableError, match=r"npm could not fetch it .*ECONNREFUSED.*put tans-seeds-1\.2\.0\.tgz"
        ),
    ):
        fetch(package)
    assert "fetching @tans/seeds 1.2.0, 7 MB" in caplog.text
    assert missing_package(package) == "fetched at first use: 7 MB from npm"
    assert [path for path in packages_folder().iterdir() if path.is_dir()] == []


def big_package() -> Package:
    return put_npm({f"package/{number}.bin": bytes(4_000_000) for number in range(30)})


def start_fetch(package: Package) -> subprocess.Popen[str]:
    code = f"""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from tans_core.sources.fetch import Package, fetch
print(fetch({package!r}))
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_unpack_a_package_once() -> None:
    package = big_package()
    outputs = [process.communicate(timeout=60)[0] for process in [start_fetch(package) for _ in range(2)]]
    assert [output.splitlines()[-1] for output in outputs] == [str(fetch(package))] * 2
    assert sum(output.count("30 files in") for output in outputs) == 1
    assert len(contents(fetch(package))) == 30


def test_a_fetch_that_is_killed_leaves_nothing_half() -> None:
    package = big_package()
    process = start_fetch(package)
    while not (started := list(packages_folder().rglob("*.bin"))) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert started and not is_fetched(package)
    assert len(contents(fetch(package))) == 30
    assert not list(packages_folder().glob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_a_small_package_comes_from_npm() -> None:
    package = Package(
        "npm", "is-number", "7.0.0", "7b75c1057198cf97696909a9bee176c9c5e9bcb5b03bf3ecef2f484defadd51e", 1
    )
    try:
        folder = fetch(package, wanted=("*.js",))
    except SourceUnavailableError as error:
        if "could not fetch it" not in str(error):
            raise
        pytest.skip(f"no registry answers: {error}")
    assert set(contents(folder)) == {"index.js"}
