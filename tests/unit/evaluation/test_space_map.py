from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tans_core.errors import StoreError
from tans_core.evaluation.plots import to_png
from tans_core.evaluation.space_map import Kind, Method, Place, SpaceMap, lay_out
from tans_core.evaluation.space_page import render_map_page
from tans_core.evaluation.space_picture import draw_map, headline, source_marks
from tans_core.evaluation.style import DARK, LIGHT, Theme

HOSTILE = "</script><script>alert('<b>$x^2$</b>')</script>"
Floats = npt.NDArray[np.float32]


def clusters(tasks: int = 12, models: int = 8, queries: int = 1) -> tuple[list[Place], Floats]:
    """Tasks on a sphere with their networks around them; the last network of the first task is a newcomer."""
    rng = np.random.default_rng(3)
    places, vectors = [], []
    for task in range(tasks):
        centre, name, source = rng.normal(size=16), f"task-{task:02d}", f"source-{task % 5}"
        places.append(Place(Kind.TASK, name, name, source))
        vectors.append(centre + 0.2 * rng.normal(size=16))
        for number in range(models):
            kind = Kind.NEWCOMER if (task, number) == (0, models - 1) else Kind.MODEL
            figures = (float(rng.uniform(0.5, 1)), float(rng.uniform(0.1, 1)))
            places.append(Place(kind, f"m.{name}.{number}", name, source, *figures))
            vectors.append(centre + 0.4 * rng.normal(size=16))
    for number in range(queries):
        places.append(Place(Kind.QUERY, f"query-{number}", f"query-{number}", ""))
        vectors.append(vectors[0] + 0.1 * rng.normal(size=16))
    found = np.array(vectors, dtype=np.float32)
    return places, found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def mapped() -> SpaceMap:
    return lay_out(*clusters())


def spread_inside(mapped: SpaceMap) -> float:
    """How far networks lie from their task, against how far tasks lie from each other."""
    task = {mapped.places[index].name: mapped.positions[index] for index in mapped.of(Kind.TASK)}
    inside = [
        np.linalg.norm(mapped.positions[index] - task[mapped.places[index].home_task])
        for index in mapped.of(Kind.MODEL, Kind.NEWCOMER)
    ]
    centres = np.array(list(task.values()))
    between = np.linalg.norm(centres[:, None] - centres[None], axis=2)[~np.eye(len(centres), dtype=bool)]
    return float(np.mean(inside) / np.mean(between))


@pytest.mark.parametrize("method", list(Method))
def test_same_seed_gives_the_same_map_and_networks_stand_by_their_tasks(method: Method) -> None:
    places, vectors = clusters()
    first, second = (lay_out(places, vectors, method, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert spread_inside(first) < 0.5
    assert np.abs(first.positions).max() == pytest.approx(1)
    assert first.figures["trustworthiness"] > 0.6


def test_share_of_own_networks_and_nearest_tasks_are_those_of_a_slow_reference(mapped: SpaceMap) -> None:
    places, vectors = clusters()
    shares = []
    for place, vector in zip(places, vectors, strict=True):
        if place.kind is Kind.TASK:
            cosines = {n: float(vector @ v) for n, v in enumerate(vectors) if places[n].network}
            nearest = sorted(cosines, key=lambda n: -cosines[n])[:5]
            shares.append(sum(places[n].home_task == place.name for n in nearest) / 5)
    assert mapped.figures["own_nearest"] == pytest.approx(sum(shares) / len(shares))
    ((task, cosine), *others) = mapped.nearest["query-0"]
    assert task == "task-00"
    assert cosine == pytest.approx(float(vectors[0] @ vectors[-1]))
    assert [value for _, value in others] == sorted((value for _, value in others), reverse=True)
    assert len(others) == 4


def test_asking_moves_nothing_on_the_pca_map() -> None:
    places, vectors = clusters(queries=1)
    without = lay_out(places[:-1], vectors[:-1], Method.PCA).positions
    with_query = lay_out(places, vectors, Method.PCA).positions[:-1]
    # The frame may shift and shrink around a query at its edge, the shape stays.
    shapes = [points - points.mean(axis=0) for points in (without, with_query)]
    np.testing.assert_allclose(*(shape / np.linalg.norm(shape) for shape in shapes), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("method", list(Method))
def test_few_places_make_a_map_too(count: int, method: Method) -> None:
    places, vectors = clusters(tasks=1, queries=0)
    mapped = lay_out(places[:count], vectors[:count], method)
    assert mapped.positions.shape == (count, 2)
    assert np.isfinite(mapped.positions).all()
    assert to_png(draw_map(mapped))
    assert "task-00" in render_map_page(mapped)


def test_equal_vectors_make_a_map_too() -> None:
    places, vectors = clusters(queries=0)
    assert np.isfinite(lay_out(places, np.repeat(vectors[:1], len(places), axis=0)).positions).all()


def test_nothing_to_show_and_damaged_vectors_are_refused() -> None:
    with pytest.raises(StoreError, match="neither a task nor a network"):
        lay_out([], np.zeros((0, 4), dtype=np.float32))
    places, vectors = clusters()
    vectors[3, 0] = np.nan
    with pytest.raises(StoreError, match=re.escape(f"1 vectors are not finite, such as those of ['{places[3].name}']")):
        lay_out(places, vectors)


def test_marks_of_28_sources_differ_and_neighbours_differ_in_shape_and_colour() -> None:
    marks = list(source_marks([f"s{number}" for number in range(29)]).values())
    assert len(set(marks[:28])) == 28
    assert marks[28] == marks[0]
    for one, other in pairwise(marks):
        assert one.shape != other.shape
        assert one.light != other.light
        assert one.dark != other.dark


def boxes_of_names(figure: Figure) -> list[tuple[str, npt.NDArray[np.float64]]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    return [(text.get_text(), text.get_window_extent(renderer).extents) for text in figure.axes[0].texts]


def test_every_task_and_query_is_named_and_no_name_covers_another() -> None:
    places, vectors = clusters(tasks=45, models=4, queries=2)
    boxes = boxes_of_names(draw_map(lay_out(places, vectors)))
    named = {place.name for place in places if place.kind in (Kind.TASK, Kind.QUERY)}
    assert {name for name, _ in boxes} == named
    for number, (name, box) in enumerate(boxes):
        for other, against in boxes[:number]:
            apart = (box[:2] >= against[2:]).any() or (against[:2] >= box[2:]).any()
            assert apart, f"{name} covers {other}"


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_picture_is_on_its_paper_and_the_same_map_gives_the_same_bytes(mapped: SpaceMap, theme: Theme) -> None:
    png = to_png(draw_map(mapped, theme))
    assert png == to_png(draw_map(mapped, theme))
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"))[::3, ::3]
    assert "#" + bytes(pixels[0, 0]).hex() == theme.paper
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100


def test_headline_counts_what_is_shown(mapped: SpaceMap) -> None:
    assert headline(mapped) == "12 tasks and 96 networks, 1 of them a newcomer, of 5 sources"


def test_page_holds_all_data_and_fetches_nothing(mapped: SpaceMap) -> None:
    page = render_map_page(mapped)
    assert not re.search(r"https?:|src=|@import|url\(", page)
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    places = json.loads(match[1])["places"]
    assert places["name"] == [place.name for place in mapped.places]
    assert places["accuracy"][1] == mapped.places[1].val_accuracy
    assert places["params"][0] is None
    np.testing.assert_allclose(np.stack([places["x"], places["y"]], axis=1), mapped.positions, atol=1e-4)
    assert page.count("<tr>") == 2 + 12 + 5  # headers, tasks, those nearest to the query


def test_names_from_outside_stay_text(mapped: SpaceMap) -> None:
    hostile = [
        replace(place, name=f"{n}{HOSTILE}", home_task=HOSTILE, source=HOSTILE) for n, place in enumerate(mapped.places)
    ]
    strange = lay_out(hostile, clusters()[1])
    page = render_map_page(strange)
    assert "<script>alert" not in page
    assert "<b>$x" not in page
    assert page.count("</script>") == 2
    assert to_png(draw_map(strange))


def test_coordinates_are_plain_values(mapped: SpaceMap) -> None:
    value = json.loads(json.dumps(mapped.to_dict(), allow_nan=False))
    assert value["method"] == "tsne"
    assert len(value["places"]) == len(mapped.places)
    assert set(value["places"][1]) == {"kind", "name", "home_task", "source", "val_accuracy", "params_m", "x", "y"}
    assert value["nearest"]["query-0"][0]["task"] == "task-00"
