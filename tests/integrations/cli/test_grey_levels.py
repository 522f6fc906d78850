"""Grey images of more than eight bits; expected levels are computed by hand with NumPy."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iwp_transformers.media.errors import MediaError
from iwp_transformers.media.images import read_image

RAMP = np.linspace(0, 255, 64 * 48).reshape(48, 64)


def seen(path: Path) -> NDArray[np.uint8]:
    """Pixels as the command reads them."""
    return np.asarray(read_image(path))


def tiff(values: NDArray[Any], *, sample_format: int, photometric: int = 1, bits: int | None = None) -> bytes:
    """Grey TIFF file written by hand, little-endian and in one strip."""
    height, width = values.shape
    bits = 8 * values.itemsize if bits is None else bits
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    entries += [(278, height), (279, len(data)), (339, sample_format)]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP * 257).astype(np.uint16), RAMP),
        ((RAMP * 257 * 0.5).astype(np.uint16), RAMP / 2),
        ((RAMP / 255).astype(np.float32), RAMP),
        ((RAMP / 510).astype(np.float32), RAMP / 2),
        (RAMP.astype(np.float32), RAMP),
        ((RAMP * 40 - 3000).astype(np.float32), RAMP),
        ((RAMP * 1e30).astype(np.float32), RAMP),
        ((RAMP * 1e7 - 1e9).astype(np.int32), RAMP),
        ((RAMP * 3).astype(np.int32), RAMP),
        (np.full((4, 4), 7, np.int32), np.full((4, 4), 128)),
        (np.full((4, 4), 7000, np.uint16), np.full((4, 4), 27)),
        (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 128)),
    ],
    ids=["16 bits", "16 bits, dark", "fractions", "fractions, dark", "bytes as floats", "below zero", "huge floats",
         "32 bits", "few levels in 32 bits", "one level in 32 bits", "one level in 16 bits", "one fraction"],
)  # fmt: skip
def test_wide_grey_levels_become_those_that_a_person_sees(
    values: NDArray[Any], expected: NDArray[Any], tmp_path: Path
) -> None:
    """Integers of 16 bits and fractions keep their brightness; numbers that say nothing of their range fill it."""
    Image.fromarray(values).save(tmp_path / "grey.tif")

    # Where the range is the image's own, 0.35 % of the pixels are cut off: less than one level.
    np.testing.assert_allclose(seen(tmp_path / "grey.tif"), np.repeat(expected[..., None], 3, axis=2), atol=1)


def test_sixteen_bit_png_and_portable_grey_map_keep_their_brightness(tmp_path: Path) -> None:
    """The two that Pillow reads into other modes."""
    half = (RAMP * 257 * 0.5).astype(np.uint16)
    Image.fromarray(half).save(tmp_path / "grey.png")
    (tmp_path / "grey.pgm").write_bytes(b"P5 64 48 65535\n" + half.astype(">u2").tobytes())

    for ending in ("png", "pgm"):
        np.testing.assert_allclose(seen(tmp_path / f"grey.{ending}")[..., 0], RAMP / 2, atol=1)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ((RAMP / 255 * (2**32 - 1)).astype(np.uint32), {"sample_format": 1}, RAMP),
        ((RAMP * 257).astype(np.uint16), {"sample_format": 1, "photometric": 0}, 255 - RAMP),
        ((RAMP / 255).astype(np.float32), {"sample_format": 3, "photometric": 0}, 255 - RAMP),
        ((RAMP * 100 - 9000).astype(np.int16), {"sample_format": 2}, RAMP),
    ],
    ids=["unsigned 32 bits", "white is zero", "white is zero, fractions", "signed 16 bits"],
)
def test_what_a_tiff_file_says_of_its_numbers_is_heeded(
    values: NDArray[Any], options: dict[str, int], expected: NDArray[Any], tmp_path: Path
) -> None:
    """Signed or not, and whether 0 is black or white."""
    (tmp_path / "grey.tif").write_bytes(tiff(values, **options))

    np.testing.assert_allclose(seen(tmp_path / "grey.tif")[..., 0], expected, atol=1)


def test_few_glowing_pixels_leave_the_rest_visible(tmp_path: Path) -> None:
    """Radiances of which one in a thousand is a lamp, and some are no numbers."""
    radiance = (RAMP / 100).astype(np.float32)
    radiance[0, :3], radiance[0, 3], radiance[0, 4] = 1e6, np.nan, np.inf
    Image.fromarray(radiance).save(tmp_path / "radiance.tif")

    pixels = seen(tmp_path / "radiance.tif")[..., 0]

    np.testing.assert_allclose(pixels[1:], RAMP[1:], atol=2)
    assert pixels[0, :5].tolist() == [255, 255, 255, 0, 255]


def test_image_without_a_finite_number_is_refused(tmp_path: Path) -> None:
    """There is nothing to see."""
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nothing.tif")

    with pytest.raises(MediaError, match=r"nothing\.tif' cannot be read: it holds no finite number"):
        read_image(tmp_path / "nothing.tif")
