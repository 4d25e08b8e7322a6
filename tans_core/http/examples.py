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
QUERY = _body(
    {JSON: {"schema": Query.model_json_schema(), "example": _QUERY}}, "What `tans embed` wrote, as it is: no form."
)
PROBLEM: dict[str, Any] = {
    "description": "A problem document (RFC 9457), for every error",
    "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
}
_JPEG = {"image/*": _FILE, ARCHIVES[0]: _FILE, TABLES[0]: _FILE}
PICTURES = _body(_JPEG, "An image, a zip of images of any layout, or a Parquet file with images, as it is: no form.")
_RUN = "2026-11-30T10-15-02-finetune-1a2b3c"


def _answer(description: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"example": example}}}


JOB = _answer(
    "The fine-tuning as it is now",
    {
        "id": "2026-11-30T10-14-48-9c0d1e",
        "state": "COMPLETED",
        "created": "2026-11-30T10:14:48+00:00",
        "waiting_for": None,
        "model": "elastic.optdigits.001",
        "epoch": 1,
        "epochs": 1,
        "curve": [{"step": 12, "epoch": 1.0, "train_loss": 0.91, "val_accuracy": 0.83, "seconds": 2.4}],
        "run": _RUN,
        "accuracy": 0.81,
        "problem": None,
    },
)
GUESSED = _answer(
    "The classes, with calibrated probabilities",
    {
        "run": _RUN,
        "class_names": ["ash", "elm"],
        "images": 1,
        "unreadable": 0,
        "accuracy": None,
        "predictions": [
            {
                "image": "new/1.jpg",
                "label": "elm",
                "probability": 0.93,
                "probabilities": {"ash": 0.07, "elm": 0.93},
                "error": None,
                "truth": None,
            }
        ],
        "skipped": {},
    },
)
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
                            "model": "elastic.optdigits.001",
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
