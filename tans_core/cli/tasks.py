"""`tans tasks`: the tasks of the project, their sources, and how to add one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tans_core.cli.console import EXAMPLES, AsJson, Group, Root, print_json, show_fields, stderr, stdout, table
from tans_core.licences import USERS_OWN

if TYPE_CHECKING:
    from tans_core.params import Params
    from tans_core.tasks.task import TaskInfo

tasks = typer.Typer(help="The tasks of the project.", no_args_is_help=True, epilog=EXAMPLES["tasks"])

# Train, val and test each need an image of every class.
_SPLITS = 3


class Role(StrEnum):
    """What a task is for."""

    META_TRAIN = "meta-train"
    META_TEST = "meta-test"


@tasks.command("list", epilog=EXAMPLES["tasks list"])
def list_tasks(
    role: Annotated[Role | None, typer.Option(help="Only the tasks of this role.")] = None,
    sources: Annotated[bool, typer.Option("--sources", help="List the sources of tasks instead.")] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """List the tasks of params.yaml and those that were built, and what they still need."""
    from tans_core.project import find_root

    project = find_root(root)
    if sources:
        _list_sources(project, as_json)
        return
    entries = [entry for entry in _entries(project) if role is None or entry["role"] == role]
    if as_json:
        print_json(entries)
        return
    splits = "train/val/test"
    shown = table("task", "role", "source", "licence", "classes", splits, "here", right=("classes", splits))
    # For a terminal of 80 columns: only these columns are wrapped.
    shown.padding = (0, 1, 0, 0)
    for column in shown.columns:
        column.no_wrap = column.header not in ("source", "licence", "here")
    for entry in entries:
        counts = "/".join(str(entry["counts"].get(split, "-")) for split in splits.split("/"))
        classes = str(len(entry["class_names"]) or "-")
        texts = [entry[key] for key in ("name", "role", "source", "licence")]
        shown.add_row(*map(escape, [*texts, classes, counts, entry["here"]]))
    stdout().print(shown if entries else "no task is built yet, and params.yaml lists none: `tans build`", markup=False)


@tasks.command("show", epilog=EXAMPLES["tasks show"])
def show_task(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task's name.")],
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its contact sheet, a PNG; by default reports/tasks/TASK.png."),
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Show one task: its classes, counts, source and licence, and images of each class on a contact sheet."""
    from tans_core.errors import UnknownTaskError, did_you_mean
    from tans_core.project import find_root

    project = find_root(root)
    known = {entry["name"]: entry for entry in _entries(project)}
    if name not in known:
        raise UnknownTaskError(f"{name!r}: no such task{did_you_mean(name, known)}. `tans tasks list` shows them.")
    entry = known[name]
    if not as_json:
        # One line for each licence text.
        texts = entry.pop("licence_texts")
        entry |= {ref: text or "its terms are not known here" for ref, text in texts.items()}
    if entry["mean"] is not None:
        entry["sheet"] = str(_write_sheet(project, name, sheet or project / "reports/tasks" / f"{name}.png"))
    show_fields({key: value for key, value in entry.items() if value is not None}, as_json)


@tasks.command("add", epilog=EXAMPLES["tasks add"])
def add(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder of class folders, an archive, or a table.")],
    name: Annotated[str, typer.Option(help="The task's name: lower-case letters, digits, dashes.")],
    role: Annotated[
        Role, typer.Option(help="meta-train: the zoo gets networks trained on it; meta-test: held out for testing.")
    ] = Role.META_TRAIN,
    licence: Annotated[
        str,
        typer.Option(help="Of the images, an SPDX expression or your own words; weights made from them inherit it."),
    ] = USERS_OWN,
    drop_empty_classes: Annotated[
        bool,
        typer.Option("--drop-empty-classes", help="Leave out classes without a usable image, also in the build."),
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Follow links that lead outside PATH, also in the build.")
    ] = False,
    group: Group = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a task of this name.")] = False,
    root: Root = None,
) -> None:
    """Add your own images to params.yaml as a task, if they pass the gate."""
    from tans_core.dataset import path_of
    from tans_core.edits import add_task
    from tans_core.params import load_params
    from tans_core.project import find_root
    from tans_core.sources.image_folder import ImageFolder

    project = find_root(root)
    params = load_params(project)
    given = path_of(path).resolve()
    recorded = given.relative_to(project) if given.is_relative_to(project) else given
    chosen: dict[str, Any] = {"drop_empty_classes": drop_empty_classes, "follow_links": follow_links, "group": group}
    options: dict[str, Any] = {"path": str(recorded), **{option: value for option, value in chosen.items() if value}}
    options |= _licence_options(licence)
    # Check the name before the images are read.
    add_task(project, name, role, ImageFolder.name, options, replace, dry_run=True)
    options["digest"] = _scan_and_check(path, given, params, project, **chosen)
    add_task(project, name, role, ImageFolder.name, options, replace)
    then = "trains its networks, and runs the stages that need them" if role is Role.META_TRAIN else "tests on it"
    stdout().print(f"{name} is in params.yaml, as a task of {role}. Next: `tans build` {then}.", markup=False)


@tasks.command("remove", epilog=EXAMPLES["tasks remove"])
def remove(
    name: Annotated[str, typer.Argument(metavar="TASK", help="A task's name.")],
    root: Root = None,
) -> None:
    """Remove a task from params.yaml; its images stay where they are."""
    from tans_core.edits import remove_task
    from tans_core.project import find_root

    project = find_root(root)
    remove_task(project, name)
    left = [folder for folder in (f"data/tasks/{name}", f"data/zoo/{name}") if (project / folder).exists()]
    then = f" Nothing reads {' and '.join(left)} any more." if left else ""
    stdout().print(f"{name} is no longer in params.yaml. Next: `tans build` leaves it out.{then}", markup=False)


def _licence_options(licence: str) -> dict[str, Any]:
    """Return the options that record a licence; words that are no SPDX expression are recorded as a `LicenseRef-`."""
    from tans_core.licences import normalise, suggest

    stated = normalise(licence)
    if stated.expression == USERS_OWN:
        return {}
    if not stated.texts:
        return {"licence": stated.expression}
    stderr().print(
        f"licence: no SPDX expression{suggest(licence)}. "
        f"The weights get the licence {stated.expression}; params.yaml keeps your words.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return {"licence": stated.expression, "licence_texts": stated.texts}


def _scan_and_check(path: str, given: Path, params: Params, project: Path, **chosen: Any) -> str:
    """Scan the images, print a summary, and return their digest.

    Raises:
        TansError: the gate of a search, or that of the build, would refuse them.
    """
    from dataclasses import replace

    from tans_core.dataset import QueryLimits, open_dataset, query_gate
    from tans_core.errors import TooFewImagesError
    from tans_core.sources.build import check_coverage

    limits = QueryLimits.of(project)
    limits = replace(limits, min_images_per_class=max(_SPLITS, limits.min_images_per_class))
    with query_gate(given, project) as gate:
        task, scanned, _ = open_dataset(given, project, limits, gate, **chosen)
    assert scanned is not None
    stderr().print(scanned.summary(), markup=False, highlight=False, soft_wrap=True)
    check_coverage(task)
    count, minimum = len(task.labels), params.gates.min_images_per_task
    if count < minimum:
        raise TooFewImagesError(
            f"{path}: {count} usable images, and a task needs {minimum} (gates.min_images_per_task). Add images."
        )
    return scanned.report.digest


def _entries(project: Path) -> list[dict[str, Any]]:
    """Return each task of params.yaml or on disk, sorted by name, and whether it is built."""
    from tans_core.params import load_params
    from tans_core.project import task_infos

    built = {info.name: info for info in task_infos(project)}
    entries = {name: _built(info, "built, not in params.yaml", {}) for name, info in built.items()}
    if (project / "params.yaml").exists():
        listed = load_params(project).tasks
        for role, members in ((Role.META_TRAIN, listed.meta_train), (Role.META_TEST, listed.meta_test)):
            for name, task in members.items():
                entries[name] = _entry(name, role, task.source, task.options, built.get(name), project)
    return [entries[name] for name in sorted(entries)]


def _built(info: TaskInfo, here: str, own: Mapping[str, str]) -> dict[str, Any]:
    from tans_core.licences import texts_of

    return {**asdict(info), "licence_texts": texts_of(info.licence, {**own, **info.licence_texts}), "here": here}


def _entry(
    name: str, role: Role, source: str, options: Mapping[str, Any], built: TaskInfo | None, project: Path
) -> dict[str, Any]:
    from tans_core.licences import Licence, texts_of
    from tans_core.sources import SOURCES
    from tans_core.sources.base import stated_licence

    origin = SOURCES.get(source)
    stated = stated_licence(origin, options) if origin else Licence("-")
    if built is not None:
        return _built(built, "built", stated.texts)
    # Relative paths among the options start from the project's folder.
    with contextlib.chdir(project):
        missing = origin.missing(options) if origin else f"no source is called {source!r}"
    return {
        "name": name,
        "role": str(role),
        "source": source,
        "licence": stated.expression,
        "licence_texts": texts_of(stated.expression, stated.texts) if origin else {},
        "class_names": [],
        "counts": {},
        "stored_size_px": None,
        "mean": None,
        "std": None,
        "here": missing or "source is here",
    }


def _list_sources(project: Path, as_json: bool) -> None:
    from tans_core.sources import SOURCES

    with contextlib.chdir(project):
        rows: list[dict[str, Any]] = [
            {"name": name, "package": source.package, "licence": source.licence, "missing": source.missing({})}
            for name, source in sorted(SOURCES.items())
        ]
    if as_json:
        print_json(rows)
        return
    shown = table("source", "package", "licence", "here")
    for row in rows:
        shown.add_row(*map(escape, (row["name"], row["package"] or "-", row["licence"], row["missing"] or "yes")))
    stdout().print(shown, markup=False)


def _write_sheet(project: Path, name: str, target: Path) -> Path:
    """Write the contact sheet of a task that was built, or saved by a scan."""
    from tans_core.io import atomic_path
    from tans_core.project import find_task_folder
    from tans_core.tasks.task import read_task
    from tans_core.views.contact_sheet import contact_sheet

    task = read_task(find_task_folder(project, name) or project / "data/tasks" / name)
    with atomic_path(target) as temporary:
        contact_sheet(task.images, task.labels, task.info.class_names).save(temporary, format="PNG")
    return target
