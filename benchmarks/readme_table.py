"""The README's table of test accuracies: the picked network and the alternatives, from metrics/evaluate.json.

    python benchmarks/readme_table.py [--write]

Prints the table; with `--write` puts it into README.md.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?<=<!-- evaluate -->\n).*?(?=<!-- /evaluate -->)", re.DOTALL)
STARTS = {
    "picked": "the network that TANS ranks first",
    "refined": "the first after `--refine 8`",
    "imagenet": "the ImageNet network as it is",
    "imagenet-long": "the ImageNet network, given more steps",
    "scratch": "the picked architecture, fresh weights",
    "base": "the picked architecture, base weights",
    "random": "random networks of the zoo",
    "largest": "the network with most parameters",
    "nearest": "the best network of the nearest task",
}


def table(metrics: dict[str, Any]) -> str:
    """Return the Markdown between the README's comments: a table, best row first, and sentences about the pick."""
    accuracy, tasks = metrics["accuracy"], metrics["tasks"]
    mean = {name: accuracy[name]["mean"] for name in accuracy}
    heads = ["choice", "mean", *tasks, "M parameters", "M MACs"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for name in sorted(mean, key=lambda name: (-mean[name], name)):
        cost = metrics["cost"][name]
        cells = [mean[name], *(tasks[task][name]["mean"] for task in tasks), cost["params_m"], cost["macs_m"]]
        start = f"*{name}*: {STARTS[name]}" if name in STARTS else f"*{name}*"
        lines.append("| " + " | ".join([start, *(f"{cell:.2f}" for cell in cells)]) + " |")
    ahead = sorted((name for name in mean if mean[name] > mean["picked"]), key=lambda name: (-mean[name], name))
    better = [f"*{name}* ({mean[name]:.3f})" for name in ahead]
    sentences = [
        f"The picked network reaches a mean of {mean['picked']:.3f}.",
        f"Refined by eight probes, as `tans finetune` does by default, the pick reaches {mean['refined']:.3f}.",
        f"Choices with a higher mean than *picked*: {', '.join(better) or 'none'}.",
        f"On one task, two seeds of the same network differ by {metrics['noise']['between_seeds']:.2f} on average.",
        "Parameters and MACs (multiply-accumulates of one image) are in millions, means over the tasks.",
    ]
    return "\n".join([*lines, "", *sentences, ""])


def with_table(readme: str, metrics: dict[str, Any]) -> str:
    """Return the README with the table of these metrics between its two comments."""
    written, count = BLOCK.subn(lambda _: table(metrics), readme)
    if count != 1:
        raise SystemExit(f"README.md: got {count} blocks `<!-- evaluate -->` ... `<!-- /evaluate -->`, want 1.")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    metrics = json.loads((ROOT / "metrics/evaluate.json").read_text(encoding="utf-8"))
    if parser.parse_args().write:
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(encoding="utf-8"), metrics), encoding="utf-8")
    else:
        print(table(metrics), end="")


if __name__ == "__main__":
    main()
