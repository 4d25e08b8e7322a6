"""Export a network of every family to ONNX and torch.export, and compare each with the network on 100 photographs.

    python -m benchmarks.export_parity --out metrics/bench-export.json

The photographs are patches of two pictures of scikit-learn. The networks are the smallest of each family with settings
in params.yaml, or by default; of a library, some small ones. They are tuned for a few steps first.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from tans_core.io import write_json
from tans_core.networks.preprocess import Preprocess
from tans_core.networks.registry import get_family, known_families
from tans_core.params import load_params
from tans_core.runtime import clock
from tans_core.use.export import export
from tans_core.use.model import TunedModel
from tests.factories.packaged import NAMES, SIDE_PX, described
from tests.factories.runs import make_run

ROOT = Path(__file__).parents[1]
PATCH_PX = 72
STORED_PX = 64
LR = 0.001
"""Small: larger steps from random weights end in logits of thousands, for which no absolute difference is small."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packaged", type=int, default=3, help="how many networks of installed packages")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        photographs = write_photographs(Path(folder) / "photographs")
        for label, of in networks(options.packaged):
            seconds = clock()
            family = get_family(of["family"])
            torch.manual_seed(0)
            network = family.build(of["architecture"], 2)
            run = make_run(Path(folder) / "runs" / label, photographs, 3, network, STORED_PX, LR, **of)
            model = TunedModel.load(run.folder)
            results[label] = {
                form: export(model, form, images=photographs).content["parity"] for form in ("onnx", "torch")
            }
            results[label]["seconds"] = round(seconds(), 1)
            print(label, results[label], flush=True)
            if options.out:
                write_json(results, options.out)


def networks(of_library: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a label and the card's fields of networks of every family."""
    settings = load_params(ROOT).networks
    for name in known_families():
        family = get_family(name)
        if family.packages:  # a library has no space
            for package, network in NAMES[:: len(NAMES) // of_library]:
                preprocess = Preprocess(image_size_px=SIDE_PX, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
                architecture = described(package, network)
                yield f"{name}-{network}", {"family": name, "architecture": architecture, "preprocess": preprocess}
            continue
        space = family.space(settings.get(name, {"image_size_px": STORED_PX}))
        preprocess = family.preprocess(space, (0.5,) * 3, (0.25,) * 3)
        architecture = space.describe(space.smallest())
        yield name, {"family": name, "architecture": architecture, "preprocess": preprocess}


def write_photographs(folder: Path) -> Path:
    """Write 60 patches of each picture."""
    for number, picture in enumerate(load_sample_images().images):
        (folder / str(number)).mkdir(parents=True)
        for index in range(60):
            top, left = (PATCH_PX * part for part in divmod(index, 8))
            top, left = top % (picture.shape[0] - PATCH_PX), left % (picture.shape[1] - PATCH_PX)
            patch = picture[top : top + PATCH_PX, left : left + PATCH_PX]
            Image.fromarray(patch).save(folder / str(number) / f"{index}.png")
    return folder


if __name__ == "__main__":
    main()
