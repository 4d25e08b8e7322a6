"""The address of the map: a data set among the tasks and the networks of the release."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from tans_core.http import examples
from tans_core.http.context import Here
from tans_core.http.uploads import read_query
from tans_core.retrieval.query import Query
from tans_core.service import Service

router = APIRouter(tags=["images"])


class Place(BaseModel):
    kind: Literal["query", "task", "network"]
    name: str = Field(description="Of the task, or the id of the network.")
    x: float = Field(description="-1 to 1.")
    y: float = Field(description="-1 to 1; upwards.")
    similarity: float | None = Field(description="Of a task: its cosine to the data set; null if it is far.")


class Map(BaseModel):
    release: str = Field(description="The release that answered, alone.")
    trustworthiness: float | None = Field(description="How far neighbours here are neighbours in the space, 0 to 1.")
    places: list[Place] = Field(description="The data set, the best 500 networks, and the tasks if they are here.")


@router.post("/v1/map", openapi_extra=examples.QUERY)
async def mapped(here: Here, request: Request) -> Map:
    """Place a query of `tans embed` among tasks and networks, in two dimensions (PCA)."""
    with here.slots.admitted():
        query = await read_query(request, here.options.patience_s)
        return await here.slots.work(lambda: _map(here.opened(request), query))


def _map(service: Service, query: Query) -> Map:
    from tans_core.evaluation.space_map import QUERY, Kind  # scikit-learn takes a second to import

    mapped = service.explainer.map_of(query)
    nearest = dict(mapped.nearest[QUERY])
    kinds = {Kind.QUERY: "query", Kind.TASK: "task", Kind.MODEL: "network"}
    rows = zip(mapped.places, mapped.positions.round(4).astype(float).tolist(), strict=True)
    places = [
        Place.model_validate(
            {"kind": kinds[place.kind], "name": place.name, "x": x, "y": y, "similarity": nearest.get(place.name)}
        )
        for place, (x, y) in rows
    ]
    trustworthiness = mapped.figures.get("trustworthiness")
    return Map(release=service.release.id, trustworthiness=trustworthiness, places=places)
