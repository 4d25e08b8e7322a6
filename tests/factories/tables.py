"""Tables of images: a CSV beside its files, and Parquet files with images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tans_core.tasks.chunks import Chunks
from tans_core.tasks.inputs.table import Table
from tests.factories.images import encoded, noise

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(seed: int) -> bytes:
    return encoded(noise(12, 12, seed=seed))


def write_csv(folder: Path, text: str | bytes, name: str = "labels.csv", images: int = 6) -> Path:
    """A table, and beside it i/0.png to i/5.png."""
    (folder / "i").mkdir(exist_ok=True)
    for number in range(images):
        (folder / f"i/{number}.png").write_bytes(picture(number))
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_parquet(path: Path, columns: dict[str, Any], features: Any = None, **options: Any) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def cells(numbers: range, prefix: str = "") -> pa.Array:
    return pa.array([{"bytes": picture(n), "path": f"{prefix}{n}.png"} for n in numbers], type=CELL)


def facts(table: Table) -> list[tuple[str, str, str | None]]:
    return [(entry.name, entry.label, entry.split) for entry in table.entries]


def decoded(table: Table) -> list[str | None]:
    chunks = Chunks(table.entries, 8, None)
    chunks.fill(table, workers=0)
    reasons: list[str | None] = chunks.facts()["reason"].to_pylist()
    return reasons
