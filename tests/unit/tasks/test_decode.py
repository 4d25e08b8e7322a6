"""The decoder on the files of real image folders."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tans_core.tasks import decode as decode_module
from tans_core.tasks.decode import UnreadableImageError, decode, fit_box
from tests.factories.images import (
    ORIENTATION,
    bomb,
    cmyk_jpeg,
    encoded,
    encoded_image,
    noise,
    rotated_photo,
    tiff,
    ycck_jpeg,
)


def test_plain_png_keeps_every_pixel() -> None:
    pixels = noise()
    decoded = decode(encoded(pixels))
    assert (decoded.format, decoded.width, decoded.height) == ("PNG", 40, 30)
    np.testing.assert_array_equal(decoded.pixels, pixels)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_files_give_a_reason(file_format: str, share: float) -> None:
    data = encoded(noise(200, 200), file_format)
    with pytest.raises(UnreadableImageError) as caught:
        decode(data[: int(len(data) * share)])
    assert str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am no image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 4096]
)
def test_what_is_no_image_gives_a_reason(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data)
    assert str(caught.value)


def test_every_flipped_byte_gives_an_image_or_a_reason() -> None:
    data = encoded(noise(12, 12), "PNG")
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0xFF
        # Any other exception fails the test.
        with contextlib.suppress(UnreadableImageError):
            assert decode(bytes(broken)).pixels.dtype == np.uint8


def test_decompression_bomb_is_refused_before_its_pixels_are_read() -> None:
    data = bomb()
    assert len(data) < 100_000
    with pytest.raises(UnreadableImageError, match="pixels"):
        decode(data)


def test_postscript_is_never_opened() -> None:
    with pytest.raises(UnreadableImageError, match="PostScript or PDF, which is not read"):
        decode(encoded(noise(), "EPS"))


def test_exif_orientation_is_applied() -> None:
    decoded = decode(rotated_photo())
    assert (decoded.width, decoded.height) == (20, 40)
    top, bottom = decoded.pixels[:15, :, 0].mean(), decoded.pixels[25:, :, 0].mean()
    assert top > 240 and bottom < 15


def test_16_bit_grey_is_scaled_by_its_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for file_format in ("PNG", "TIFF"):
        grey = decode(encoded(ramp, file_format)).pixels[:, :, 0].ravel()
        np.testing.assert_allclose(grey, np.arange(256), atol=1)


def test_16_bit_pgm_is_scaled_by_its_range() -> None:
    values = np.array([[0, 32768, 65535]], dtype=">u2")
    grey = decode(b"P5 3 1 65535\n" + values.tobytes()).pixels[0, :, 0]
    np.testing.assert_allclose(grey, [0, 128, 255], atol=1)


def test_32_bit_float_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    grey = decode(encoded(ramp, "TIFF")).pixels[:, :, 0].ravel()
    np.testing.assert_allclose(grey, np.arange(256), atol=1)


def test_floats_that_are_not_numbers_do_not_spoil_the_rest() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf]], dtype=np.float32)
    assert decode(encoded(values, "TIFF")).pixels[0, :3, 0].tolist() == [0, 128, 255]
    with pytest.raises(UnreadableImageError, match="finite"):
        decode(encoded(np.full((4, 4), np.nan, dtype=np.float32), "TIFF"))


@pytest.mark.parametrize("kind", ["float32", "int16", "int32"])
def test_a_few_values_below_zero_do_not_make_grey_of_black(kind: str) -> None:
    scale = 1 if kind == "float32" else 32767
    values = np.linspace(0, 1, 4096).reshape(64, 64) * scale
    values[5, 5] = -0.2 * scale
    grey = decode(tiff(values.astype(kind))).pixels[:, :, 0]
    assert grey[0, 0] == grey[5, 5] == 0 and grey[-1, -1] >= (254 if kind != "int32" else 127)
    values[:32] = -0.2 * scale
    assert decode(tiff(values.astype(kind))).pixels[0, 0, 0] > 90


def test_32_bit_integers_take_the_smallest_range_that_holds_them() -> None:
    values = np.array([[0, 1 << 30, (1 << 31) - 1]], dtype=np.int32)
    np.testing.assert_allclose(decode(encoded(values, "TIFF")).pixels[0, :, 0], [0, 128, 255], atol=1)
    small = np.array([[0, 100, 255]], dtype=np.int32)
    assert decode(encoded(small, "TIFF")).pixels[0, :, 0].tolist() == [0, 100, 255]


def test_one_transparent_value_of_16_bits_is_white() -> None:
    values = np.array([[0, 514, 30000, 65535]], dtype=np.uint16)
    data = encoded(values, transparency=514)
    assert decode(data).pixels[0, :, 0].tolist() == [0, 255, 117, 255]


def turned_photo(side: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return encoded_image(Image.new("RGB", (side, side)), "JPEG", exif=exif)


LARGE = {
    "16 bits": lambda: encoded(np.ones((8000, 8000), dtype=np.uint16), "TIFF", compression="tiff_deflate"),
    "float": lambda: encoded(np.ones((8000, 8000), dtype=np.float32), "TIFF", compression="tiff_deflate"),
    "transparent": lambda: encoded_image(Image.new("RGBA", (8000, 8000))),
    "grey, transparent": lambda: encoded_image(Image.new("LA", (8000, 8000))),
    "turned": lambda: turned_photo(8000),
}


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("name", LARGE)
def test_the_largest_images_take_a_bounded_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(LARGE[name]())
    # Not that of getrusage, which knows the peak of the process that started this one, too.
    code = (
        "import sys; from pathlib import Path; from tans_core.tasks.decode import decode; "
        "decode(Path(sys.argv[1]).read_bytes()); print(Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "image"], capture_output=True, check=True, text=True)
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[0])
    # In RGB, the image takes 192 MB.
    assert peak < 650 * 2**10


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most = 0, 0
    load = decode_module._loaded

    def slow(*arguments: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.05)
        under_way -= 1
        return load(*arguments)

    monkeypatch.setattr(decode_module, "_loaded", slow)
    monkeypatch.setattr(decode_module, "LARGE_PIXELS", 99)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, [encoded(noise(10, 10, seed=n)) for n in range(6)]))
        assert most == 1
        list(pool.map(decode, [encoded(noise(9, 10, seed=n)) for n in range(6)]))
        assert most > 1


# Ink of half cyan, full magenta, no yellow, a little black: a strong pink-violet.
@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpegs_are_told_apart_by_adobes_marker(adobe: bool) -> None:
    cyan, magenta, yellow, black = ink = (128, 250, 0, 30)
    expected = [(255 - c) * (255 - black) / 255 for c in (cyan, magenta, yellow)]
    mean = decode(cmyk_jpeg(ink, adobe)).pixels.mean(axis=(0, 1))
    np.testing.assert_allclose(mean, expected, atol=6)


def test_ycck_jpeg_is_converted() -> None:
    luma, blue, red, key = planes = (150, 110, 170, 220)
    rgb = np.array(
        [luma + 1.402 * (red - 128), luma - 0.344 * (blue - 128) - 0.714 * (red - 128), luma + 1.772 * (blue - 128)]
    )
    mean = decode(ycck_jpeg(planes)).pixels.mean(axis=(0, 1))
    np.testing.assert_allclose(mean, (255 - rgb) * key / 255, atol=6)


def test_cmyk_tiff_is_not_inverted() -> None:
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert decode(encoded_image(image, "TIFF")).pixels[0, 0].tolist() == [0, 255, 255]


def test_transparency_is_composited_on_white() -> None:
    layer = np.zeros((2, 2, 4), dtype=np.uint8)
    layer[0, 0] = (200, 0, 0, 0)
    layer[0, 1] = (200, 0, 0, 255)
    layer[1, 0] = (0, 0, 0, 128)
    for file_format in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        pixels = decode(encoded(layer, file_format, **options)).pixels
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[0, 1].tolist() == [200, 0, 0]
        assert abs(int(pixels[1, 0, 0]) - 127) <= 1


def test_grey_with_alpha_and_transparent_palette_are_composited_on_white() -> None:
    grey = Image.new("LA", (4, 4), (10, 0))
    assert decode(encoded_image(grey)).pixels.min() == 255
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 1), 1)
    for file_format in ("PNG", "GIF"):
        pixels = decode(encoded_image(palette, file_format, transparency=0)).pixels
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[1, 1].tolist() == [0, 200, 0]


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for file_format in ("GIF", "WEBP", "TIFF"):
        options = {"lossless": True} if file_format == "WEBP" else {}
        data = encoded_image(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert decode(data).pixels[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000"])
def test_content_says_the_format(file_format: str) -> None:
    decoded = decode(encoded(noise(), file_format))
    assert decoded.format == file_format
    assert decoded.pixels.shape == (30, 40, 3)


def test_black_and_white_and_palette_modes_become_rgb() -> None:
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    assert set(np.unique(decode(encoded_image(bits)).pixels)) == {0, 255}
    adaptive = Image.fromarray(noise()).convert("P", palette=Image.Palette.ADAPTIVE)
    assert decode(encoded_image(adaptive)).pixels.shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("width", "height", "side"),
    [
        *((1, 2000, 3), (2000, 1, 3), (1, 1, 1), (2, 1, 2), (7, 1000, 21), (31, 20, 31), (30, 20, 20), (9, 8, 8)),
        *((32, 32, 32), (33, 33, 32), (400, 100, 32), (60, 40, 32), (11, 1000, 32), (5000, 4000, 32)),
    ],
)
def test_any_shape_becomes_a_square_that_is_reduced_to_the_box_and_never_enlarged(
    width: int, height: int, side: int
) -> None:
    boxed = fit_box(noise(width, height), 32)
    assert boxed.shape == (3, side, side) and boxed.dtype == np.uint8


@pytest.mark.parametrize(("width", "height"), [(32, 32), (8, 8), (1, 1), (12, 8), (8, 11)])
def test_box_keeps_the_pixels_of_an_image_that_it_has_room_for(width: int, height: int) -> None:
    pixels, side = noise(width, height), min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = pixels[top : top + side, left : left + side]
    np.testing.assert_array_equal(fit_box(pixels, 32), middle.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(12, 5), (5, 12), (3, 1), (1, 30), (31, 12)])
def test_small_banner_keeps_its_pixels_between_two_strips_of_one_colour(width: int, height: int) -> None:
    pixels = noise(width, height)
    lying = pixels if width >= height else pixels.transpose(1, 0, 2)
    across, thick = min(lying.shape[1], 3 * lying.shape[0]), lying.shape[0]
    left, top = (lying.shape[1] - across) // 2, (across - thick) // 2
    boxed = fit_box(pixels, 32).transpose(1, 2, 0)
    boxed = boxed if width >= height else boxed.transpose(1, 0, 2)
    np.testing.assert_array_equal(boxed[top : top + thick], lying[:, left : left + across])
    strips = np.concatenate([boxed[:top], boxed[top + thick :]]).reshape(-1, 3)
    assert len(strips) == (across - thick) * across and (strips == strips[0]).all()


def test_photograph_is_cropped_and_a_banner_is_padded_with_its_border() -> None:
    photo = np.zeros((40, 60, 3), dtype=np.uint8)
    photo[:, 10:50] = 255
    # What the crop takes away may shine through at the very edge only.
    assert fit_box(photo, 20).min() > 230
    banner = np.full((20, 60, 3), 90, dtype=np.uint8)
    banner[9:11, 25:35] = 255
    boxed = fit_box(banner, 60)
    assert boxed[:, 0].max() == boxed[:, -1].min() == 90
    assert boxed[0, 30, 30] == 255


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    checks = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    boxed = fit_box(checks, 32)
    assert boxed.min() > 120
    assert boxed.max() < 136


@pytest.mark.parametrize(("width", "height"), [(96, 96), (64, 80), (100, 96)])
def test_squares_of_whole_pixels_become_their_means(width: int, height: int) -> None:
    side = min(width, height)
    left, top, step = (width - side) // 2, (height - side) // 2, side // 32
    pixels = noise(width, height)
    square = pixels[top : top + side, left : left + side].reshape(32, step, 32, step, 3)
    means = square.mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(fit_box(pixels, 32) - means).max() <= 1


def test_grey_arrays_become_three_equal_channels() -> None:
    grey = noise()[:, :, 0]
    boxed = fit_box(grey, 16)
    assert (boxed[0] == boxed[1]).all() and (boxed[1] == boxed[2]).all()


def test_decoding_gives_what_pillow_gives() -> None:
    data = encoded(noise(), "JPEG")
    with Image.open(io.BytesIO(data)) as direct:
        np.testing.assert_array_equal(np.asarray(direct), decode(data).pixels)


def test_floats_a_little_beyond_their_range_are_clipped_not_blackened() -> None:
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    ramp[0, 0] = 1.02
    assert 120 < decode(encoded(ramp, "TIFF")).pixels.mean() < 135
    counts = np.linspace(0, 69_999, 400).astype(np.int32).reshape(20, 20)
    assert 120 < decode(encoded(counts, "TIFF")).pixels.mean() < 135
