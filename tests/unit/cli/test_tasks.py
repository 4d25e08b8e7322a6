import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tans_core.errors import EmptyClassError
from tans_core.licences import TEXTS
from tans_core.params import load_params
from tans_core.sources.build import build_task
from tans_core.sources.image_folder import ImageFolder
from tans_core.tasks.task import write_task
from tests.factories.images import write_class_folders
from tests.factories.project import TASKS, UNSEEN, make_task
from tests.factories.query_cases import change_params
from tests.factories.repository import init_repository
from tests.unit.cli.conftest import Tans

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "leaves", {"ash": 40, "elm": 40, "oak": 40})


def test_tasks_are_listed_by_role(tans: Tans, project: Path) -> None:
    everything = json.loads(tans("tasks", "list", "--json", "--root", project).out)
    assert [task["name"] for task in everything] == sorted([*TASKS, UNSEEN])
    assert {task["here"] for task in everything} == {"built"}
    unseen = json.loads(tans("tasks", "list", "--role", "meta-test", "--json", "--root", project).out)
    assert [task["name"] for task in unseen] == [UNSEEN]
    shown = tans("tasks", "list", "--root", project).out
    row = next(line.split() for line in shown.splitlines() if line.startswith((UNSEEN, f" {UNSEEN}")))
    assert row == [UNSEEN, "meta-test", "made-of-patches", "CC0-1.0", "3", "30/15/15", "built"]


def test_tasks_that_are_not_built_say_what_is_missing(tans: Tans, fresh: Path) -> None:
    options = {"dataset": "SVHN"}
    text = (fresh / "params.yaml").read_text()
    entry = f"  meta_test:\n    numbers: {{source: torchvision, options: {json.dumps(options)}}}\n"
    (fresh / "params.yaml").write_text(text.replace("  meta_test:\n", entry))
    found = {task["name"]: task for task in json.loads(tans("tasks", "list", "--json", "--root", fresh).out)}
    assert found["optdigits"]["here"] == "source is here" and found["optdigits"]["counts"] == {}
    assert "train_32x32.mat" in found["numbers"]["here"]
    assert found["numbers"]["licence"] == "LicenseRef-svhn-non-commercial"
    assert "source is here" in tans("tasks", "show", "optdigits", "--root", fresh).out
    assert TEXTS["LicenseRef-svhn-non-commercial"] in tans("tasks", "show", "numbers", "--root", fresh).out


def test_sources_are_listed_with_licence_and_what_they_lack(tans: Tans, fresh: Path) -> None:
    rows = json.loads(tans("tasks", "list", "--sources", "--json", "--root", fresh).out)
    assert len(rows) >= 15 and all(row["licence"] for row in rows)
    assert next(row for row in rows if row["name"] == "mlxtend")["missing"] is None
    assert "options.path" in tans("tasks", "list", "--sources", "--root", fresh).out


def test_one_task_is_shown_with_its_classes_and_a_sheet(tans: Tans, project: Path, tmp_path: Path) -> None:
    assert "dark, middle, bright" in tans("tasks", "show", UNSEEN, "--root", project).out
    shown = json.loads(tans("tasks", "show", UNSEEN, "--json", "--root", project).out)
    assert shown["role"] == "meta-test"
    assert Path(shown["sheet"]) == project / f"reports/tasks/{UNSEEN}.png"
    target = tmp_path / "sheet.png"
    tans("tasks", "show", UNSEEN, "--sheet", target, "--root", project)
    with Image.open(target) as sheet:
        assert np.asarray(sheet).std() > 10 and sheet.format == "PNG"


def test_what_a_scan_saved_is_shown(tans: Tans, fresh: Path, leaves: Path) -> None:
    assert tans("tasks", "scan", leaves, "--save", "mine", "--root", fresh).code == 0
    done = tans("tasks", "show", "mine", "--json", "--root", fresh)
    shown = json.loads(done.out)
    assert shown["class_names"] == ["ash", "elm", "oak"] and sum(shown["counts"].values()) == 120
    with Image.open(shown["sheet"]) as sheet:
        assert np.asarray(sheet).std() > 10
    assert "did you mean 'mine'?" in tans("tasks", "show", "mines", "--root", fresh).err


def test_sheet_of_images_of_all_sizes_is_no_larger_than_people_need(tans: Tans, fresh: Path, leaves: Path) -> None:
    change_params(fresh, data={"stored_size_px": 512})
    write_class_folders(leaves, {"elm": 3, "yew": 3}, seed=1, side=400)
    assert tans("tasks", "scan", leaves, "--save", "mine", "--root", fresh).code == 0
    shown = json.loads(tans("tasks", "show", "mine", "--json", "--root", fresh).out)
    assert shown["stored_size_px"] == 512
    with Image.open(shown["sheet"]) as sheet:
        assert sheet.width < 1000 and 4 * 64 < sheet.height < 4 * 80
        rows = np.array_split(np.asarray(sheet)[:, 150:], 4)
    assert all(row.std() > 10 for row in rows)


def test_names_of_classes_cannot_steer_the_terminal(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    names = ["\x1b[31mred", "\x9b31mred", "\u202ederut"]
    root = write_class_folders(tmp_path / "x", dict.fromkeys(names, 20))
    printed = tans("tasks", "scan", root, "--save", "mine", "--json", "--root", fresh)
    assert printed.code == 0 and set(json.loads(printed.out)["classes"]) == set(names)
    printed_too = [tans("tasks", "show", "mine", *form, "--root", fresh).out for form in ((), ("--json",))]
    assert set(json.loads(printed_too[1])["class_names"]) == set(names)
    assert not {"\x1b", "\x9b", "\u202e"} & set("".join([printed.out, *printed_too]))


def test_unknown_task_is_answered_with_the_nearest(tans: Tans, project: Path) -> None:
    done = tans("tasks", "show", "strips", "--root", project)
    assert (done.code, done.out) == (4, "")
    assert "did you mean 'stripes'?" in done.err


def test_no_task_yet_says_what_to_run(tans: Tans, tmp_path: Path) -> None:
    assert "tans build" in tans("tasks", "list", "--root", tmp_path).out


def test_a_folder_becomes_a_task_that_builds_until_it_changes(tans: Tans, fresh: Path, leaves: Path) -> None:
    done = tans("tasks", "add", leaves, "--name", "leaves", "--licence", "CC0-1.0", "--root", fresh)
    assert done.code == 0, done.err
    assert "tans build" in done.out and "120 images in 3 classes" in done.err
    task = load_params(fresh).tasks.meta_train["leaves"]

    def build() -> int:
        built = build_task(
            "leaves",
            task.source,
            task.options,
            "meta-train",
            stored_size_px=16,
            max_train=60,
            max_val=15,
            max_test=15,
            min_images_per_class=2,
            seed=0,
        )
        assert built.info.licence == "CC0-1.0"
        return len(built.labels)

    assert build() == 90
    (leaves / "ash/0.png").unlink()
    with pytest.raises(Exception, match=r"tans tasks add .* --replace"):
        build()
    again = tans("tasks", "add", leaves, "--name", "leaves", "--root", fresh)
    assert again.code == 2 and "--replace" in again.err
    assert tans("tasks", "add", leaves, "--name", "leaves", "--replace", "--root", fresh).code == 0
    before = load_params(fresh).tasks.meta_train["leaves"].options["digest"]
    assert before != task.options["digest"]


def test_a_licence_in_words_is_named_and_its_words_are_kept_and_shown(tans: Tans, fresh: Path, leaves: Path) -> None:
    words = "Only for Ann's \x1b[31mschool: ask"
    done = tans("tasks", "add", leaves, "--name", "leaves", "--licence", words, "--root", fresh)
    assert done.code == 0 and "no SPDX expression" in done.err and "\x1b[31m" not in done.err
    options = load_params(fresh).tasks.meta_train["leaves"].options
    assert options["licence_texts"] == {options["licence"]: "Only for Ann's [31mschool: ask"}
    shown = tans("tasks", "show", "leaves", "--root", fresh).out
    assert options["licence"] in shown and "Only for Ann's [31mschool: ask" in shown
    listed = json.loads(tans("tasks", "show", "leaves", "--json", "--root", fresh).out)
    assert listed["licence_texts"] == options["licence_texts"]
    assert len(list(ImageFolder().load(options, 0))) == 120


@pytest.mark.parametrize(
    ("stated", "kept"),
    [("mit or GPL-2.0", "GPL-2.0-only OR MIT"), ("Apache-2.0", "Apache-2.0"), ("LicenseRef-users-own", None)],
)
def test_a_licence_is_kept_as_spdx_spells_it(
    tans: Tans, fresh: Path, leaves: Path, stated: str, kept: str | None
) -> None:
    done = tans("tasks", "add", leaves, "--name", "leaves", "--licence", stated, "--root", fresh)
    assert done.code == 0 and "SPDX" not in done.err
    options = load_params(fresh).tasks.meta_train["leaves"].options
    assert options.get("licence") == kept and "licence_texts" not in options


def test_a_misspelt_licence_is_answered_with_the_nearest(tans: Tans, fresh: Path, leaves: Path) -> None:
    done = tans("tasks", "add", leaves, "--name", "leaves", "--licence", "Apache 2.0", "--root", fresh)
    assert done.code == 0 and "did you mean 'Apache-2.0'?" in done.err


def test_a_folder_inside_the_project_is_named_relative_to_it(tans: Tans, fresh: Path, leaves: Path) -> None:
    shutil.move(leaves, fresh / "photos")
    assert tans("tasks", "add", fresh / "photos", "--name", "p", "--role", "meta-test", "--root", fresh).code == 0
    assert load_params(fresh).tasks.meta_test["p"].options["path"] == "photos"


def test_empty_classes_are_dropped_on_demand_also_by_the_build(tans: Tans, fresh: Path, leaves: Path) -> None:
    (leaves / "yew").mkdir()
    (leaves / "fir").mkdir()
    (leaves / "fir/0.png").write_bytes(b"x")
    refused = tans("tasks", "add", leaves, "--name", "leaves", "--root", fresh)
    assert refused.code == EmptyClassError.exit_code and "`tans tasks add PATH --drop-empty-classes" in refused.err
    done = tans("tasks", "add", leaves, "--name", "leaves", "--drop-empty-classes", "--root", fresh)
    assert done.code == 0 and "120 images in 3 classes" in done.err
    options = load_params(fresh).tasks.meta_train["leaves"].options
    assert len({sample.label for sample in ImageFolder().load(options, 0)}) == 3
    (leaves / "yew").rmdir()
    with pytest.raises(EmptyClassError, match="'fir'"):
        list(ImageFolder().load({"path": str(leaves)}, 0))


def test_a_folder_of_links_is_added_on_demand(tans: Tans, fresh: Path, leaves: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    for folder in leaves.iterdir():
        (links / folder.name).symlink_to(folder)
    assert (
        "no class folders with images, only 3 x link that leads outside (`tans tasks scan --follow-links`"
        in tans("tasks", "add", links, "--name", "leaves", "--root", fresh).err
    )
    done = tans("tasks", "add", links, "--name", "leaves", "--follow-links", "--root", fresh)
    assert done.code == 0 and "120 images in 3 classes" in done.err
    options = load_params(fresh).tasks.meta_train["leaves"].options
    assert options["follow_links"] and len(list(ImageFolder().load(options, 0))) == 120


@pytest.mark.parametrize(
    ("classes", "code", "words"),
    [
        ({"ash": 40}, 4, "only one class"),
        ({"ash": 60, "oak": 2}, 4, "oak"),
        ({"ash": 9, "oak": 9}, 4, "min_images_per_task"),
    ],
)
def test_what_the_gate_refuses_is_not_added(
    tans: Tans, fresh: Path, tmp_path: Path, classes: dict[str, int], code: int, words: str
) -> None:
    before = (fresh / "params.yaml").read_bytes()
    done = tans("tasks", "add", write_class_folders(tmp_path / "x", classes), "--name", "x", "--root", fresh)
    assert done.code == code and words in done.err
    assert (fresh / "params.yaml").read_bytes() == before


def test_a_name_that_cannot_be_is_refused_before_any_image_is_read(tans: Tans, fresh: Path, tmp_path: Path) -> None:
    done = tans("tasks", "add", tmp_path / "not-there", "--name", "My Leaves", "--root", fresh)
    assert done.code == 2 and "My Leaves" in done.err
    assert tans("tasks", "add", tmp_path / "not-there", "--name", "leaves", "--root", fresh).code == 4


def test_removing_gives_params_yaml_back_as_it_was(tans: Tans, fresh: Path, leaves: Path) -> None:
    before = (fresh / "params.yaml").read_bytes()
    tans("tasks", "add", leaves, "--name", "leaves", "--root", fresh)
    assert (fresh / "params.yaml").read_bytes() != before
    done = tans("tasks", "remove", "leaves", "--root", fresh)
    assert done.code == 0 and "tans build" in done.out
    assert (fresh / "params.yaml").read_bytes() == before
    assert tans("tasks", "remove", "leaves", "--root", fresh).code == 4


def test_a_task_that_was_built_and_removed_is_still_listed(tans: Tans, fresh: Path) -> None:
    write_task(make_task("faces", "scikit-image-faces", "meta-test", 0), fresh / "data/tasks/faces")
    done = tans("tasks", "remove", "faces", "--root", fresh)
    assert "Nothing reads data/tasks/faces any more" in done.out
    found = {task["name"]: task["here"] for task in json.loads(tans("tasks", "list", "--json", "--root", fresh).out)}
    assert found["faces"] == "built, not in params.yaml" and "optdigits" in found


def test_build_lays_a_profile_over_params_first(tans: Tans, fresh: Path) -> None:
    init_repository(fresh)
    (fresh / "dvc.yaml").write_text("stages:\n  only:\n    cmd: echo steps ${space.steps}\n")
    (fresh / "profiles").mkdir()
    (fresh / "profiles/quick.yaml").write_text("space: {steps: 7}\n")
    before = load_params(fresh).space.steps
    done = tans("build", "--jobs", "1", "--profile", "quick", "--root", fresh)
    assert done.code == 0 and "steps 7" in done.out
    assert f"space.steps: {before} -> 7" in done.err and "git checkout params.yaml" in done.err
    assert "already" in tans("build", "--jobs", "1", "--profile", "quick", "--root", fresh).err
    assert tans("build", "--profile", "quik", "--root", fresh).code == 2


def test_params_yaml_that_is_a_folder_is_an_error(tans: Tans, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").mkdir()
    done = tans("tasks", "list", "--root", tmp_path)
    assert done.code == 2
    assert "params.yaml" in done.err and done.out == ""
