"""The inbox: which newcomers are admitted, which are not, and the state after a refresh that was cut off."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml

from flows.zoo_refresh import Outcome, refresh, report
from tans_core.embeddings.store import read_table
from tans_core.errors import NoReleaseError, WeightsError
from tans_core.index.listing import list_releases
from tans_core.index.releases import open_production, rollback
from tans_core.networks.registry import get_family
from tans_core.newcomers import newcomer_folders, waiting
from tans_core.project import take_in_newcomers
from tans_core.publishing import publish_built
from tans_core.retrieval.placement import measure_drift
from tans_core.space.drift import judge_drift
from tans_core.stages import index, space
from tans_core.zoo.admission import Newcomer
from tans_core.zoo.card import ModelCard
from tans_core.zoo.weights import load_model, load_tensors, save_tensors


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    """A copy of the small project."""
    shutil.copytree(project, tmp_path / "project")
    return tmp_path / "project"


def drop(root: Path, name: str, scale: float = 1.0, copied: bool = False) -> None:
    """Put a model into the inbox with most or all weights of a model of the zoo, scaled."""
    release = open_production(root / "serving")
    card = ModelCard.from_json(read_table(release.store_dir, "index")["card"].to_pylist()[0])
    network = load_model(card, release.resolve(card.weights))
    state = {key: value * scale if value.is_floating_point() else value for key, value in network.state_dict().items()}
    if not copied:  # as training would have
        generator = torch.Generator().manual_seed(0)
        state["stem.weight"] *= 1 + 0.2 * torch.rand(state["stem.weight"].shape, generator=generator)
    folder = root / "inbox" / name
    folder.mkdir(parents=True)
    save_tensors(state, folder / "weights.safetensors")
    made = {
        **card.to_dict(),
        "id": name,
        "home_task": "my leaves",
        "lineage": [
            *card.to_dict()["lineage"],
            {"kind": "task", "name": "my leaves", "source": "me", "licence": "MIT"},
        ],
        "val_accuracy": 0.9,
        "weights": "weights.safetensors",
    }
    (folder / "card.json").write_text(json.dumps(made))


def served(root: Path) -> list[str]:
    return list(read_table(open_production(root / "serving").store_dir, "index")["id"].to_pylist())


def test_good_newcomers_are_served_and_the_broken_are_kept_away(root: Path) -> None:
    before = served(root)
    drop(root, "good")
    drop(root, "same")
    drop(root, "exploding", scale=1e30)
    drop(root, "not-finite", scale=float("nan"))
    (root / "inbox/stray.txt").write_text("?")
    time.sleep(2)
    drop(root, "still-coming", scale=2.0)
    told: list[str] = []

    def announce(newcomer: Newcomer, release: str) -> None:
        # Whoever hears of a model can find it.
        assert newcomer.id in served(root)
        assert release == open_production(root / "serving").id
        told.append(newcomer.id)

    outcome = refresh(root, announce, settle_s=2)
    (arrival,) = (root / "data/admitted").iterdir()
    assert not list((root / "data/arrivals").iterdir())
    assert served(root) == sorted([*before, arrival.name])
    assert set(outcome.admitted) == {"good", "same"}
    assert set(told) == {arrival.name}
    assert set(outcome.refused) == {"exploding", "not-finite", "stray.txt"}
    reasons = {path.name: json.loads((path / "reason.json").read_text()) for path in (root / "quarantine").iterdir()}
    assert "NaN or infinite" in reasons["exploding"]["reason"]
    assert "finite" in reasons["not-finite"]["failures"][0]
    assert "not a folder" in reasons["stray.txt"]["reason"]
    assert [path.name for path in (root / "inbox").glob("[!.]*")] == ["still-coming"]
    assert not list((root / ".resume").glob("admission*"))
    text = report(outcome)
    assert arrival.name in text
    drift = outcome.drift[arrival.name]
    assert not drift.home_known
    assert f"| {drift.quantile:.2f} " in text
    assert " of 1 newcomers are far " in text
    assert "not a folder" in text


def test_newcomer_of_a_long_build_stays_served_when_that_build_is_published(root: Path) -> None:
    drop(root, "good")
    (newcomer,) = refresh(root, lambda newcomer, release: None, settle_s=0).admitted.values()
    # What a build that began before has made meanwhile: another space.
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["space"] |= {"steps": 5, "dim": 4}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    space.main(root)
    index.main(root)
    before = open_production(root / "serving")
    publish_built(root)
    after = open_production(root / "serving")
    assert after.id != before.id and newcomer.id in served(root)
    width = [read_table(one.store_dir, "index").schema.field("vector").type.list_size for one in (before, after)]
    assert width[0] != width[1] == 4
    assert list(waiting(root)) == [newcomer.id]
    assert newcomer.id in {one.id for one in measure_drift(after)}


def test_report_says_by_all_newcomers_whether_to_retrain(root: Path) -> None:
    for number, name in enumerate(("first", "second")):
        drop(root, name, scale=1.0 + 0.1 * number)
        outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert len(outcome.admitted) == 1 and len(outcome.drift) == 2
    verdict = judge_drift(list(outcome.drift.values()))
    assert f"{verdict.far} of 2 newcomers are far (" in report(outcome)
    assert ("Retraining is due" if verdict.due else "They are served all the same") in report(outcome)


def test_early_end_loses_nothing_and_doubles_nothing(root: Path) -> None:
    drop(root, "good")

    def die(newcomer: Newcomer, release: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh(root, die, settle_s=0)
    assert (root / "inbox/good").is_dir()
    releases = len(list_releases(root / "serving"))
    told: list[str] = []
    outcome = refresh(root, lambda newcomer, release: told.append(newcomer.id), settle_s=0)
    assert list(outcome.admitted) == ["good"]
    assert len(told) == 1
    assert len(list_releases(root / "serving")) == releases
    assert len(newcomer_folders(root / "data")) == 1
    assert not list((root / "inbox").glob("[!.]*"))


def test_newcomer_that_was_rolled_back_is_refused_until_a_person_says_so(root: Path) -> None:
    drop(root, "good")
    first = refresh(root, lambda newcomer, release: None, settle_s=0)
    before = rollback(root / "serving")
    drop(root, "good")
    told: list[str] = []
    outcome = refresh(root, lambda newcomer, release: told.append(newcomer.id), settle_s=0)
    assert told == [] and not outcome.admitted
    assert open_production(root / "serving") == before
    told_why = json.loads((root / "quarantine/good/reason.json").read_text())
    assert told_why["error"] == "WithdrawnReleaseError"
    assert "was rolled back at 20" in told_why["reason"] and "`tans zoo admit --again`" in told_why["reason"]
    (root / "quarantine/good/newcomer").rename(root / "inbox/good")
    outcome = refresh(root, lambda newcomer, release: told.append(newcomer.id), settle_s=0, again=True)
    assert outcome.release == first.release == open_production(root / "serving").id
    assert len(told) == 1


def test_build_leaves_out_what_was_rolled_back_and_takes_in_the_others(root: Path) -> None:
    ids = []
    for name in ("first", "second"):
        drop(root, name, scale=1.0 if name == "first" else 1.1)
        ids += [one.id for one in refresh(root, lambda newcomer, release: None, settle_s=0).admitted.values()]
        if name == "first":
            rollback(root / "serving")
    lines: list[str] = []
    take_in_newcomers(root, lines.append)
    assert [path.name for path in newcomer_folders(root / "data")] == [ids[1]]
    assert (root / "data/arrivals" / ids[1] / "weights.safetensors").is_file()
    assert (root / "quarantine" / ids[0] / "newcomer/card.json").is_file()
    assert any(line.startswith(f"moved to quarantine: {ids[0]}: was in production") for line in lines)
    assert f"newcomers taken in: 1 ({ids[1]})" in lines


def test_newcomer_of_version_0_is_served_and_so_is_what_a_newer_version_added(root: Path) -> None:
    drop(root, "newer")
    path = root / "inbox/newer/card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2, "teacher": "t"}))
    family, stages = get_family("elastic-residual"), [[{"kernel": 3, "ratio": 0.25}]] * 3
    network = family.build({"stages": stages}, 2)
    cost = family.cost({"stages": stages}, 16, 2)
    older = {
        "id": "older", "space": "elastic-residual", "architecture": {"stages": stages}, "home_task": "my trees",
        "source": "folder", "licence": "MIT", "class_names": ["ash", "oak"], "image_size_px": 16,
        "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "params_m": cost.params_m, "macs_m": cost.macs_m,
        "val_accuracy": 0.9, "test_accuracy": 0.9, "weights": "weights.safetensors",
    }  # fmt: skip
    (root / "inbox/older").mkdir()
    save_tensors(dict(network.state_dict()), root / "inbox/older/weights.safetensors")
    (root / "inbox/older/card.json").write_text(json.dumps(older))
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert not outcome.refused
    release = open_production(root / "serving")
    cards = [ModelCard.from_json(text) for text in read_table(release.store_dir, "index")["card"].to_pylist()]
    served = {card.home_task: card for card in cards if card.id.startswith("arrival-")}
    assert served["my leaves"].to_dict()["teacher"] == "t"
    assert served["my trees"].licence == "Apache-2.0 AND LicenseRef-unknown-lineage AND MIT"
    images = torch.rand(4, 3, 16, 16)
    found = load_model(served["my trees"], release.resolve(served["my trees"].weights))
    assert torch.equal(found(images), network.eval()(images))


def test_space_older_than_drift_keeps_nobody_out(root: Path) -> None:
    drop(root, "good")
    for path in (root / "serving/releases").glob("*/space/drift.json"):
        path.unlink()
    described = open_production(root / "serving").root / "release.json"
    files = json.loads(described.read_text())
    del files["files"]["space/drift.json"]
    described.write_text(json.dumps(files))
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert list(outcome.admitted) == ["good"]
    assert outcome.drift == {}
    assert "| not known |" in report(outcome)


def test_without_a_release_the_inbox_waits(root: Path) -> None:
    drop(root, "good")
    shutil.rmtree(root / "serving")
    with pytest.raises(NoReleaseError):
        refresh(root, lambda newcomer, release: None, settle_s=0)
    assert (root / "inbox/good").is_dir()


def test_with_a_release_that_cannot_place_newcomers_the_inbox_waits(root: Path) -> None:
    drop(root, "good")
    for path in (root / "serving/releases").glob("*/space/anchors.safetensors"):
        path.unlink()
    with pytest.raises(
        WeightsError, match=r"anchors\.safetensors: missing or changed since release .* was published.*tans publish"
    ):
        refresh(root, lambda newcomer, release: None, settle_s=0)
    assert (root / "inbox/good").is_dir() and not (root / "quarantine/good").exists()


def test_report_of_nothing_has_no_rows() -> None:
    assert report(Outcome()).count("\n|") == 4


def test_newcomer_answers_as_it_did_before(root: Path) -> None:
    drop(root, "good")
    given = load_tensors(root / "inbox/good/weights.safetensors")
    refresh(root, lambda newcomer, release: None, settle_s=0)
    release = open_production(root / "serving")
    cards = {one["id"]: one for one in map(json.loads, read_table(release.store_dir, "index")["card"].to_pylist())}
    (name,) = [name for name in cards if name.startswith("arrival-")]
    card = ModelCard.from_dict(cards[name])
    images = torch.rand(4, 3, 16, 16)
    newcomer = load_model(card, release.resolve(card.weights))(images)
    own = get_family(card.family).load(card.architecture, len(card.class_names), given, "inbox")
    assert torch.allclose(newcomer, own(images), atol=1e-5)


def test_a_copy_of_a_network_is_refused_by_the_name_of_that_network(root: Path) -> None:
    before = served(root)
    drop(root, "copy", copied=True)
    drop(root, "first")
    drop(root, "second")
    card = json.loads((root / "inbox/second/card.json").read_text())
    # Another card for the same weights makes another id.
    (root / "inbox/second/card.json").write_text(json.dumps({**card, "val_accuracy": 0.8}))
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    (admitted,) = outcome.admitted.values()
    assert list(outcome.admitted) == ["first"]
    assert f"gives the same outputs as {before[0]}" in outcome.refused["copy"]
    assert f"gives the same outputs as {admitted.id}" in outcome.refused["second"]
    assert served(root) == sorted([*before, admitted.id])
    drop(root, "later", copied=True)  # of the one that was admitted, the first in the index by now
    card = json.loads((root / "inbox/later/card.json").read_text())
    (root / "inbox/later/card.json").write_text(json.dumps({**card, "val_accuracy": 0.7}))
    assert list(refresh(root, lambda newcomer, release: None, settle_s=0).refused) == ["later"]


def test_features_without_a_classifier_are_admitted_and_claim_nothing(root: Path) -> None:
    drop(root, "features")
    folder = root / "inbox/features"
    card = json.loads((folder / "card.json").read_text())
    tensors = {k: v for k, v in load_tensors(folder / "weights.safetensors").items() if not k.startswith("classifier.")}
    save_tensors(tensors, folder / "weights.safetensors")
    (folder / "card.json").write_text(json.dumps({**card, "class_names": [], "val_accuracy": None}))
    (reason,) = refresh(root, lambda newcomer, release: None, settle_s=0).refused.values()
    assert "want null, since the card has no class_names" in reason
    shutil.move(root / "quarantine/features/newcomer", folder)
    cost = get_family(card["family"]).cost(card["architecture"], card["preprocess"]["image_size_px"], 1)
    changes = {"class_names": [], "val_accuracy": None, "test_accuracy": None, "params_m": cost.params_m}
    (folder / "card.json").write_text(json.dumps({**card, **changes}))
    outcome = refresh(root, lambda newcomer, release: None, settle_s=0)
    assert outcome.refused == {}
    found = [one for one in served(root) if one.startswith("arrival-")]
    assert found == [one.id for one in outcome.admitted.values()]
