"""What a row may hold in place of a path, and how it says no."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from iwp_ray.rows import Row, read_row

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def png() -> bytes:
    """Bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def read(folder: Path, **content: Any) -> Row:
    """Read a row with a prompt of its own."""
    return read_row({"id": 7, "prompt": "this", **content}, prompt=None, root=folder, frames=2)


@pytest.mark.parametrize(
    "value",
    [
        lambda folder: "a.png",
        lambda folder: str(folder / "a.png"),
        lambda folder: png(),
        lambda folder: {"bytes": png(), "path": None},
        lambda folder: {"bytes": None, "path": "a.png"},
        lambda folder: PIXELS,
        lambda folder: ["a.png"],
    ],
    ids=["relative path", "whole path", "bytes", "mapping of bytes", "mapping of a path", "array", "list"],
)
def test_image_is_read_from_whatever_holds_it(value: Callable[[Path], Any], tmp_path: Path) -> None:
    """The same pixels each time."""
    (tmp_path / "a.png").write_bytes(png())

    row = read(tmp_path, image=value(tmp_path))

    assert row.error is None
    assert row.media is not None
    ((_, image),) = row.media.images
    assert np.array_equal(np.asarray(image), PIXELS)


def test_arrays_with_and_without_colours_are_read_as_files_are(tmp_path: Path) -> None:
    """What is transparent lies on white; grey levels are grey."""
    clear = np.dstack([PIXELS, np.asarray([[0, 255, 255], [255, 255, 0]], np.uint8)])
    on_white = np.where(clear[..., 3:] == 0, 255, PIXELS)
    grey = PIXELS[..., 0]

    for value, expected in ((clear, on_white), (grey, np.dstack([grey] * 3))):
        row = read(tmp_path, image=value)

        assert row.media is not None, row.error
        ((_, image),) = row.media.images
        assert np.array_equal(np.asarray(image), expected)


def test_video_is_read_from_arrays_and_from_bytes(tmp_path: Path) -> None:
    """First and last of three frames, where two are asked for."""
    frames = np.stack([PIXELS, PIXELS + 50, PIXELS + 100])
    buffer = io.BytesIO()
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])

    for value in (frames, buffer.getvalue()):
        row = read(tmp_path, video=value)

        assert row.media is not None, row.error
        ((_, video),) = row.media.videos
        assert np.array_equal(video.frames, frames[[0, 2]])


def test_prompt_of_a_row_goes_before_the_one_of_all_rows(tmp_path: Path) -> None:
    """Which stands in where there is none."""
    content = {"id": 7, "image": png()}

    prompts = [
        read_row({**content, "prompt": own}, prompt="all", root=tmp_path, frames=2).prompt for own in ("own", None)
    ]

    assert prompts == ["own", "all"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image": 3.5}, "`image` is a float, expected a path, the bytes of a file, or an array of bytes"),
        ({"image": PIXELS.astype(float)}, "`image` is float64 (2, 3, 3), expected a path"),
        ({"image": PIXELS[..., :2]}, "`image` is uint8 (2, 3, 2), expected a path"),
        ({"image": PIXELS[:0]}, "`image` is uint8 (0, 3, 3), expected a path"),
        ({"image": {"url": "a.png"}}, "`image` is a NoneType, expected a path"),
        ({"image": png(), "id": None}, "the row's `id` is null, expected an integer or text"),
        ({"image": b""}, "'image of row 7' is empty (0 bytes), expected an image file"),
        ({"image": b"no image"}, "'image of row 7' is not an image that Pillow can read"),
        ({"image": {"bytes": None, "path": None}}, "`image` is a NoneType, expected a path"),
        ({"video": PIXELS}, "'video of row 7' holds uint8 (2, 3, 3), expected uint8 of shape (frames, height"),
        ({"image": png(), "prompt": 5}, "`prompt` is no text"),
        ({}, "the row holds neither `image` nor `video`, expected one of them"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The row is left without pictures, and nothing is raised."""
    row = read(tmp_path, **content)

    assert row.media is None
    assert row.error is not None
    assert row.error.startswith(message)
