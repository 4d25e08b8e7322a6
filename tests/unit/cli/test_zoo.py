"""`tans zoo`: networks of libraries come and go, damage is found, and networks are timed."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import tans_core
from tans_core.errors import GateError, ParamsError, StoreError, WeightsError, WithdrawnReleaseError
from tans_core.index.releases import open_production
from tans_core.zoo.weights import load_model
from tests.factories.project import UNSEEN
from tests.unit.cli.conftest import Tans

RESNET = ("add", "resnet18", "--package", "torchvision", "--size-px", "32")


@pytest.fixture
def root(project: Path, tmp_path: Path) -> Path:
    shutil.copytree(project, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    """ResNet-18 as torchvision writes it, with a head for three classes and another name for it all."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Linear(512, 3)
    path = tmp_path / "resnet18.pth"
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, path)
    return path


def digests(root: Path, *parts: str) -> dict[str, str]:
    found = [path for part in parts for path in sorted((root / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_a_network_of_a_library_is_added_as_features_and_taken_away(tans: Tans, root: Path, resnet: Path) -> None:
    before = {card.id for card in tans_core.list_models(root)}
    built = digests(root, "data/base", "data/zoo", "data/store", "data/space")
    card = json.loads(tans("zoo", *RESNET, "--weights", resnet, "--licence", "Ask Ann", "--json", "--root", root).out)
    assert {one.id for one in tans_core.list_models(root)} == {*before, card["id"]}
    assert card["class_names"] == [] and card["val_accuracy"] is None
    assert [(one["kind"], one["licence"]) for one in card["lineage"]] == [
        ("weights", "LicenseRef-ask-ann"),
        ("task", "LicenseRef-imagenet-terms"),
    ]
    assert card["licences"]["texts"]["LicenseRef-ask-ann"] == "Ask Ann"
    assert card["licences"]["code"] == "Apache-2.0 AND BSD-3-Clause"
    assert card["preprocess"]["image_size_px"] == 32 and card["preprocess"]["interpolation"] == "bilinear"
    # It answers as the library's own does.
    release = open_production(root / "serving")
    kept = tans_core.model_card(card["id"], root)
    images = torch.randn(2, 3, 32, 32)
    original = torchvision.models.resnet18(weights=None)
    original.fc = nn.Identity()
    saved = torch.load(resnet, weights_only=True)["state_dict"]
    original.load_state_dict({name: value for name, value in saved.items() if not name.startswith("fc.")})
    own = load_model(kept, release.resolve(kept.weights))
    torch.testing.assert_close(own.features(images), original.eval()(images))
    run = tans_core.finetune(UNSEEN, card["id"], epochs=1, root=root)
    assert run.test_accuracy > 0
    removed = json.loads(tans("zoo", "remove", card["id"], "--json", "--root", root).out)
    assert removed["removed"] == [card["id"]]
    assert (root / "quarantine" / card["id"] / "newcomer/weights.safetensors").is_file()
    assert {one.id for one in tans_core.list_models(root)} == before
    assert not list((root / "data/admitted").iterdir())
    # Neither touched what was built.
    assert digests(root, "data/base", "data/zoo", "data/store", "data/space") == built


def test_with_a_home_task_its_accuracy_is_measured_there(tans: Tans, root: Path, tmp_path: Path) -> None:
    classes = len(next(one for one in tans_core.list_tasks(root) if one.name == "bars").class_names)
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", pretrained=False, num_classes=classes)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    said = ("zoo", "add", "resnet10t", "--weights", tmp_path / "w.safetensors", "--home-task", "bars")
    done = tans(*said, "--size-px", 32, "--root", root)
    # Random weights are no better than chance, and that is what the card says of them.
    assert done.code == GateError.exit_code and "val_accuracy" in done.err
    (reason,) = (root / "quarantine").glob("*/reason.json")
    card = json.loads((reason.parent / "newcomer/card.json").read_text())
    assert card["home_task"] == "bars" and len(card["class_names"]) == classes
    assert 0 <= card["val_accuracy"] < 0.9


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("add", "resnet81", "--package", "torchvision"), "did you mean 'resnet18'"),
        (("add", "resnet34", "--package", "torchvision"), "lacks"),
        (("add", "resnet18", "--package", "torchvision", "--home-task", "nowhere"), "no task of this name"),
        (("add", "resnet18", "--package", "torchvision", "--home-task", "../bars"), "no task of this name"),
    ],
)
def test_what_cannot_be_added_is_said_and_leaves_nothing(
    tans: Tans, root: Path, resnet: Path, said: tuple[str, ...], told: str
) -> None:
    done = tans("zoo", *said, "--weights", resnet, "--root", root)
    assert done.code != 0 and told in done.err
    assert not [path for path in (root / "inbox").glob("*") if not path.name.startswith(".")]


@pytest.mark.parametrize("name", ["pickle.pth", "zip.pth", "text.safetensors", "missing.pth"])
def test_a_file_of_other_things_is_refused_and_nothing_in_it_runs(
    tans: Tans, root: Path, tmp_path: Path, name: str
) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    path = tmp_path / name
    if name == "pickle.pth":
        path.write_bytes(pickle.dumps(Evil()))
    elif name == "zip.pth":
        torch.save({"state_dict": Evil()}, path)
    elif name == "text.safetensors":
        path.write_text("no tensors")
    done = tans("zoo", *RESNET, "--weights", path, "--root", root)
    assert done.code == WeightsError.exit_code
    assert name in done.err
    assert not (tmp_path / "ran").exists()


def test_the_same_weights_twice_are_refused(tans: Tans, root: Path, resnet: Path) -> None:
    assert tans("zoo", *RESNET, "--weights", resnet, "--root", root).code == 0
    done = tans("zoo", *RESNET, "--licence", "MIT", "--weights", resnet, "--root", root)
    assert done.code == WeightsError.exit_code and "gives the same outputs as arrival-" in done.err


def test_networks_of_the_zoo_are_not_removed_one_by_one(tans: Tans, root: Path) -> None:
    model = tans_core.list_models(root)[0].id
    done = tans("zoo", "remove", model, "--root", root)
    assert done.code == StoreError.exit_code and "tans tasks remove" in done.err
    assert "has no model" in tans("zoo", "remove", "arrival-0", "--root", root).err


def test_newcomers_in_the_inbox_are_admitted_at_once(tans: Tans, root: Path, resnet: Path) -> None:
    (root / "inbox").mkdir(exist_ok=True)
    (root / "inbox/stray.txt").write_text("?")
    time.sleep(2.1)
    found = json.loads(tans("zoo", "admit", "--json", "--root", root).out)
    assert found["admitted"] == {} and list(found["refused"]) == ["stray.txt"]
    assert "0 admitted, 0 in quarantine" in tans("zoo", "admit", "--root", root).out


def test_a_flipped_byte_in_any_stored_weight_is_found(tans: Tans, root: Path, resnet: Path) -> None:
    assert tans("zoo", *RESNET, "--weights", resnet, "--root", root).code == 0
    whole = json.loads(tans("zoo", "verify", "--json", "--root", root).out)
    assert whole["damaged"] == {} and whole["files"] > 10
    release = open_production(root / "serving")
    stored = [release.root / name for name in release.files if name.endswith(".safetensors")]
    stored += list((root / "data/admitted").glob("*/weights.safetensors"))
    assert len(stored) > 6
    for path in stored:
        contents = bytearray(path.read_bytes())
        contents[len(contents) // 2] ^= 1
        kept = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(contents)
        done = tans("zoo", "verify", "--json", "--root", root)
        assert done.code == WeightsError.exit_code
        assert str(path.relative_to(root)) in json.loads(done.out)["damaged"]
        path.write_bytes(kept)
    assert tans("zoo", "verify", "--root", root).code == 0


def test_damaged_weights_are_not_used_and_publishing_mends_them(tans: Tans, root: Path) -> None:
    release = open_production(root / "serving")
    card = tans_core.list_models(root)[0]
    path = release.root / card.weights
    path.chmod(0o644)
    contents = bytearray(path.read_bytes())
    contents[-1000:] = bytes(value ^ 255 for value in contents[-1000:])
    path.write_bytes(contents)
    done = tans("finetune", UNSEEN, "--model", card.id, "--epochs", 1, "--root", root)
    assert done.code == WeightsError.exit_code
    assert "the file is damaged" in done.err and "tans publish" in done.err
    assert tans("publish", "--root", root).code == 0
    assert open_production(root / "serving").id == release.id
    assert tans("zoo", "verify", "--root", root).code == 0
    assert tans("finetune", UNSEEN, "--model", card.id, "--epochs", 1, "--root", root).code == 0


def test_networks_are_timed_under_a_named_profile_that_is_never_mixed(tans: Tans, root: Path) -> None:
    cards = tans_core.list_models(root)[:2]
    ids = [card.id for card in cards]
    found = json.loads(tans("zoo", "profile", *ids, "--device", "cpu", "--batch", 4, "--json", "--root", root).out)
    assert found["name"] == "cpu-1-threads-batch-4"
    assert set(found["networks"]) == set(ids)
    assert all(one["median_ms"] > 0 and one["runs"] > 1 for one in found["networks"].values())
    # A limit finds those that were timed under its profile, at once, and says what to time where there are none.
    slowest = max(one["median_ms"] for one in found["networks"].values())
    timed = {card.id for card in tans_core.list_models(root) if any(card.architecture == c.architecture for c in cards)}
    within = ("--max-latency-ms", slowest, "--latency-profile", found["name"], "--root", root)
    listed = tans("models", "list", *within)
    assert all(name in listed.out for name in ids) and "latency (ms)" in listed.out
    ranked = json.loads(tans("retrieve", UNSEEN, *within, "--top-k", 99, "--json").out)["candidates"]
    assert set(ids) <= {one["model"] for one in ranked} <= timed
    assert all(0 < one["latency_ms"] <= slowest for one in ranked)
    assert "latency (ms)" in tans("retrieve", UNSEEN, *within).out
    none = tans(
        "retrieve", UNSEEN, "--max-latency-ms", slowest, "--latency-profile", "cpu-1-threads-batch-9", *within[4:]
    )
    assert none.code == 5 and "Run `tans zoo profile --device cpu --threads 1 --batch 9`" in none.err
    tight = tans("retrieve", UNSEEN, "--max-latency-ms", slowest / 1e6, *within[2:])
    assert tight.code == 5 and "raise --max-latency-ms to " in tight.err
    tuned = tans("finetune", UNSEEN, *within, "--refine", 0, "--epochs", 1, "--json")
    assert json.loads(tuned.out)["model"] in {one["model"] for one in ranked}
    path = Path(found["file"])
    kept = json.loads(path.read_text())
    assert kept["profile"]["batch"] == 4
    path.write_text(json.dumps({**kept, "profile": {**kept["profile"], "processor": "another"}}))
    done = tans("zoo", "profile", ids[0], "--device", "cpu", "--batch", 4, "--root", root)
    assert done.code == StoreError.exit_code and "was measured on another" in done.err
    shown = tans("zoo", "profile", ids[0], "--device", "cpu", "--root", root).out
    assert ids[0] in shown and "cpu-1-threads-batch-1" in shown


def test_listing_and_showing_are_those_of_models(tans: Tans, project: Path) -> None:
    for command in (("list", "--json"), ("show", tans_core.list_models(project)[0].id, "--json")):
        own, other = (tans(group, *command, "--root", project).out for group in ("zoo", "models"))
        assert json.loads(own) == json.loads(other)


def test_a_removal_that_was_cut_off_is_done_again(tans: Tans, root: Path, resnet: Path) -> None:
    card = json.loads(tans("zoo", *RESNET, "--weights", resnet, "--json", "--root", root).out)
    kept = root / "kept"
    shutil.copytree(root / "data/admitted" / card["id"], kept)
    assert tans("zoo", "remove", card["id"], "--root", root).code == 0
    # As a kill between the two steps would have left it.
    shutil.copytree(kept, root / "data/admitted" / card["id"])
    assert tans("zoo", "remove", card["id"], "--root", root).code == 0
    assert not list((root / "data/admitted").iterdir())
    assert "has no model" in tans("zoo", "remove", card["id"], "--root", root).err


def test_a_damaged_newcomer_is_published_from_its_whole_copy_and_can_be_removed(
    tans: Tans, root: Path, resnet: Path
) -> None:
    card = json.loads(tans("zoo", *RESNET, "--weights", resnet, "--json", "--root", root).out)
    release = open_production(root / "serving")
    for damaged in (1, 2):
        path = open_production(root / "serving").root / card["weights"]
        path.chmod(0o644)
        contents = bytearray(path.read_bytes())
        contents[len(contents) // 2] ^= 1
        path.write_bytes(contents)
        assert "the file is damaged" in tans("finetune", UNSEEN, "--model", card["id"], "--root", root).err
        if damaged == 1:
            assert tans("publish", "--root", root).code == 0
            assert open_production(root / "serving").files == release.files
            assert tans("zoo", "verify", "--root", root).code == 0
    assert tans("zoo", "remove", card["id"], "--root", root).code == 0
    assert card["id"] not in {one.id for one in tans_core.list_models(root)}


def test_damage_that_releases_share_is_mended_in_all_of_them(tans: Tans, root: Path, resnet: Path) -> None:
    for size in (32, 40):
        assert tans("zoo", *RESNET[:-1], size, "--weights", resnet, "--root", root).code == 0
    path = open_production(root / "serving").root / tans_core.list_models(root)[-1].weights
    path.chmod(0o644)
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)  # one file under both releases' names
    damaged = json.loads(tans("zoo", "verify", "--json", "--root", root).out)["damaged"]
    assert len(damaged) == 2
    assert tans("publish", "--root", root).code == 0
    assert tans("zoo", "verify", "--root", root).code == 0


def test_network_that_was_rolled_back_is_not_added_again_by_chance(tans: Tans, root: Path, resnet: Path) -> None:
    assert tans("zoo", *RESNET, "--weights", resnet, "--root", root).code == 0
    assert tans("rollback", "--root", root).code == 0
    done = tans("zoo", *RESNET, "--weights", resnet, "--root", root)
    assert done.code == WithdrawnReleaseError.exit_code and "`tans zoo admit --again`" in done.err
    (entry,) = (root / "quarantine").iterdir()
    (entry / "newcomer").rename(root / "inbox" / entry.name)
    time.sleep(2.1)
    (admitted,) = json.loads(tans("zoo", "admit", "--again", "--json", "--root", root).out)["admitted"].values()
    assert admitted in {card.id for card in tans_core.list_models(root)}
    assert tans("zoo", "remove", admitted, "--root", root).code == 0
    assert not list((root / "data/admitted").iterdir())


def test_a_device_that_is_not_here_is_said_before_anything_is_timed(tans: Tans, project: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = tans("zoo", "profile", "--device", "cuda", "--root", project)
    assert done.code == ParamsError.exit_code and "finds no GPU" in done.err


@pytest.mark.parametrize("contents", [b"", b"\x80", b"PK\x03\x04" + bytes(40), b"\x80\x02}q\x00(X"])
def test_files_cut_short_are_refused_by_name(tans: Tans, project: Path, tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "short.pth").write_bytes(contents)
    done = tans("zoo", *RESNET, "--weights", tmp_path / "short.pth", "--root", project)
    assert done.code == WeightsError.exit_code and "short.pth: not a state_dict" in done.err


def test_a_network_that_is_built_for_one_size_says_so(tans: Tans, project: Path, tmp_path: Path) -> None:
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "v.safetensors")
    said = ("zoo", "add", "vit_tiny_patch16_224", "--weights", tmp_path / "v.safetensors", "--size-px", 96)
    done = tans(*said, "--root", project)
    assert done.code == WeightsError.exit_code and "cannot read images of 96 pixels" in done.err
