"""The page's files: who gets them, what may run in them, and what they fetch. tests/e2e/test_page.py opens the page."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import tans_core
import tans_core as tans
from tests.factories.http_service import JSON, ZIP, Served, problem, served, zipped

STATIC = Path(tans_core.__file__).parent / "http/static"
NAMES = sorted(path.name for path in STATIC.iterdir())


@pytest.mark.parametrize("path", ["/", "/static/house.css", *(f"/static/{name}" for name in NAMES)])
def test_files_of_the_page_come_with_its_policy_and_are_asked_for_again(service: Served, path: str) -> None:
    answer = service.client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy and not any("unsafe" in part or "script-src" in part for part in policy)
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-cache", "nosniff")
    assert service.client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_page_needs_no_token_but_what_it_asks_for_does(project: Path, tmp_path: Path) -> None:
    with (
        served(project, tmp_path, token="0123456789abcdef") as running,
        httpx.Client(base_url=running.client.base_url) as stranger,
    ):
        assert [stranger.get(path).status_code for path in ("/", "/static/page.js")] == [200, 200]
        for path in ("/v1/models", "/v1/jobs", "/static", "/static/%2e%2e/page.py", "/static/nothing.js"):
            assert stranger.get(path).status_code in {401, 404}, path


@pytest.mark.parametrize("name", ["../page.py", "..%2fpage.py", "%2e%2e/page.py", "", "/etc/passwd"])
def test_no_other_file_is_served(service: Served, name: str) -> None:
    problem(service.client.get(f"/static/{name}"), 404)


@pytest.mark.parametrize("name", NAMES)
def test_file_of_the_page_makes_no_markup_of_texts_and_fetches_nothing_from_elsewhere(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text) == []
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert addresses == set()
    if name.endswith(".html"):
        assert re.findall(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=", text) == []
        assert all(link.startswith(("/", "#")) for link in re.findall(r"(?:href|src)=\"([^\"]*)\"", text))
    assert max(map(len, text.splitlines())) <= 120


def test_scan_gives_the_query_that_a_search_takes(service: Served, photos: Path) -> None:
    limit = {"max_macs_m": 0.3}
    scanned = service.client.post("/v1/scan?query=true", content=zipped(photos), headers=ZIP).json()
    query = tans.Query.model_validate(scanned["query"])
    found = service.client.post("/v1/retrieve", params=limit, content=query.model_dump_json(), headers=JSON).json()
    images = service.client.post("/v1/retrieve", params=limit, content=zipped(photos), headers=ZIP).json()
    assert found["candidates"] == images["candidates"] != []
    assert service.client.post("/v1/scan", content=zipped(photos), headers=ZIP).json()["query"] is None
    for path in (photos / "oak").glob("*"):
        path.write_bytes(b"no image")
    refused = service.client.post("/v1/scan?query=true", content=zipped(photos), headers=ZIP).json()
    assert (refused["passed"], refused["query"]) == (False, None)
