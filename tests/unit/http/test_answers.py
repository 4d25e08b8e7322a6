"""The service answers as the Python API does, and keeps nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tans_core as tans
from tans_core.http.app import ModelOptions, ScanOptions
from tans_core.options import FinetuneOptions, RetrieveOptions
from tans_core.zoo.latency import Latency, Profile, add_latencies, network_key
from tests.factories.http_service import JSON, PARQUET, ZIP, Served, as_parquet, problem, served, zipped
from tests.factories.project import image_folder
from tests.unit.cli.conftest import Tans


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@pytest.mark.parametrize(("pack", "headers"), [(zipped, ZIP), (as_parquet, PARQUET)])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 2, "refine": 3}, {"max_macs_m": 0.3, "licences": "Apache-2.0,MIT,CC0-1.0"}]
)
def test_search_answers_as_the_api_does_for_the_folder(
    service: Served, project: Path, photos: Path, pack: Any, headers: dict[str, str], options: dict[str, Any]
) -> None:
    runs = sorted((project / "runs").glob("*"))
    answer = service.client.post("/v1/retrieve", params=options, content=pack(photos), headers=headers)
    assert answer.status_code == 200, answer.text
    assert sorted((project / "runs").glob("*")) == runs
    expected = tans.retrieve(photos, root=project, **options)
    assert answer.json()["candidates"] == plain(expected.to_dicts())
    assert answer.json()["release"] == expected.release
    assert answer.json()["task"]["class_names"] == ["ash", "elm", "oak"]
    assert service.left() == []


def test_scan_answers_as_the_api_does_for_the_same_file(service: Served, project: Path, photos: Path) -> None:
    archive = photos.with_suffix(".zip")
    archive.write_bytes(zipped(photos))
    answer = service.client.post("/v1/scan", content=archive.read_bytes(), headers=ZIP).json()
    expected = plain(tans.scan(archive, root=project).scanned.to_dict())
    # The file has another name there, and the times differ.
    for one in (answer["scan"], expected):
        one.pop("seconds"), one.pop("path"), one["gate"].pop("path")
    assert answer["scan"] == expected
    assert answer["passed"] is True
    assert answer["scan"]["bad"][0][0] == "ash/broken.png"


def test_images_that_the_gate_refuses_are_a_problem_that_names_no_folder_of_the_service(
    service: Served, photos: Path
) -> None:
    for path in (photos / "oak").glob("*"):
        path.write_bytes(b"no image")
    scanned = service.client.post("/v1/scan", content=zipped(photos), headers=ZIP).json()
    assert scanned["passed"] is False
    said = problem(service.client.post("/v1/retrieve", content=zipped(photos), headers=ZIP), 422)
    assert said["type"] == "urn:tans:error:EmptyClassError"
    assert said["release"] == scanned["release"]
    assert "upload.zip" in said["detail"]
    for text in (said["detail"], *scanned["scan"]["gate"]["failures"]):
        assert "Add images, or delete the classes." in text and "tans tasks" not in text
    assert str(service.temporary) not in json.dumps([said, scanned])


def test_nothing_fits_names_parameters_of_the_service_and_what_to_relax(service: Served, photos: Path) -> None:
    answer = service.client.post("/v1/retrieve?max_params_m=1e-6", content=zipped(photos), headers=ZIP)
    said = problem(answer, 422)
    assert said["type"] == "urn:tans:error:NoModelFitsError"
    assert "satisfy max_params_m 1e-06" in said["detail"]
    assert "raise max_params_m to" in said["advice"][0]
    limits = {"max_latency_ms": 1, "latency_profile": "cpu-3-threads-batch-3"}
    said = problem(service.client.post("/v1/retrieve", params=limits, content=zipped(photos), headers=ZIP), 422)
    assert "On the service's machine, run `tans zoo profile --device cpu" in said["advice"][-1]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("max_parms_m=1", "max_parms_m: unknown key (did you mean 'max_params_m'?)"),
        ("max_params_m=-1", "max_params_m: got '-1'"),
        ("top_k=0", "top_k: got '0'"),
        ("refine=many", "refine: got 'many'"),
        ("licences=MTI", "did you mean 'MIT'"),
        ("min_macs_m=3&max_macs_m=2", "min_macs_m: got 3, want at most the 2 of max_macs_m"),
    ],
)
def test_wrong_option_is_named_before_the_body_is_read(service: Served, query: str, words: str) -> None:
    said = problem(service.client.post(f"/v1/retrieve?{query}", content=b"", headers=ZIP), 422)
    assert said["type"] == "urn:tans:error:ParamsError"
    assert words in "\n".join(said["advice"])


def test_models_are_listed_within_limits_and_shown_by_id(service: Served, project: Path) -> None:
    cards = tans.list_models(project)
    listed = service.client.get("/v1/models").json()
    assert listed["models"] == plain([card.to_dict() for card in cards])
    few = service.client.get("/v1/models", params={"task": "bars", "limit": 2, "offset": 1}).json()
    bars = [card.id for card in cards if card.home_task == "bars"]
    assert (few["total"], [one["id"] for one in few["models"]]) == (len(bars), bars[1:3])
    limit = sorted(card.params_m for card in cards)[3]
    small = service.client.get("/v1/models", params={"max_params_m": limit}).json()
    assert [one["id"] for one in small["models"]] == [card.id for card in cards if card.params_m <= limit]
    limits = {"max_input_size_px": cards[0].preprocess.image_size_px, "not_home": "bars", "min_home_accuracy": 0.1}
    listed_in_limits = service.client.get("/v1/models", params=limits).json()["models"]
    wanted = [
        card.id
        for card in cards
        if card.preprocess.image_size_px <= limits["max_input_size_px"]
        and card.home_task != "bars"
        and (card.val_accuracy or 0) >= 0.1
    ]
    assert [one["id"] for one in listed_in_limits] == wanted != []
    said = problem(service.client.get("/v1/models?home=bar"), 422)
    assert said["detail"] == "home: got 'bar', want the home task of a network (did you mean 'bars'?)."
    one = service.client.get(f"/v1/models/{cards[0].id}").json()
    assert (one["model"], one["release"]) == (plain(cards[0].to_dict()), listed["release"])
    said = problem(service.client.get(f"/v1/models/{cards[0].id}x"), 404)
    assert f"did you mean {cards[0].id!r}" in said["detail"]


def test_releases_and_health_name_the_release_in_production(service: Served, project: Path) -> None:
    production = next(one["id"] for one in tans.list_releases(project) if one["production"])
    assert service.client.get("/v1/releases").json() == {
        "release": production,
        "releases": tans.list_releases(project),
    }
    assert service.client.get("/health/ready").json() == {"status": "ready", "release": production}
    assert service.client.get("/health/live").json()["status"] == "live"


def test_metrics_count_requests_by_pattern_and_status(service: Served) -> None:
    service.client.get("/v1/models/nothing-of-this-name")
    service.client.get("/nowhere/at/all")
    text = service.client.get("/metrics").text
    rows = {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tans_requests_total"
    }
    assert rows[(("method", "GET"), ("route", "/v1/models/{model}"), ("status", "404"))] >= 1
    assert rows[(("method", "GET"), ("route", "other"), ("status", "404"))] >= 1
    assert "nowhere" not in text
    assert "tans_release_live{" in text


def test_description_has_every_option_and_an_example_of_every_body(service: Served) -> None:
    described = service.client.get("/openapi.json").json()
    for path, method, options in (
        ("/v1/retrieve", "post", RetrieveOptions),
        ("/v1/scan", "post", ScanOptions),
        ("/v1/models", "get", ModelOptions),
        ("/v1/finetune", "post", FinetuneOptions),
    ):
        named = {one["name"]: one.get("description") for one in described["paths"][path][method]["parameters"]}
        assert named == {name: field.description for name, field in options.model_fields.items()}
    body = described["paths"]["/v1/retrieve"]["post"]["requestBody"]["content"]
    tans.Query.parse(json.dumps(body["application/json"]["example"]), "example")
    assert {"application/zip", "application/vnd.apache.parquet"} <= set(body)
    found = described["paths"]["/v1/retrieve"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    properties = described["components"]["schemas"]["Candidate"]["properties"]
    assert set(found["candidates"][0]) <= set(properties)


def test_addresses_that_do_not_exist_are_problems(service: Served) -> None:
    assert "/openapi.json" in problem(service.client.get("/v1/model"), 404)["advice"][0]
    answer = service.client.delete("/v1/retrieve")
    assert "got DELETE, want POST" in problem(answer, 405)["detail"]
    assert answer.headers["allow"] == "POST"


def test_service_without_a_release_is_not_ready_until_one_is_published(
    project: Path, photos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("serving", "runs"))
    (tmp_path / "temporary").mkdir()
    with served(root, tmp_path / "temporary") as running:
        assert "NoReleaseError" in problem(running.client.get("/health/ready"), 503)["type"]
        said = problem(running.client.post("/v1/retrieve", content=zipped(photos), headers=ZIP), 503)
        assert str(root) not in json.dumps(said)
        assert running.client.get("/v1/releases").json() == {"release": None, "releases": []}
        release = tans.publish(root)
        assert running.client.get("/health/ready").json()["release"] == release
        assert running.client.post("/v1/retrieve", content=zipped(photos), headers=ZIP).json()["release"] == release
        # A latency that is measured while the service runs counts with the next request.
        card = tans.list_models(root)[3]
        profile = Profile(device="cpu", processor="one", threads=1, batch=1, torch="2")
        timed = Latency(network=network_key(card), image_size_px=16, median_ms=2.0, iqr_ms=0.1, runs=9)
        add_latencies(root / "latency", profile, {card.id: timed})
        limit = {"max_latency_ms": 3, "latency_profile": profile.name}
        listed = running.client.get("/v1/models", params=limit).json()["models"]
        found = running.client.post("/v1/retrieve", params=limit, content=zipped(photos), headers=ZIP).json()
        assert [one["id"] for one in listed] == [one["model"] for one in found["candidates"]] == [card.id]
        assert running.client.get("/v1/models").json()["latency_profiles"] == [profile.name]
    assert list((tmp_path / "temporary").iterdir()) == []


# Images that stay at home


@pytest.fixture(scope="module")
def query(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tans.Query:
    return tans.embed(image_folder(tmp_path_factory.mktemp("home") / "photos"), root=project)


def test_query_is_answered_as_its_images_are(
    service: Served,
    project: Path,
    photos: Path,
    command: Tans,
    tmp_path: Path,
) -> None:
    file = tmp_path / "query.json"
    made = command("embed", photos, "-o", file, "--root", project)
    assert (made.code, made.err) == (0, "")
    text = file.read_text()
    assert not any(name in text for name in ("ash", "elm", "oak", str(photos)))
    options = {"max_macs_m": 0.3, "top_k": 3}
    wanted = plain(tans.retrieve(photos, root=project, **options).to_dicts())
    assert len(wanted) == 3
    answer = service.client.post("/v1/retrieve", params=options, content=text, headers=JSON)
    assert answer.json()["candidates"] == wanted
    assert (answer.json()["task"], answer.json()["scan"]) == (None, None)
    assert plain(tans.retrieve(tans.Query.read(file), root=project, **options).to_dicts()) == wanted
    done = command("retrieve", "--query", file, "--max-macs-m", 0.3, "--top-k", 3, "--json", "--root", project)
    assert json.loads(done.out)["candidates"] == wanted
    shown = command("retrieve", "--query", file, "--root", project)
    assert wanted[0]["model"] in shown.out


def test_map_places_the_query_among_tasks_and_networks(service: Served, query: tans.Query, project: Path) -> None:
    answer = service.client.post("/v1/map", content=query.model_dump_json(), headers=JSON).json()
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in answer["places"]:
        by_kind.setdefault(one["kind"], []).append(one)
    cards = tans.list_models(project)
    assert {one["name"] for one in by_kind["network"]} == {card.id for card in cards}
    assert [one["name"] for one in by_kind["network"]] == [
        one.model for one in tans.retrieve(query, root=project, top_k=100)
    ]
    # Networks of the base have no task for a home.
    assert {one["name"] for one in by_kind["task"]} == {card.home_task for card in cards if card.class_names}
    assert any(one["similarity"] is not None for one in by_kind["task"]) and len(by_kind["query"]) == 1
    assert all(abs(one[axis]) <= 1 for one in answer["places"] for axis in "xy")
    assert "not a query file" in problem(service.client.post("/v1/map", content=b"[]", headers=JSON), 422)["detail"]


@pytest.mark.parametrize("options", [{"refine": 2}, {"group": "patient"}])
def test_query_is_refused_where_images_are_needed(service: Served, query: tans.Query, options: dict[str, Any]) -> None:
    answer = service.client.post("/v1/retrieve", params=options, content=query.model_dump_json(), headers=JSON)
    assert "holds no images" in problem(answer, 422)["detail"]


def test_command_wants_images_or_a_query_and_not_both(project: Path, command: Tans, tmp_path: Path) -> None:
    for arguments in ((), ("patches", "--query", tmp_path / "query.json")):
        assert command("retrieve", *arguments, "--root", project).code == 2
    missing = command("retrieve", "--query", tmp_path / "none.json", "--root", project)
    assert (missing.code, "No such file" in missing.err) == (4, True)


def damaged(query: tans.Query, **changes: Any) -> bytes:
    return json.dumps({**query.model_dump(), **changes}).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda query: b"\x80\x04\x95pickled", "not a query file"),
        (lambda query: b"[1, 2]", "not a query file"),
        (lambda query: b"[" * 100_000, "not a query file"),
        (lambda query: b"", "not a query file"),
        (lambda query: damaged(query, statistics=[float("nan")] * len(query.statistics)), "not a query file"),
        (lambda query: damaged(query, vector=["1"] * 3 + [[]]), "vector.3"),
        (lambda query: damaged(query, code="import os"), "code: unknown key"),
        (lambda query: damaged(query, format="tans-query-9"), "tans-query-1"),
        (lambda query: damaged(query, encoder="0" * 64), "made with the encoders of release"),
        (lambda query: damaged(query, statistics=query.statistics[1:]), "want ("),
        (lambda query: damaged(query, vector=query.vector[::-1]), "the file was changed"),
        (lambda query: damaged(query, statistics=[1e300, *query.statistics[1:]]), "too large for float32"),
        (lambda query: damaged(query, statistics=[3e38, *query.statistics[1:]]), "the file was changed"),
    ],
)
def test_damaged_query_is_refused(service: Served, query: tans.Query, change: Any, words: str) -> None:
    said = problem(service.client.post("/v1/retrieve", content=change(query), headers=JSON), 422)
    assert said["type"] == "urn:tans:error:DataError"
    assert words in said["detail"]
    assert any("tans embed" in line for line in said["advice"])


def test_large_query_is_not_read(service: Served) -> None:
    answer: httpx.Response = service.client.post("/v1/retrieve", content=b" " * (5 * 2**20), headers=JSON)
    problem(answer, 413)
