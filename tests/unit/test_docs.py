"""The docs are complete: they contain every setting, command, error and output."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from readme_table import with_table

from tans_core import errors
from tans_core.cli.app import app
from tans_core.licences import TEXTS
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family
from tans_core.params import Params, load_params
from tans_core.recipe import Recipe
from tans_core.sources import SOURCES
from tans_core.sources.pictures import PICTURE_LICENCES
from tans_core.sources.torchvision import KNOWN
from tans_core.zoo.card import Ancestor, Licences, ModelCard

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def params_keys(section: type[BaseModel] = Params, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from params_keys(kind, f"{prefix}{name}.")
        elif f"{prefix}{name}" == "networks":
            yield "networks.<family>"
            yield from family_keys()
        else:
            yield f"{prefix}{name}"


def family_keys() -> Iterator[str]:
    """The settings of each family of params.yaml: the fields of its space, where that is a pydantic model."""
    for family, settings in load_params(PROJECT).networks.items():
        space = get_family(family).space(settings)
        for name in getattr(type(space), "model_fields", settings):
            yield f"networks.{family}.{name}"


def card_fields() -> set[str]:
    """Every field of a model card, those of its parts by the name that they stand under."""
    parts = {"": ModelCard, "preprocess.": Preprocess, "recipe.": Recipe, "licences.": Licences}
    parts["lineage[]."] = Ancestor
    return {f"{prefix}{name}" for prefix, part in parts.items() for name in part.model_fields}


def commands() -> dict[str, Any]:
    """Every command of `tans` by its whole name."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        children = getattr(command, "commands", {})
        if not children:
            found[name] = command
        for child, under in children.items():
            walk(under, f"{name} {child}")

    walk(typer.main.get_command(app), "tans")
    return found


def error_classes(base: type[errors.TansError] = errors.TansError) -> Iterator[type[errors.TansError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from error_classes(kind)


def section_of(text: str, heading: str) -> str:
    """The lines between a heading and the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}$(.*?)(?=^#{{1,3}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, f"no heading {heading!r}"
    return match[2]


def metric_keys(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from metric_keys(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        for inner in value:
            yield from metric_keys(inner, f"{prefix}[]")
    else:
        yield prefix


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"\||&&|;", line)]
    return [part for part in parts if part]


@pytest.mark.parametrize("key", sorted(params_keys()))
def test_params_key_is_documented(key: str) -> None:
    assert f"| `{key}` |" in read("docs/params.md")


def test_no_params_key_is_documented_that_does_not_exist() -> None:
    rows = r"^\| `((?:[a-z_.-]|<family>)+)` \|"
    documented = set(re.findall(rows, read("docs/params.md").split("## Everywhere")[1], re.MULTILINE))
    assert documented - set(params_keys()) == set()


def test_every_field_of_a_card_is_documented_and_no_other() -> None:
    text = section_of(read("docs/cards.md"), "Fields")
    assert set(re.findall(r"^\| `([a-z_.[\]]+)` \|", text, re.MULTILINE)) == card_fields()


def test_example_card_is_a_card() -> None:
    raw = json.loads(read("docs/cards.md").partition("```json")[2].partition("```")[0])
    card = ModelCard.from_dict(raw, strict=True)
    assert card.to_dict() == raw
    cost = get_family(card.family).cost(card.architecture, card.preprocess.image_size_px, len(card.class_names))
    assert (cost.params_m, cost.macs_m) == (card.params_m, card.macs_m)
    assert Licences.of_lineage(card.lineage) == card.licences


@pytest.mark.parametrize("name", sorted(commands()))
def test_command_and_each_of_its_options_is_documented(name: str) -> None:
    section = section_of(read("docs/cli.md"), f"`{name}`").replace("\\|", "|").lower()
    for parameter in commands()[name].params:
        shown = parameter.opts[0] if parameter.opts[0].startswith("-") else (parameter.metavar or parameter.name)
        if parameter.name != "help":
            assert f"`{shown.lower()}" in section, f"{name}: {shown}"


@pytest.mark.parametrize("name", sorted(commands()))
def test_command_has_help_and_an_example(name: str) -> None:
    command = commands()[name]
    assert command.help
    assert "Examples" in (command.epilog or "")


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_error_and_its_exit_code_are_documented(kind: type[errors.TansError]) -> None:
    assert f"| `{kind.__name__}` | {kind.exit_code} |" in read("docs/errors.md")


@pytest.mark.parametrize("kind", list(error_classes()), ids=lambda kind: kind.__name__)
def test_error_is_drawn_in_the_hierarchy(kind: type[errors.TansError]) -> None:
    assert errors.__doc__
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)


def metric_files() -> list[str]:
    return sorted(path.relative_to(PROJECT).as_posix() for path in (PROJECT / "metrics").rglob("*.json"))


@pytest.mark.parametrize("file", metric_files())
def test_every_metric_of_the_run_is_documented(file: str) -> None:
    text = read("docs/metrics.md")
    headings = re.findall(r"^## `(metrics/[^`]+)`$", text, re.MULTILINE)
    heading = next((one for one in headings if re.fullmatch(_pattern(one), file)), None)
    assert heading, f"{file}: no section in docs/metrics.md"
    patterns = [
        _pattern(key) for key in re.findall(r"^\| `([^`]+)` \|", section_of(text, f"`{heading}`"), re.MULTILINE)
    ]
    keys = set(metric_keys(json.loads(read(file))))
    assert keys
    unknown = sorted(key for key in keys if not any(re.fullmatch(pattern, key) for pattern in patterns))
    assert unknown == []


def _pattern(documented: str) -> str:
    """`accuracy.<strategy>.mean` stands for any strategy; a name may hold a number with a point."""
    return re.sub(r"<[a-z]+>", lambda _: r"(?:[^.]|\.(?=\d))+", re.escape(documented))


PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_shell_commands_of_the_docs_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    known = commands()
    for line in shell_lines(read(page)):
        words = shlex.split(line)
        if words[0] == "make":
            assert words[1] in targets, line
        if words[0].rpartition("/")[2] == "tans":
            name = next((one for one in known if ["tans", *words[1:]][: len(one.split())] == one.split()), None)
            assert name, line
            offered = {option for parameter in known[name].params for option in parameter.opts} | {"--help"}
            used = {word.split("=")[0] for word in words if word.startswith("-")}
            assert used <= offered, line


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_docs_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(page)):
        if "://" not in target:
            assert ((PROJECT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", [*PAGES, "data/README.md"])
def test_lines_of_the_docs_are_at_most_120_columns(page: str) -> None:
    # A row of a table cannot be broken.
    long = [line for line in read(page).splitlines() if len(line) > 120 and not line.startswith("|")]
    assert long == []


def evaluations() -> list[dict[str, Any]]:
    """metrics/evaluate.json as it is here and as it was committed: whoever runs this may have evaluated anew."""
    texts = [read("metrics/evaluate.json")]
    if shutil.which("git"):
        asked = ["git", "show", "HEAD:metrics/evaluate.json"]
        committed = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, check=False)
        texts += [committed.stdout] if committed.returncode == 0 else []
    return [json.loads(text) for text in texts]


def test_table_of_the_readme_is_that_of_the_evaluation() -> None:
    readme = read("README.md")
    assert readme in [with_table(readme, metrics) for metrics in evaluations()], (
        "run benchmarks/readme_table.py --write"
    )


def test_numbers_in_the_table_of_the_readme_are_those_of_the_evaluation() -> None:
    block = read("README.md").partition("<!-- evaluate -->")[2].partition("<!-- /evaluate -->")[0]
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if "|" in line]
    shown = {row[0].split("*")[1]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}
    measured = [
        {
            strategy: {
                "mean": metrics["accuracy"][strategy]["mean"],
                **{task: metrics["tasks"][task][strategy]["mean"] for task in metrics["tasks"]},
                "M parameters": metrics["cost"][strategy]["params_m"],
                "M MACs": metrics["cost"][strategy]["macs_m"],
            }
            for strategy in metrics["accuracy"]
        }
        for metrics in evaluations()
    ]
    assert any(shown == {one: pytest.approx(values, abs=0.00501) for one, values in run.items()} for run in measured)


def test_readme_names_the_two_commands_and_shows_a_picture_of_the_run() -> None:
    lines = shell_lines(read("README.md"))
    assert "make run" in lines
    assert "make test" in lines
    assert "](plots/evaluate/summary.png)" in read("README.md")


def test_tree_of_the_readme_names_every_part_of_the_package() -> None:
    tree = read("README.md").partition("```text")[2].partition("```")[0]
    parts = [path.name for path in (PROJECT / "tans_core").iterdir() if (path / "__init__.py").is_file()]
    assert parts
    for part in parts:
        assert re.search(rf"\b{part}/", tree), part
    modules = {path.name for path in (PROJECT / "tans_core").glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\b[a-z_]+\.py\b", tree)) == modules


def test_readme_names_every_source_and_its_licence() -> None:
    text = read("README.md")
    for source in SOURCES.values():
        if source.name != "image-folder":
            assert re.search(rf"^\| `{source.name}` \| .* \| {re.escape(source.licence)} \|$", text, re.MULTILINE), (
                source.name
            )


def test_terms_of_every_licence_without_an_spdx_id_are_documented() -> None:
    assert dict(re.findall(r"^\| `(LicenseRef-[^`]+)` \| (.+) \|$", read("docs/licences.md"), re.MULTILINE)) == TEXTS


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_licence_of_every_torchvision_data_set_is_documented(name: str) -> None:
    rows = re.findall(r"^\| ([A-Za-z0-9, ]+) \| ([^|]+) \| ", read("docs/params.md"), re.MULTILINE)
    assert [licence for names, licence in rows if name in names.split(", ")] == [KNOWN[name].licence]


def test_licence_of_every_sample_picture_is_documented() -> None:
    text = read("docs/params.md")
    for label, licence in PICTURE_LICENCES.items():
        assert re.search(rf"^\| [^|]*\b{label}\b[^|]* \| {licence} \|$", text, re.MULTILINE), label
