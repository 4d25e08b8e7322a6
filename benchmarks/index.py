"""`make bench-index`: the search of a warm reader against LanceDB and against torch without tricks, in one run.

Models are synthetic, in clusters as in the default zoo. Each query is searched among all of them, and under limits that
half, one in a hundred and one in ten thousand satisfy. `scores` searches as a retrieval does, by value and cosine;
`cosines` by the cosine alone, where no row can be skipped. Writes metrics/bench-index.json.

    python -m benchmarks.index [--rows 14000 100000 1000000] [--queries 100] [--out FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lancedb.index import IvfFlat

from tans_core.embeddings.store import open_table, write_table
from tans_core.index.search import Index
from tans_core.io import write_json
from tans_core.retrieval.constraints import Constraints
from tans_core.retrieval.limits import within
from tans_core.runtime import cores
from tests.factories.embeddings import clustered_index

LIMIT = 10
READERS = 8
SHARES = {"all": 1.0, "half": 0.5, "percent": 0.01, "ten_thousandth": 0.0001}
WEIGHTS = {"scores": 0.3, "cosines": 1000.0}
"""Of the cosine in a score: as in the default zoo, and so large that values do not matter."""
Queries = list[npt.NDArray[np.float32]]


def milliseconds(work: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Return median and 95th percentile of some calls, and the median of what this thread computed meanwhile."""
    work()
    times, computing = [], []
    for _ in range(rounds):
        start, begin = time.perf_counter(), time.thread_time()
        work()
        times.append(1000 * (time.perf_counter() - start))
        computing.append(1000 * (time.thread_time() - begin))
    p50, p95, cpu = np.median(times), np.percentile(times, 95), np.median(computing)
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3), "cpu_ms": round(float(cpu), 3)}


def seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, round(time.perf_counter() - start, 2)


def draw(index: Index, count: int) -> Queries:
    """Return queries near models, as those of tasks are."""
    rng = np.random.default_rng(1)
    width = index.vectors.shape[1]
    places = index.vectors.numpy()[rng.integers(len(index), size=count)]
    places = places + rng.normal(size=places.shape) * 0.7 / width**0.5
    return list((places / np.linalg.norm(places, axis=1, keepdims=True)).astype(np.float32))


def limits_of(share: float) -> Constraints:
    # Parameters are uniform in 0..1.
    return Constraints() if share == 1 else Constraints(max_params_m=share)


def plain(index: Index, query: npt.NDArray[np.float32], weight: float, share: float) -> npt.NDArray[np.int64]:
    """Return the first rows, computed by torch without skipping any."""
    scores = torch.from_numpy(index.values) + weight * torch.mv(index.vectors, torch.from_numpy(query))
    if share < 1:
        scores[torch.from_numpy(index.numbers("params_m") > share)] = -torch.inf
    best = torch.topk(scores, LIMIT)
    return best.indices[best.values > -torch.inf].numpy()


def lance(table: Any, query: npt.NDArray[np.float32], share: float, indexed: bool) -> list[str]:
    """Return the ids of the highest cosines from LanceDB."""
    search = table.search(query).distance_type("cosine").limit(LIMIT).select(["id", "_distance"])
    search = search if indexed else search.bypass_vector_index()
    kept = search if share == 1 else search.where(f"params_m <= {share}", prefilter=True)
    found: list[str] = kept.to_arrow()["id"].to_pylist()
    return found


def recall(found: Iterator[Any], wanted: Iterator[Any]) -> float:
    pairs = [(set(some), set(others)) for some, others in zip(found, wanted, strict=True)]
    return round(float(np.mean([len(some & others) / max(len(others), 1) for some, others in pairs])), 4)


def searched(index: Index, queries: Queries, weight: float, share: float, slow: int) -> dict[str, Any]:
    """Return times and recall of the warm reader, and the time of torch."""
    turn, limits = cycle(queries), limits_of(share)

    def one(query: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        return index.best(query, weight, LIMIT, within(index, limits, {}))

    figures: dict[str, Any] = milliseconds(lambda: one(next(turn)), len(queries))
    simple = milliseconds(lambda: plain(index, next(turn), weight, share), slow)
    figures |= {"torch_ms": simple["p50_ms"], "torch_cpu_ms": simple["cpu_ms"]}
    some = queries[:slow]
    exact = (plain(index, query, weight, share) for query in some)
    return {**figures, "recall_at_10": recall((one(query) for query in some), exact)}


def together(index: Index, queries: Queries) -> dict[str, Any]:
    """Return the times of several readers at once, each under another limit."""

    def read(number: int) -> list[float]:
        share, times = list(SHARES.values())[number % len(SHARES)], []
        for query in queries:
            start = time.perf_counter()
            index.best(query, WEIGHTS["scores"], LIMIT, within(index, limits_of(share), {}))
            times.append(1000 * (time.perf_counter() - start))
        return times

    with ThreadPoolExecutor(READERS) as threads:
        lists, elapsed = seconds(lambda: list(threads.map(read, range(READERS))))
    times = [one for some in lists for one in some]
    p50, p95 = (round(float(np.percentile(times, part)), 3) for part in (50, 95))
    return {"at_once": READERS, "p50_ms": p50, "p95_ms": p95, "per_s": round(len(times) / max(elapsed, 0.01))}


def measure(rows: int, count: int) -> dict[str, Any]:
    """Return the figures of one size."""
    with tempfile.TemporaryDirectory() as folder:
        _, write_s = seconds(lambda: write_table(Path(folder), "index", clustered_index(rows)))
        table = open_table(Path(folder), "index")
        index, load_s = seconds(lambda: Index.read(table))
        queries, slow = draw(index, count), max(10, min(count, 2_000_000 // rows))
        found: dict[str, Any] = {
            weighing: {name: searched(index, queries, weight, share, slow) for name, share in SHARES.items()}
            for weighing, weight in WEIGHTS.items()
        }
        turn, few = cycle(queries), max(10, slow // 4)
        for name, share in SHARES.items():
            flat = milliseconds(lambda share=share: lance(table, next(turn), share, False), few)["p50_ms"]
            for of_weighing in found.values():
                of_weighing[name]["lance_flat_ms"] = flat
                of_weighing[name]["times_lance"] = round(flat / of_weighing[name]["p50_ms"], 1)
        _, ivf_s = seconds(lambda: table.create_index("vector", config=IvfFlat(distance_type="cosine")))
        for name, share in SHARES.items():
            of = found["cosines"][name]
            of["lance_ivf_ms"] = milliseconds(lambda share=share: lance(table, next(turn), share, True), few)["p50_ms"]
            # Without the value: LanceDB ranks by the cosine alone.
            wanted = (
                [row["id"] for row in index.rows(plain(index, query, 1e6, share), ["id"])] for query in queries[:few]
            )
            of["lance_ivf_recall_at_10"] = recall((lance(table, query, share, True) for query in queries[:few]), wanted)
        memory = sum(one.nbytes for one in (index.vectors, index.values, index.capacity, index.start))
        times = {"write_s": write_s, "load_s": load_s, "ivf_s": ivf_s, "memory_mb": round(memory / 1e6, 1)}
        return {**times, **found, "readers": together(index, queries)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[14_000, 100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("metrics/bench-index.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in the service, whose requests run side by side
    sizes = {}
    for rows in options.rows:
        sizes[str(rows)] = measure(rows, options.queries)
        print(rows, sizes[str(rows)], flush=True)
    write_json({"cores": cores(), "rows": sizes}, options.out)


if __name__ == "__main__":
    main()
