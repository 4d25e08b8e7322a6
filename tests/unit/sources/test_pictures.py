"""The licences of pictures that come with scikit-image."""

from __future__ import annotations

import pytest

from tans_core.licences import UNSTATED
from tans_core.sources.arrays import Faces
from tans_core.sources.base import licence_of
from tans_core.sources.pictures import PICTURE_LICENCES, PICTURES, ScikitImagePictures

FUNCTIONS = {
    **{label: label for label in ("astronaut", "cat", "coffee", "retina", "rocket")},
    **{label: label for label in ("brick", "cell", "clock", "coins", "grass", "gravel", "moon")},
    "cameraman": "camera",
    "galaxies": "hubble_deep_field",
    "handwriting": "text",
    "motorcycle": "stereo_motorcycle",
    "printed page": "page",
    "stained tissue": "immunohistochemistry",
}
# From the strongest statement to the weakest: some pages make two.
WORDS = {
    "CC0": "CC0-1.0",
    "public domain": "LicenseRef-scikit-image-public-domain",
    "No known copyright restrictions": "LicenseRef-scikit-image-no-known-restrictions",
    "": UNSTATED,
}


def test_every_picture_has_a_licence() -> None:
    labels = [label for pictures in PICTURES.values() for label in pictures]
    assert sorted(labels) == sorted(PICTURE_LICENCES) == sorted(FUNCTIONS)


@pytest.mark.parametrize("label", FUNCTIONS)
def test_licence_of_a_picture_is_what_its_documentation_says(label: str) -> None:
    data = pytest.importorskip("skimage.data")
    text = getattr(data, FUNCTIONS[label]).__doc__.lower()
    assert PICTURE_LICENCES[label] == next(licence for words, licence in WORDS.items() if words.lower() in text)


def test_licence_of_a_task_is_that_of_the_pictures_it_takes() -> None:
    source = ScikitImagePictures()
    for pictures in ("colour", "grey"):
        used = {PICTURE_LICENCES[label] for label in PICTURES[pictures]}
        assert licence_of(source, {"pictures": pictures}) == " AND ".join(sorted(used))
    assert licence_of(source, {}) == licence_of(source, {"pictures": "colour"})
    assert licence_of(source, {"pictures": "no such"}) == source.licence == " AND ".join(sorted(WORDS.values()))
    assert licence_of(Faces(), {}) == UNSTATED
