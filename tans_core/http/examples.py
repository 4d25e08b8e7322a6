"""Parts of the OpenAPI description: bodies that are files, and examples."""

from __future__ import annotations

from typing import Any

from tans_core.http.problems import MEDIA_TYPE, Problem
from tans_core.http.uploads import ANY, ARCHIVES, JSON, TABLES
from tans_core.retrieval.query import Query

_RELEASE = "20261129T101530-1a2b3c4d5e6f"
_FILE = {"schema": {"type": "string", "format": "binary"}}
_QUERY = {
    "format": "tans-query-1",
    "release": _RELEASE,
    "encoder": "9f" * 32,
    "images": 240,
    "statistics": [0.1, 0.2],
    "vector": [0.6, 0.8],
}

_FILES: dict[str, Any] = {ARCHIVES[0]: _FILE, TABLES[0]: _FILE, ANY: _FILE}


def _body(content: dict[str, Any], what: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": what, "content": content}}


IMAGES = _body(_FILES, "A zip of class folders, or a Parquet file with images, as it is: no form.")
IMAGES_OR_QUERY = _body(
    {**_FILES, JSON: {"schema": Query.model_json_schema(), "example": _QUERY}},
    "A zip of class folders, a Parquet file with images, or what `tans embed` wrote, as it is: no form.",
)
PROBLEM: dict[str, Any] = {
    "description": "A problem document (RFC 9457), for every error",
    "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
}
FOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The networks to start from, best first",
        "content": {
            JSON: {
                "example": {
                    "release": _RELEASE,
                    "candidates": [
                        {
                            "rank": 1,
                            "model": "elastic.optdigits.007",
                            "home_task": "optdigits",
                            "source": "scikit-learn",
                            "licence": "CC0-1.0",
                            "similarity": 0.83,
                            "capacity": 0.41,
                            "start": 0.62,
                            "fit": 0.20,
                            "trust": 0.97,
                            "predicted_score": 1.23,
                            "plus_minus": 0.9,
                            "score": 1.23,
                            "home_accuracy": 0.95,
                            "params_m": 0.21,
                            "macs_m": 4.6,
                            "probe": None,
                        }
                    ],
                    "task": None,
                    "scan": None,
                    "known": {},
                }
            }
        },
    }
}
