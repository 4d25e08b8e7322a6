"""TANS: which pretrained network should I start from for this data set, within these limits?

    import tans_core as tans

    found = tans.retrieve("photos/", max_params_m=0.5)   # a folder of class folders, or a task of the project
    found[0].model, found[0].predicted_score
    run = tans.finetune("photos/", found[0].model, epochs=5)
    run.test_accuracy, run.folder
    tans.predict(run, "new/")[0].label                   # or tans.load(run): the network, a torch module
    tans.scan("photos.zip").to_dict()                    # the images of a path, and whether they can be used

The names below are imported on first use, so that importing the package is cheap.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tans_core.api import (
        FinetuneRun,
        Predictions,
        Query,
        Retrieval,
        ScanRun,
        Service,
        add_network,
        admit,
        build,
        contribute,
        embed,
        export,
        finetune,
        list_models,
        list_releases,
        list_tasks,
        load,
        model_card,
        predict,
        profile_networks,
        prune,
        publish,
        remove_networks,
        retrieve,
        rollback,
        scan,
        verify,
    )
    from tans_core.errors import (
        DataError,
        GateError,
        NoModelFitsError,
        NoReleaseError,
        ParamsError,
        StoreError,
        TansError,
        UnknownTaskError,
        WeightsError,
    )

    __version__: str

__all__ = [
    "DataError",
    "FinetuneRun",
    "GateError",
    "NoModelFitsError",
    "NoReleaseError",
    "ParamsError",
    "Predictions",
    "Query",
    "Retrieval",
    "ScanRun",
    "Service",
    "StoreError",
    "TansError",
    "UnknownTaskError",
    "WeightsError",
    "__version__",
    "add_network",
    "admit",
    "build",
    "contribute",
    "embed",
    "export",
    "finetune",
    "list_models",
    "list_releases",
    "list_tasks",
    "load",
    "model_card",
    "predict",
    "profile_networks",
    "prune",
    "publish",
    "remove_networks",
    "retrieve",
    "rollback",
    "scan",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("tans")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "tans_core.errors" if name.endswith("Error") else "tans_core.api"
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
