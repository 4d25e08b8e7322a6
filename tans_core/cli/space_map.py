"""`tans space show`: draw a map of tasks and networks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tans_core.cli.console import AsJson, Root, examples, print_json, stderr, stdout, table

if TYPE_CHECKING:
    from tans_core.evaluation.space_map import SpaceMap

EXAMPLES = examples(
    ("tans space show", "tasks and networks as built: plots/space/map.png and map.html"),
    ("tans space show --query photos/ --production", "your images among the tasks and networks in production"),
    ("tans space show --method pca --json", "the coordinates of another projection, as JSON"),
)


class Projection(StrEnum):
    """How the space is projected to a plane."""

    TSNE = "tsne"
    PCA = "pca"


def show(
    query: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH|TASK", help="A data set of yours to place on the map; repeat it for several."),
    ] = None,
    production: Annotated[
        bool,
        typer.Option("--production", help="Show the release in production with its newcomers, not what is built."),
    ] = False,
    method: Annotated[
        Projection, typer.Option(help="tsne keeps neighbours together; pca shows the directions that vary most.")
    ] = Projection.TSNE,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for map.png and map.html; plots/space by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the map.")] = 0,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Draw a map of the space: tasks, networks, and your own data sets among them."""
    from tans_core.io import atomic_path, write_text
    from tans_core.project import find_root

    project = find_root(root)
    folder = out if out is not None else project / "plots/space"
    with stderr().status("drawing the space"):
        mapped = _map(project, query or [], production, method, seed)
        from tans_core.evaluation.plots import to_png
        from tans_core.evaluation.space_page import render_map_page
        from tans_core.evaluation.space_picture import draw_map, headline, trust

        with atomic_path(folder / "map.png") as temporary:
            temporary.write_bytes(to_png(draw_map(mapped)))
        write_text(render_map_page(mapped), folder / "map.html")
    files = [str(folder / name) for name in ("map.png", "map.html")]
    if as_json:
        print_json({**mapped.to_dict(), "files": files})
        return
    console = stdout()
    console.print(f"{headline(mapped)}; {trust(mapped)}.", markup=False, highlight=False, soft_wrap=True)
    for name, nearest in mapped.nearest.items():
        console.print(f"\n{name}: the nearest tasks", markup=False, highlight=False, soft_wrap=True)
        shown = table("task", "similarity", right=("similarity",))
        for task, similarity in nearest:
            shown.add_row(task, f"{similarity:.3f}")
        console.print(shown, markup=False)
    console.print("\n".join(files), markup=False, highlight=False, soft_wrap=True)


def _map(project: Path, queries: list[str], production: bool, method: Projection, seed: int) -> SpaceMap:
    import numpy as np

    from tans_core.evaluation.space_map import Kind, Method, Place, lay_out
    from tans_core.evaluation.space_points import read_places
    from tans_core.index.releases import open_pipeline, open_production

    release = open_production(project / "serving") if production else open_pipeline(project)
    places, vectors = read_places(release, project / "data/store")
    if queries:
        from tans_core.dataset import QueryLimits, open_dataset, query_gate
        from tans_core.project import name_of
        from tans_core.retrieval.retriever import Retriever

        retriever = Retriever.open(release)
        for dataset in queries:
            with query_gate(dataset, project) as gate:
                task = open_dataset(dataset, project, QueryLimits.of(project, release.params), gate).task
            name = task.info.name
            if any(place.kind is Kind.QUERY and place.name == name for place in places):
                # Two folders may have the same last name.
                name = name_of(dataset)
            places = (*places, Place(Kind.QUERY, name, name, ""))
            vectors = np.concatenate([vectors, retriever.embed(task)[None]])
    return lay_out(places, vectors, Method(method.value), seed)
