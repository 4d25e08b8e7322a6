"""Who may ask: tokens, hosts, rates, and where the service may listen."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from tans_core.errors import ParamsError
from tans_core.http.guard import Rates
from tans_core.http.server import Serving
from tans_core.http.settings import ApiOptions
from tests.factories.http_service import ZIP, Served, problem, served, zipped

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.0.0.1.example.org"])
def test_only_loopback_may_be_served_without_a_token(
    host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TANS_API_TOKEN", raising=False)
    options = ApiOptions.read(host=host, port=0)
    with pytest.raises(ParamsError, match="no token is set"):
        Serving(tmp_path, options)
    monkeypatch.setenv("TANS_API_TOKEN", TOKEN)
    assert options.token() == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANS_API_TOKEN", raising=False)
    assert ApiOptions.read(host=host).token() is None


@pytest.mark.parametrize("text", ["", "short\n", "0123456789 abcdef\x07", "0123456789abcdéf"])
def test_weak_or_unreadable_token_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token.txt"
    file.write_text(text)
    with pytest.raises(ParamsError, match="openssl rand -hex 32"):
        ApiOptions.read(token_file=file).token()


def test_token_file_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANS_API_TOKEN", "another token of a shell")
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    assert ApiOptions.read(token_file=file).token() == TOKEN
    with pytest.raises(ParamsError, match="No such file"):
        ApiOptions.read(token_file=tmp_path / "none").token()


def test_token_is_wanted_everywhere_but_for_health_and_metrics(project: Path, tmp_path: Path) -> None:
    with served(project, tmp_path, token=TOKEN) as running:
        assert running.client.get("/v1/releases").status_code == 200
        with httpx.Client(base_url=running.client.base_url) as stranger:
            for path in ("/v1/releases", "/v1/retrieve", "/openapi.json", "/nowhere", "/health/ready/"):
                answer = stranger.get(path)
                assert "Bearer" in problem(answer, 401)["advice"][0]
                assert answer.headers["www-authenticate"] == "Bearer"
            for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}", "Bearer \xff", ""):
                headers = {"Authorization": wrong.encode("latin-1")}
                problem(stranger.get("/v1/releases", headers=headers), 401)
            for path in ("/health/live", "/health/ready", "/metrics"):
                assert stranger.get(path).status_code == 200
            # With a token, the service may have any name.
            named = {"Host": "tans.example.org", "Authorization": f"Bearer {TOKEN}"}
            assert stranger.get("/v1/releases", headers=named).status_code == 200


def test_name_that_leads_to_loopback_is_refused_without_a_token(service: Served) -> None:
    for host in ("evil.example.org", "127.0.0.1.evil.org:80", ""):
        problem(service.client.get("/v1/releases", headers={"Host": host}), 421)
    assert service.client.get("/v1/releases", headers={"Host": f"localhost:{service.port}"}).status_code == 200


def test_upload_of_many_images_is_sampled(project: Path, photos: Path, tmp_path: Path) -> None:
    with served(project, tmp_path, max_images=18) as running:
        body = zipped(photos)
        scanned = running.client.post("/v1/scan?max_images=30", content=body, headers=ZIP).json()["scan"]
        found = running.client.post("/v1/retrieve", content=body, headers=ZIP).json()["scan"]
        assert scanned["files"] == found["files"] == 18
        assert scanned["not_sampled"] == 19


def test_client_above_its_rate_is_told_when_to_come_back(project: Path, tmp_path: Path) -> None:
    with served(project, tmp_path, per_minute=3) as running:
        answers = [running.client.get("/v1/releases") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        problem(answers[-1], 429)
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 21
        assert running.client.get("/health/live").status_code == 200


def test_bucket_fills_at_its_rate_and_no_further() -> None:
    now = 0.0
    rates = Rates(60, lambda: now)
    assert [rates.wait_s("a") for _ in range(60)] == [0.0] * 60
    assert rates.wait_s("a") == 1.0
    assert rates.wait_s("b") == 0.0
    now = 2.5
    assert [rates.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    now = 1000.0
    assert [rates.wait_s("a") > 0 for _ in range(61)] == [False] * 60 + [True]


def test_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANS_API_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParamsError, match=f"--port {port}: Address already in use"):
            Serving(tmp_path, ApiOptions.read(port=port))
