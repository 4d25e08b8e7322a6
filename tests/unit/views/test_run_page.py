"""The report of a run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tans_core.use.judge import judge
from tans_core.views.run_page import write_run_page

CURVE = [{"step": 4.0, "train_loss": 1.5, "val_accuracy": 0.5}, {"step": 8.0, "train_loss": 0.75, "val_accuracy": 0.75}]
HOSTILE = '<script>alert("a")</script>'


def page(folder: Path, labels: np.ndarray, said: np.ndarray, names: tuple[str, ...]) -> str:
    judgement = judge(np.eye(len(names))[said] * 3, labels, names, 1.0)
    image = np.full((3, 20, 20), 200, dtype=np.uint8)
    mistakes = [
        (image, names[labels[row]], names[said[row]], 0.9, f"{HOSTILE}/{row}.png") for row in judgement.mistakes
    ]
    write_run_page(
        folder / "report.html",
        title=("elastic.a.001", names[0]),
        facts=[("Input", "20 px")],
        curve=CURVE,
        best_step=8,
        judgement=judgement,
        mistakes=mistakes,
        warning="5 images were seen before",
    )
    return (folder / "report.html").read_text()


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_shows_curve_classes_confusions_and_mistakes_and_fetches_nothing(tmp_path: Path) -> None:
    labels, said = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 1, 1, 2, 0])
    text = page(tmp_path, labels, said, (HOSTILE, "elm", "oak"))
    found = Tags(text)
    assert "script" not in found.tags and HOSTILE not in text
    assert len(found.links) == 3 and all(link.startswith("data:image/png;base64,") for link in found.links)
    assert found.tags.count("figure") == 3 and found.tags.count("polyline") == 2
    assert "test accuracy 0.625" in text and "5 images were seen before" in text
    # Its accuracies are drawn from the bottom, 162, to the top, 8: .75 is at 46.5.
    assert 'circle cx="632.0" cy="46.5"' in text
    matrix = text.partition('class="matrix"')[2].partition("</table>")[0]
    rows = [re.findall(r"<td[^>]*>(\d*)</td>", row) for row in matrix.split("<tr>")[2:]]
    assert rows == [["2", "1", "1"], ["", "2", ""], ["1", "", "1"]]
    # The hardest class first.
    shown = re.findall(
        r'<th scope="row"><bdi>(.*?)</bdi>', text.partition('class="classes"')[2].partition("</table>")[0]
    )
    assert shown[1:] == ["oak", "elm"] and shown[0].startswith("&lt;script")


def test_a_thousand_classes_make_a_page_that_can_be_read(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(1000))
    labels = np.repeat(np.arange(1000), 2)
    text = page(tmp_path, labels, np.where(np.arange(2000) % 5 == 0, (labels + 1) % 1000, labels), names)
    assert "and 900 more classes; test.json has all" in text and 'class="matrix"' not in text
    assert len(text) < 200_000


def test_no_mistake_is_said(tmp_path: Path) -> None:
    labels = np.array([0, 1, 0, 1])
    assert "None: every test image was recognised." in page(tmp_path, labels, labels, ("ash", "elm"))
