"""The page of a scan: its text, that it is one file, and that names from outside are escaped."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tans_core.views.scan_page import contact_strip, render_scan_page, write_scan_page
from tests.factories.reports import scanned

HOSTILE = [
    '</td><script>alert(1)</script>"onload="&amp;',
    "'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnp.exe",
    "line\nline\x00\x1b[31m",
    "\udcff",
    "שלום",
    "x" * 5000,
]
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def noise(count: int, size_px: int = 32) -> list[npt.NDArray[np.uint8]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 3, size_px, size_px), dtype=np.uint8))


@pytest.mark.parametrize(
    ("failures", "warnings", "words"),
    [
        ([], [], ["70 images in 2 classes: passed", "Nothing to do"]),
        ([], ["Few ashes."], ["70 images in 2 classes: passed, with 1 warning", "Worth a look", "Few ashes."]),
        (["No oak."], ["Few ashes."], ["70 images in 2 classes: refused", "What stops it", "No oak.", "Few ashes."]),
    ],
)
def test_page_says_whether_it_passed_and_what_to_do(failures: list[str], warnings: list[str], words: list[str]) -> None:
    text = " ".join(
        Page(render_scan_page(scanned(classes={"ash": 20, "oak": 50}), failures, warnings, {})).text.split()
    )
    for expected in ["leaves", *words]:
        assert expected in text
    assert ("Nothing to do" in text) == (not failures and not warnings)


def test_page_lists_all_that_was_found() -> None:
    report = scanned(
        classes={"ash": 20, "oak": 50, "elm": 0},
        found={"ash": 25, "oak": 50, "elm": 3},
        splits={"train": {"ash": 15, "oak": 40}, "test": {"ash": 5, "oak": 10}},
        bad=(("ash/1.png", "empty file"), ("ash/2.png", "empty file"), ("oak/1.png", "no image")),
        copies=("oak/7.png",),
        contradictions=(("ash/3.png", "oak/3.png"),),
        near_copies=(("oak/4.png", "oak/5.png", "oak/6.png", "oak/8.png"),),
        leaks=(("train/ash/4.png", "test/ash/4.png"),),
        skipped={"hidden or system file": 2},
        mislabelled=(("oak/9.jpg", "GIF"),),
        elongated=2,
        not_sampled=1234,
    )
    text = " ".join(Page(render_scan_page(report, [], [], {})).text.split())
    for words in [
        "3 files that cannot be read",
        "1 file of another format than the name says",
        "oak/9.jpg",
        "ash/1.png, ash/2.png",
        "1 copy",
        "2 files of images under two labels",
        "1 group of near-copies",
        "oak/4.png, oak/5.png, oak/6.png and 1 more",
        "1 image of one split seen in another",
        "hidden or system file",
        "2 are so long",
        "1,234 more files were not opened",
        "train",
        "test",
    ]:
        assert words in text


def test_pictures_are_inside_and_at_most_eight_a_class() -> None:
    samples = {"ash": noise(20), "oak": noise(3)}
    page = Page(render_scan_page(scanned(classes={"ash": 20, "oak": 3}), [], [], samples))
    ash, oak = page.of("img")
    assert ash["alt"] == "8 images of class ash" and oak["alt"] == "3 images of class oak"
    prefix = "data:image/png;base64,"
    address = str(oak["src"])
    assert address.startswith(prefix)
    strip = np.asarray(Image.open(BytesIO(base64.b64decode(address[len(prefix) :]))))
    assert strip.shape == (32, 3 * 32 + 2 * 2, 4)
    assert np.array_equal(strip[:, 34:66, :3], samples["oak"][1].transpose(1, 2, 0))


def test_pictures_of_all_sides_are_shown_as_wide_as_the_widest() -> None:
    pictures = [np.full((3, side, side), 20 * side % 251, np.uint8) for side in (1, 30, 8, 40)]
    for first in range(len(pictures)):
        turned = pictures[first:] + pictures[:first]
        strip = np.asarray(Image.open(BytesIO(contact_strip(turned, 64))))
        assert strip.shape == (40, 4 * 40 + 3 * 2, 4)
        shown = [np.unique(strip[:, 42 * place : 42 * place + 40, 0]).tolist() for place in range(4)]
        assert shown == [np.unique(picture).tolist() for picture in turned]
    assert Image.open(BytesIO(contact_strip([noise(1, 200)[0], pictures[0]], 48))).size == (2 * 48 + 2, 48)
    assert Image.open(BytesIO(contact_strip(pictures[:1], 48))).size == (24, 24)


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    report = scanned(
        classes=dict.fromkeys(HOSTILE, 10),
        path=HOSTILE[0],
        kind=HOSTILE[1],
        bad=tuple((name, name) for name in HOSTILE),
        copies=tuple(HOSTILE),
        contradictions=tuple(zip(HOSTILE, HOSTILE, strict=True)),
        leaks=tuple(zip(HOSTILE, HOSTILE, strict=True)),
        near_copies=(tuple(HOSTILE),),
        skipped={HOSTILE[0]: 1},
        formats={HOSTILE[0]: 1},
    )
    path = tmp_path / "scan.html"
    write_scan_page(report, HOSTILE, HOSTILE, {name: noise(2) for name in HOSTILE}, path)
    html = path.read_bytes().decode("utf-8")
    page = Page(html)
    assert not page.of("script") and len(page.of("img")) == len(HOSTILE)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.text and "{{ 7 * 7 }}" in page.text and "שלום" in page.text
    assert "\u202e" not in html and "\x00" not in html and "\x1b" not in html


def test_page_fetches_nothing() -> None:
    html = render_scan_page(scanned(classes={"ash": 20, "oak": 50}), ["No oak."], [], {"ash": noise(3)})
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    addresses = [
        attributes[key] for _, attributes in page.tags for key in ("src", "href", "srcset") if key in attributes
    ]
    assert all(str(address).startswith("data:image/png;base64,") for address in addresses)
    assert not re.search(r"url\(|@import|https?:", html)
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'")


def test_hundred_thousand_files_give_a_page_under_three_megabytes() -> None:
    names = tuple(f"train/{'y' * 200}/{index}.png" for index in range(100_000))
    classes = {f"class {index}": 1000 for index in range(100)}
    report = scanned(
        classes=classes,
        bad=tuple((name, f"{name}: its own reason") for name in names[:20_000]),
        copies=names,
        contradictions=tuple(zip(names, names, strict=True)),
        leaks=tuple(zip(names, names, strict=True)),
        near_copies=tuple((name,) * 5 for name in names),
    )
    html = render_scan_page(report, [], [], {name: noise(10, 64) for name in classes})
    assert len(html.encode()) < 3_000_000
    page = Page(html)
    assert len(page.of("img")) == 60
    assert "and 40 more classes; scan.json has all" in page.text
    assert page.text.count("and 99,950 more; scan.json has all") == 4


def test_scan_without_an_image_has_a_page() -> None:
    text = Page(
        render_scan_page(scanned(classes={}, sides_px=(0, 0, 0, 0, 0)), ["No class has a usable image."], [], {})
    ).text
    assert "0 images in 0 classes: refused" in " ".join(text.split())
