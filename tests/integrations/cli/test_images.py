"""Images of every kind, read as a person sees them; expected pixels are computed by hand with NumPy."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from iwp_transformers.media import images as module
from iwp_transformers.media.errors import MediaError
from iwp_transformers.media.images import read_image
from tests.integrations.processors import coordinate_picture

ORIENTATION = 0x0112
RAMP = np.linspace(0, 255, 64 * 48).reshape(48, 64)
# What each EXIF orientation says to do with the pixels as they are stored.
TURNS: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


def seen(path: Path) -> NDArray[np.uint8]:
    """Pixels as the command reads them."""
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_image_is_turned_as_its_exif_orientation_says(orientation: int, ending: str, tmp_path: Path) -> None:
    """All eight orientations; JPEG changes the pixels a little, the others do not."""
    stored, path = coordinate_picture(48, 64, 0.5), tmp_path / f"photograph.{ending}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(path, exif=exif, quality=95)

    expected = TURNS[orientation](np.asarray(stored)).astype(int)

    assert np.abs(seen(path) - expected).max() <= (8 if ending == "jpg" else 0)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(
    "values", [RAMP.astype(np.uint8), (RAMP * 257).astype(np.uint16), RAMP.astype(np.int32)], ids=["8", "16", "32"]
)
def test_grey_image_of_any_width_is_turned_too(values: NDArray[Any], ending: str, tmp_path: Path) -> None:
    """A grey photograph with an orientation is mapped and turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    if (values.dtype, ending) == (np.int32, "png"):
        pytest.skip("PNG has no 32-bit images")
    Image.fromarray(values).save(tmp_path / f"photograph.{ending}", exif=exif)

    np.testing.assert_allclose(seen(tmp_path / f"photograph.{ending}")[..., 0], np.rot90(RAMP, -1), atol=1)


def test_orientation_that_cannot_be_read_turns_nothing(tmp_path: Path) -> None:
    """Damaged metadata is no reason to refuse the pixels."""
    picture = coordinate_picture(48, 64)
    picture.save(tmp_path / "photograph.png", exif=b"Exif\0\0no TIFF header")

    np.testing.assert_array_equal(seen(tmp_path / "photograph.png"), np.asarray(picture))


def on_white(colour: float, alpha: int) -> float:
    """Colour of a half-transparent pixel over white."""
    return (alpha * colour + (255 - alpha) * 255) / 255


@pytest.mark.parametrize("alpha", [0, 100, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparent_pixels_lie_on_white(mode: str, alpha: int, tmp_path: Path) -> None:
    """Grey, coloured, and of a palette."""
    image = Image.new(mode, (3, 2), {"LA": (40, alpha), "RGBA": (40, 40, 40, alpha), "PA": (1, alpha)}[mode])
    if mode == "PA":
        image.putpalette([0, 0, 0, 40, 40, 40])
    image.save(tmp_path / f"clear.{'tif' if mode == 'PA' else 'png'}")

    pixels = seen(tmp_path / f"clear.{'tif' if mode == 'PA' else 'png'}")

    np.testing.assert_allclose(pixels, on_white(40, alpha), atol=1)


def test_premultiplied_grey_lies_on_white_too() -> None:
    """Pillow converts this mode to nothing but the plain one."""
    image = Image.new("LA", (3, 2), (40, 100)).convert("La")

    np.testing.assert_allclose(np.asarray(module.as_seen(image)), on_white(40, 100), atol=2)


def test_palette_of_several_opacities_lies_on_white(tmp_path: Path) -> None:
    """A palette's table of opacities counts entry by entry."""
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 40, 40, 40, 200, 200, 200])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "clear.png", transparency=bytes([255, 100, 0]))

    pixels = seen(tmp_path / "clear.png")

    np.testing.assert_allclose(pixels[0, :, 0], [0, on_white(40, 100), 255], atol=1)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_wide_print_colours_are_shrunk_and_stay_the_colours(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CMYK page larger than a model sees."""
    monkeypatch.setattr(module, "NEEDED", 16 * 16)
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / f"page.{ending}")

    pixels = seen(tmp_path / f"page.{ending}")

    assert pixels.shape == (16, 16, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to((255, 0, 0), pixels.shape), atol=3)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colour_lies_on_white(mode: str, tmp_path: Path) -> None:
    """One colour or palette entry is named as transparent; it is white, and others are what they are."""
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), {"P": 1, "L": 90, "RGB": (200, 100, 50)}[mode])
    image.save(tmp_path / "clear.png", transparency={"P": 1, "L": 90, "RGB": (200, 100, 50)}[mode])

    pixels = seen(tmp_path / "clear.png")

    assert pixels[0].tolist() == [[10, 20, 30] if mode == "P" else [0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("mode", "colour", "ending", "expected"),
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "jpg", (255, 0, 0)),
        ("YCbCr", (76, 85, 255), "tif", (255, 0, 0)),
        ("LAB", (255, 128, 128), "tif", (255, 255, 255)),
    ],
)
def test_other_colour_models_become_red_green_and_blue(
    mode: str, colour: Any, ending: str, expected: tuple[int, int, int], tmp_path: Path
) -> None:
    """Black and white, grey, print colours, and those of video and of measurement."""
    if mode == "LAB" and not features.check("littlecms2"):
        pytest.skip("Pillow was built without LittleCMS, which converts Lab colours")
    Image.new(mode, (8, 8), colour).save(tmp_path / f"plain.{ending}")

    np.testing.assert_allclose(seen(tmp_path / f"plain.{ending}"), np.broadcast_to(expected, (8, 8, 3)), atol=3)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_picture_is_read(ending: str, tmp_path: Path) -> None:
    """Animations and pages are images too."""
    first, *rest = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    first.save(tmp_path / f"moving.{ending}", save_all=True, append_images=rest, lossless=True)

    np.testing.assert_array_equal(seen(tmp_path / f"moving.{ending}"), np.broadcast_to([255, 0, 0], (8, 8, 3)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "I", "F"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_image_larger_than_any_model_sees_is_shrunk(
    mode: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pixel is the mean of a square, and the image still has as many as are needed."""
    monkeypatch.setattr(module, "NEEDED", 24 * 30)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    white = Image.new(mode, (120, 96), {"F": 1.0, "I;16": 65535}.get(mode, "white" if mode[0] != "I" else 5))
    white.save(tmp_path / "large.tif", exif=exif)

    image = read_image(tmp_path / "large.tif")

    assert image.size == ((30, 24) if orientation == 1 else (24, 30))
    assert np.unique(np.asarray(image)).tolist() == [128 if mode == "I" else 255]


def test_large_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG file gives its eighth without making the whole, which would have to be shrunk, and looks the same."""
    monkeypatch.setattr(module, "NEEDED", 24 * 32)
    monkeypatch.delattr(Image.Image, "reduce")
    coordinate_picture(192, 256).save(tmp_path / "large.jpg", quality=95)

    pixels = seen(tmp_path / "large.jpg").astype(int)

    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels - np.asarray(coordinate_picture(24, 32))).max() <= 8


@pytest.mark.parametrize("size", [(100_000, 100_000), (2**15, 2**14 + 1)], ids=["far more", "one row more"])
def test_image_of_more_pixels_than_fit_is_refused_before_it_is_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    """A few bytes that announce billions of pixels; the limit is named."""
    path = tmp_path / "bomb.png"
    Image.new("1", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)

    with pytest.raises(MediaError, match=r"bomb\.png' has too many pixels, expected at most 536,870,912"):
        read_image(path)


def test_reading_leaves_pillows_limit_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports this keeps Pillow's protection, after an error too."""
    before = 123_456_789
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", before)
    Image.new("RGB", (8, 8)).save(tmp_path / "fine.png")
    (tmp_path / "bad.png").write_bytes(b"no image")

    read_image(tmp_path / "fine.png")
    with pytest.raises(MediaError):
        read_image(tmp_path / "bad.png")

    assert before == Image.MAX_IMAGE_PIXELS


def encoded(ending: str) -> bytes:
    """Image file as bytes."""
    buffer = io.BytesIO()
    coordinate_picture(64, 64).save(buffer, ending)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\), expected an image file"),
        (b"no image", r"is not an image that Pillow can read"),
        (encoded("png")[:100], r"cannot be read: image file is truncated"),
        (encoded("jpeg")[:-300], r"cannot be read: image file is truncated"),
        (encoded("gif")[:20], r"is not an image that Pillow can read|cannot be read"),
        (encoded("png")[:60] + b"\xff" * 40 + encoded("png")[100:], r"cannot be read: broken PNG file|cannot be read"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "cut GIF", "damaged PNG"],
)
def test_file_that_is_no_whole_image_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """The file is named, with what is wrong."""
    (tmp_path / "file.png").write_bytes(content)

    with pytest.raises(MediaError, match=r"^'.*file\.png' (" + message + ")"):
        read_image(tmp_path / "file.png")


def test_folder_or_pipe_is_refused_as_an_image(tmp_path: Path) -> None:
    """A pipe would be waited for forever."""
    os.mkfifo(tmp_path / "pipe.png")

    with pytest.raises(MediaError, match="is a folder, expected an image file"):
        read_image(tmp_path)
    with pytest.raises(MediaError, match="is a pipe or a device, expected an image file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0.png", "file.png/inside.png"])
def test_path_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    """Too long, not allowed, or through a file."""
    (tmp_path / "file.png").touch()

    with pytest.raises(MediaError, match="cannot be read"):
        read_image(tmp_path / name)


def test_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason is passed on; made here by hand, since tests may run as one who may read all."""
    path = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(path)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", deny)

    with pytest.raises(MediaError, match=r"secret\.png' cannot be read: Permission denied"):
        read_image(path)
