"""`benchmarks/external.py` on made tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from external import MEAN, PROCESS, judge_table, rankings, read_table

from tans_core.errors import ParamsError

SETS = ("w", "x", "y", "z")


def table(noise: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Two architectures from six homes, two of which are data sets; a home's quality shows on every data set."""
    rng = np.random.default_rng(seed)
    rows = []
    for architecture in ("a", "b"):
        for quality, home in enumerate(("p", "q", "r", "s", "w", "x")):
            values = {name: 50 + 4 * quality + 9 * (architecture == "b") + rng.normal(0, noise) for name in SETS}
            rows.append({"architecture": architecture, "home": home, **values})
    return pd.DataFrame(rows)


def test_results_that_agree_are_ranked_right_and_random_is_not() -> None:
    record = judge_table(table())
    assert (record["networks"], record["homes"], record["data_sets"]) == (12, 6, 4)
    for name in (MEAN, PROCESS):
        assert record["rankings"][name]["weighted_tau"] > 0.9
        assert record["rankings"][name]["regret_at_1"] < 0.5
    assert record["rankings"]["random"]["regret_at_1"] > 5
    assert set(record["by_data_set"]) == set(SETS)


def test_left_out_data_set_has_no_influence() -> None:
    plain = rankings(table(), ["x", "y", "z"])
    changed = rankings(table().assign(w=np.arange(12)[::-1]), ["x", "y", "z"])
    assert all(np.array_equal(plain[name], changed[name]) for name in plain)


def test_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        read_table(tmp_path / "none.csv")
    path = tmp_path / "table.csv"
    table().drop(columns="home").to_csv(path, index=False)
    with pytest.raises(ParamsError, match="want architecture, home"):
        read_table(path)
    table().replace(table()["w"][0], np.nan).to_csv(path, index=False)
    with pytest.raises(ParamsError, match="an accuracy in every row"):
        read_table(path)
