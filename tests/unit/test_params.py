import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tans_core.errors import ParamsError
from tans_core.params import Params, load_params

PROJECT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the project's own params.yaml into a folder, with changes given as `section.key=value`."""
    original: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))

    def change(**changes: Any) -> Path:
        values = copy.deepcopy(original)
        for dotted, value in changes.items():
            *parents, key = dotted.split("__")
            section = values
            for parent in parents:
                section = section[parent]
            if value is None:
                del section[key]
            else:
                section[key] = value
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        return tmp_path

    return change


def problems_of(root: Path) -> str:
    with pytest.raises(ParamsError) as caught:
        load_params(root)
    return str(caught.value)


def test_the_projects_own_params_are_valid() -> None:
    params = load_params(PROJECT)
    assert len(params.tasks.meta_train) >= 20
    assert len(params.tasks.meta_test) >= 5


def test_meta_test_sources_are_unseen_by_meta_training() -> None:
    tasks = load_params(PROJECT).tasks
    seen = {task.source for task in tasks.meta_train.values()}
    assert len(seen) >= 3
    assert not seen & {task.source for task in tasks.meta_test.values()}


def test_every_problem_is_listed_at_once(write: Write) -> None:
    message = problems_of(write(finetune__lr=-0.1, space__dmi=4, zoo__subnets=None))
    assert "3 problems" in message
    assert "finetune.lr: got -0.1" in message
    assert "space.dmi: unknown key (did you mean 'dim'?)" in message
    assert "zoo.subnets: missing" in message


def test_one_problem_is_not_called_problems(write: Write) -> None:
    assert "has 1 problem:" in problems_of(write(seed="x"))


def test_settings_of_a_family_that_is_not_built_are_refused(write: Write) -> None:
    message = problems_of(write(base__families={"elastic-mbcnv": {"lr": 0.1}}, zoo__families={"other": {}}))
    assert "base.families: elastic-mbcnv: not in networks (did you mean 'elastic-mbconv'?)" in message
    assert "zoo.families: other: not in networks" in message
    assert load_params(write(finetune__families={"of-a-newcomer": {"lr": 0.1}}))


def test_wrong_settings_of_a_family_are_named_by_their_key(write: Write) -> None:
    message = problems_of(write(finetune__families={"elastic-mbconv": {"lr": -0.1}}))
    assert "finetune" in message
    assert "families.elastic-mbconv: lr: got -0.1" in message


def test_task_that_is_both_seen_and_unseen_is_refused(write: Write) -> None:
    twice = {"source": "folder", "options": {}}
    message = problems_of(write(tasks__meta_train__twice=twice, tasks__meta_test__twice=twice))
    assert "tasks: twice: both in meta_train and in meta_test" in message


def test_base_task_that_is_no_task_is_named_with_the_nearest_one(write: Write) -> None:
    root = write()
    known = next(iter(load_params(root).tasks.meta_train))
    assert f"(did you mean {known!r}?)" in problems_of(write(base__tasks=[known + "x"]))


@pytest.mark.parametrize("name", ["Upper", "with space", "../up", "", "-dash", "a" * 64])
def test_task_name_that_would_be_a_bad_folder_or_stage_is_refused(write: Write, name: str) -> None:
    assert "tasks.meta_test" in problems_of(write(**{f"tasks__meta_test__{name}": {"source": "x"}}))


def test_strides_have_to_be_as_many_as_widths(write: Write) -> None:
    assert "networks.strides" in problems_of(write(networks__strides=[1]))


def test_misspelt_key_of_a_task_is_answered_with_the_right_one(write: Write) -> None:
    assert "did you mean 'source'?" in problems_of(write(tasks__meta_test__x={"source": "a", "sourcee": "b"}))


def test_missing_file_says_how_to_name_the_folder(tmp_path: Path) -> None:
    assert "--root" in problems_of(tmp_path)


def test_what_is_no_yaml_says_where(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: [1,\nb: 2")
    assert "line 2" in problems_of(tmp_path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "seed"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    assert "params.yaml" in problems_of(tmp_path)


def test_params_cannot_be_changed_after_they_were_checked(write: Write) -> None:
    params = load_params(write())
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3  # type: ignore[misc]
    assert isinstance(params, Params)
