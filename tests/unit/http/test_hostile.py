"""Hostile requests: each gets a problem document or a closed connection, and leaves nothing on disk."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.factories.archives import encrypted, good_members, write_zip, zip_bomb
from tests.factories.http_service import PARQUET, PROBLEM, ZIP, Served, as_parquet, problem, served, zipped


@pytest.fixture(autouse=True)
def nothing_is_left(service: Served) -> Iterator[None]:
    yield
    end = time.monotonic() + 10
    while service.left() and time.monotonic() < end:  # the answer to a closed connection is not awaited
        time.sleep(0.05)
    assert service.left() == []


Make = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (zip_bomb, "ArchiveError", "unpack to"),
        (encrypted, "ArchiveError", "encrypted"),
        (lambda f: write_zip(f / "a.zip", {"../../up.png": b"x", **good_members()}), "ArchiveError", "leads outside"),
        (lambda f: write_zip(f / "a.zip", {"/etc/up.png": b"x", **good_members()}), "ArchiveError", "leads outside"),
        (
            lambda f: write_zip(f / "a.zip", {"ash\\..\\..\\u.png": b"x", **good_members()}),
            "ArchiveError",
            "leads outside",
        ),
        (lambda f: write_zip(f / "a.zip", {}), "NoClassesError", "no class folders"),
        (lambda f: write_zip(f / "a.zip", {"ash/a.png": b"x"}), "NoClassesError", "only one class"),
    ],
)
def test_hostile_archive_is_a_problem(service: Served, tmp_path: Path, make: Make, kind: str, words: str) -> None:
    said = problem(service.client.post("/v1/retrieve", content=make(tmp_path).read_bytes(), headers=ZIP), 422)
    assert said["type"] == f"urn:tans:error:{kind}"
    assert words in said["detail"]
    assert said["detail"].startswith("upload.zip: ")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"hello, I am text", ZIP, 415),
        (b"PK", ZIP, 415),
        (b"", ZIP, 422),
        (b"PK\x03\x04 and no more", ZIP, 422),
        (b"PAR1 and no more", PARQUET, 422),
        (b"\x1f\x8b\x08 a tar", ZIP, 415),
        (b"path,label\n/etc/passwd,ash\n/etc/hosts,oak\n", {"Content-Type": "application/octet-stream"}, 415),
        (b"PK\x03\x04", {"Content-Type": "text/csv"}, 415),
        (b"PK\x03\x04", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
        (b"PK\x03\x04", {}, 415),
        (b"PK\x03\x04", {**ZIP, "Content-Encoding": "gzip"}, 415),
    ],
)
def test_body_of_another_kind_is_a_problem(
    service: Served, content: bytes, headers: dict[str, str], status: int
) -> None:
    said = problem(service.client.post("/v1/scan", content=content, headers=headers), status)
    assert str(service.temporary) not in json.dumps(said)


def test_table_cannot_read_files_of_the_service(service: Served, photos: Path, tmp_path: Path) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    packed = io.BytesIO()
    cells = [{"bytes": None, "path": name} for name in (str(photos / "oak/0.png"), "../scan", "upload.parquet")]
    good = pq.read_table(io.BytesIO(as_parquet(photos)))
    table = pa.table({"image": [*cells, *good["image"].to_pylist()], "label": ["oak"] * 3 + good["label"].to_pylist()})
    pq.write_table(table, packed)
    answer = service.client.post("/v1/scan", content=packed.getvalue(), headers=PARQUET).json()
    assert len(answer["scan"]["bad"]) == 4
    assert sum(answer["scan"]["classes"].values()) == 36


def exchange(
    service: Served, sent: bytes, then: Callable[[socket.socket], None] = lambda _: None
) -> tuple[bytes, float]:
    """Send bytes and return all that comes until the service closes the connection, and after how many seconds."""
    began, received = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            then(connection)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(2**16):
                received += part
    return received, time.monotonic() - began


def head(path: str = "/v1/scan", **headers: object) -> bytes:
    lines = {"Host": "127.0.0.1", "Content-Type": "application/zip", **headers}
    text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{text}\r\n".encode()


def status(received: bytes) -> int:
    return int(received.split()[1]) if received else 0


def test_header_of_10_gigabytes_is_answered_at_once(service: Served) -> None:
    received, seconds = exchange(service, head(Content_Length=10**10) + b"PK\x03\x04")
    assert status(received) == 413
    assert PROBLEM.encode() in received
    assert seconds < 25


def test_endless_body_ends_at_the_limit(service: Served) -> None:
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        chunk = b"%x\r\n" % 2**16 + b"PK\x03\x04" * 2**14 + b"\r\n"
        while sent < 2**30:
            connection.sendall(chunk)
            sent += 2**16

    received, _ = exchange(service, head(Transfer_Encoding="chunked"), endless)
    assert status(received) in (413, 0)  # 0: the connection was closed before the answer was read
    assert sent < 2**26


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "10, 20", "9" * 30])
def test_length_that_is_no_number_is_refused(service: Served, length: str) -> None:
    received, seconds = exchange(service, head(Content_Length=length))
    assert status(received) in (400, 413)
    assert seconds < 25


def test_body_shorter_than_its_length_leaves_nothing(service: Served) -> None:
    received, _ = exchange(
        service, head(Content_Length=10_000) + b"PK\x03\x04", lambda connection: connection.shutdown(socket.SHUT_WR)
    )
    assert status(received) in (0, 400, 408)


def test_slow_body_times_out_and_slow_headers_end_in_a_closed_connection(service: Served) -> None:
    def dribble(connection: socket.socket) -> None:
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    # All at once: each takes seconds.
    with ThreadPoolExecutor(3) as threads:
        body = threads.submit(exchange, service, head(Content_Length=10_000) + b"PK\x03\x04", dribble)
        headers = [threads.submit(exchange, service, sent) for sent in (b"", b"POST /v1/scan HTTP/1.1\r\nHost: a\r\n")]
    assert status(body.result()[0]) in (408, 0)
    assert [one.result()[0] for one in headers] == [b"", b""]
    assert all(1.5 < one.result()[1] < 15 for one in (body, *headers))


def test_long_header_is_refused(service: Served) -> None:
    received, seconds = exchange(service, b"POST /v1/scan HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 10**6)
    assert status(received) in (0, 400)
    assert seconds < 25


def test_uploads_above_the_number_of_slots_are_told_when_to_come_back(
    project: Path, photos: Path, tmp_path: Path
) -> None:
    body = zipped(photos)
    with served(project, tmp_path, at_once=1, waiting=1) as running:

        def send(_: int) -> httpx.Response:
            return running.client.post("/v1/scan", content=body, headers=ZIP)

        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(send, range(10)))
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(problem(one, 429) and one.headers["retry-after"] for one in answers if one.status_code == 429)
        assert running.client.post("/v1/scan", content=body, headers=ZIP).status_code == 200
        assert running.left() == []
