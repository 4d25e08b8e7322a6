"""What `tans_core` refuses before it looks at any data."""

from __future__ import annotations

from pathlib import Path

import pytest

import tans_core as tans
from tans_core import errors


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"epochs": 0}, errors.ParamsError, "epochs: got 0"),
        ({"refine": -1}, errors.ParamsError, "refine: got -1"),
        ({"rank": 99}, errors.ParamsError, "rank: got 99"),
        ({"rank": 0}, errors.ParamsError, "rank: got 0"),
        ({"max_params_m": -1}, errors.ParamsError, "max_params_m: got -1"),
        ({"min_macs_m": 3, "max_macs_m": 2}, errors.ParamsError, r"min_macs_m: got 3, want at most"),
        ({"licences": "MTI"}, errors.ParamsError, "did you mean 'MIT'"),
        ({"licences": 5}, errors.ParamsError, "licences: got 5"),
        ({"seed": 2**70}, errors.ParamsError, "seed: got"),
        ({"seed": -1}, errors.ParamsError, "seed: got -1"),
        ({"epoch": 3}, errors.ParamsError, "did you mean .epochs"),
        ({"model": "stripes.0000", "rank": 2}, errors.ParamsError, "Leave out --model, or --rank"),
        ({"max_params_m": 1e-9}, errors.NoModelFitsError, "raise --max-params-m"),
        ({"model": "stripes.0000"}, errors.StoreError, "no model 'stripes.0000'"),
        ({"top_k": 2, "budget": "0s"}, errors.ParamsError, "--budget: got 0s"),
    ],
)
def test_finetuning_refuses_what_it_cannot_do_before_it_looks_at_the_data(
    project: Path, arguments: dict[str, object], kind: type[Exception], message: str
) -> None:
    # A data set that is not there would be said, too, if it were looked for first.
    with pytest.raises(kind, match=message):
        tans.finetune("no such folder/", root=project, **arguments)


@pytest.mark.parametrize("arguments", [{"licences": "ISC"}, {"top_k": 0}, {"refine": -1}, {"max_params_m": 1e-9}])
def test_retrieval_refuses_what_it_cannot_do_before_it_looks_at_the_data(
    project: Path, arguments: dict[str, object]
) -> None:
    with pytest.raises((errors.ParamsError, errors.NoModelFitsError)):
        tans.retrieve("no such folder/", root=project, **arguments)
