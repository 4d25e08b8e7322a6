"""A folder in the style of Hugging Face: card as README.md, weights as safetensors, labels in config.json.

Networks of timm load with timm; the others with `tans.load`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tans_core.io import atomic_folder, write_json, write_text
from tans_core.networks.preprocess import normalise
from tans_core.networks.registry import get_family
from tans_core.use.model import HUB_WEIGHTS_FILE, USE_FILE, TunedModel
from tans_core.zoo.weights import save_tensors

_SIMPLE = {"Apache-2.0", "MIT", "CC-BY-4.0", "CC0-1.0", "BSD-3-Clause", "GPL-3.0-only", "CC-BY-SA-4.0", "CC-BY-NC-4.0"}
"""SPDX ids that are ids of the hub too, in lower case."""


def write_hub_folder(
    model: TunedModel, folder: Path, compare: Callable[[Callable[[Tensor], tuple[Tensor, Tensor]]], dict[str, Any]]
) -> dict[str, Any]:
    """Write the folder; return the content of config.json.

    Args:
        model: on the CPU.
        folder: is replaced if it exists.
        compare: returns how far a function from images to logits and probabilities differs from the network.
    """
    card, preprocess = model.card, model.preprocess
    names = list(card.class_names)
    config: dict[str, Any] = {
        "num_classes": len(names),
        "num_features": model.network.feature_dim,
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
        "temperature": card.temperature,
        "pretrained_cfg": {
            "input_size": [3, preprocess.image_size_px, preprocess.image_size_px],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop,
            "num_classes": len(names),
            "label_names": names,
            "license": card.licence,
        },
    }
    published = get_family(card.family).published_form(card.architecture, model.network)
    state = model.network.state_dict()
    if published is not None:
        config |= {"library_name": "timm", **published.config}
        config["pretrained_cfg"] |= {"classifier": published.classifier}
        state = published.module.state_dict()
    else:
        config |= {"library_name": "tans", "architecture": card.architecture, "family": card.family}
    module: nn.Module = model.network if published is None else published.module
    config["parity"] = compare(lambda images: _answer(module, images, model))
    with atomic_folder(folder) as temporary:
        save_tensors(state, temporary / HUB_WEIGHTS_FILE, {"format": "pt"})
        write_json(config, temporary / "config.json")
        write_text(_readme(model, config), temporary / "README.md")
        if published is None:
            write_json(card.model_dump(mode="json"), temporary / USE_FILE)
    return config


def _answer(module: nn.Module, images: Tensor, model: TunedModel) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        logits: Tensor = module.eval()(normalise(images, model.preprocess.mean, model.preprocess.std))
    return logits, torch.softmax(logits / model.card.temperature, dim=1)


def _readme(model: TunedModel, config: dict[str, Any]) -> str:
    card, library = model.card, config["library_name"]
    simple = card.licence in _SIMPLE
    licence = (
        [f"license: {card.licence.lower()}"] if simple else ["license: other", f"license_name: {_text(card.licence)}"]
    )
    if library == "timm":
        use = 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()'
        prepared = "Images are scaled to the input size, then normalised by `mean` and `std` of `pretrained_cfg`."
    else:
        use = 'import tans_core as tans\n\nfound = tans.load("FOLDER").predict("photos/")\nprint(found.to_frame())'
        prepared = "`predict.json` has the preprocessing."
    side = model.preprocess.image_size_px
    return "\n".join(
        [
            "---",
            *licence,
            f"library_name: {library}",
            "pipeline_tag: image-classification",
            "tags:",
            "- image-classification",
            f"- {library}",
            "metrics:",
            "- accuracy",
            "model-index:",
            f"- name: {_text(f'{card.model} on {card.task}')}",
            "  results:",
            "  - task: {type: image-classification}",
            f"    dataset: {{name: {_text(card.task)}, type: image-folder, split: test}}",
            f"    metrics: [{{type: accuracy, value: {card.test_accuracy:.6f}}}]",
            "---",
            "",
            f"# {_plain(card.model)}, fine-tuned on {_plain(card.task)}",
            "",
            f"- Test accuracy: {card.test_accuracy:.3f}; validation accuracy: {card.val_accuracy:.3f}.",
            f"- Input: {side} x {side} pixels, RGB. {prepared}",
            f"- {len(card.class_names)} classes: in `config.json`, as `id2label`.",
            f"- Probabilities are calibrated by dividing the logits by {card.temperature:.4f}.",
            f"- Licence of the weights and of all that they descend from: {_plain(card.licence)}.",
            f"- The largest difference of a logit from the tuned network, on {config['parity']['images']} images: "
            f"{config['parity']['batch_32']['logits']:.1e}.",
            "",
            "```python",
            use,
            "```",
            "",
        ]
    )


def _text(value: str) -> str:
    """Return a text as YAML: names come from outside, and JSON's texts are YAML's."""
    return json.dumps(value, ensure_ascii=False)


def _plain(value: str) -> str:
    """Return a text for one line of Markdown."""
    return "".join(f"\\{one}" if one in "\\`*_{}[]<>#|" else one for one in value if one.isprintable())
