"""Reading an image file as a person sees it: upright, in eight bits a colour, on white."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from iwp_transformers.media.errors import MediaError, quoted, reading
from iwp_transformers.media.grey_levels import WIDE_MODES, to_eight_bits

__all__ = ["as_seen", "check_file", "opened", "read_image", "read_image_bytes"]

# Pixels. A larger image is refused: it would take over two gigabytes.
LARGEST = 2**29
# Pixels. The processors of all supported families shrink images to fewer (Qwen2.5-VL keeps most: 12.8 million).
NEEDED = 2**24


def read_image(path: Path) -> Image.Image:
    """Read an image file as a person sees it.

    Parameters
    ----------
    path : pathlib.Path
        A file of any kind that Pillow knows; of an animation or of several pages, the first is read.

    Returns
    -------
    PIL.Image.Image
        In RGB, as `as_seen` makes it.

    Raises
    ------
    MediaError
        If the file is missing, no image, damaged, or has more than 2**29 pixels.
    """
    with reading(path):
        check_file(path, expected="an image file")
        with opened(path) as image:
            return as_seen(image)


def read_image_bytes(content: bytes, name: Path) -> Image.Image:
    """Read the bytes of an image file as a person sees it.

    Parameters
    ----------
    content : bytes
        A whole file of any kind that Pillow knows.
    name : pathlib.Path
        What messages call it.

    Returns
    -------
    PIL.Image.Image
        As of `read_image`.

    Raises
    ------
    MediaError
        If it is empty, no image, damaged, or has more than 2**29 pixels.
    """
    with reading(name):
        if not content:
            msg = f"{quoted(name)} is empty (0 bytes), expected an image file"
            raise MediaError(msg)
        with opened(name, io.BytesIO(content)) as image:
            return as_seen(image)


def check_file(path: Path, *, expected: str) -> None:
    """Check that a path leads to a file with something in it.

    Parameters
    ----------
    path : pathlib.Path
    expected : str
        What should be there.

    Raises
    ------
    OSError
        If there is nothing, or nothing that may be looked at.
    MediaError
        If it is a folder, a pipe or a device, or empty.
    """
    size = path.stat().st_size
    if path.is_dir():
        msg = f"{quoted(path)} is a folder, expected {expected}"
        raise MediaError(msg)
    if not path.is_file():
        msg = f"{quoted(path)} is a pipe or a device, expected {expected}"
        raise MediaError(msg)
    if size == 0:
        msg = f"{quoted(path)} is empty (0 bytes), expected {expected}"
        raise MediaError(msg)


@contextmanager
def opened(path: Path, content: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """Open an image file under a limit of this program's own, wider than Pillow's.

    Parameters
    ----------
    path : pathlib.Path
    content : binary file, optional
        What the file holds, where it is not on disk.

    Yields
    ------
    PIL.Image.Image
        Not decoded yet.

    Raises
    ------
    MediaError
        If it is no image, or too large.
    """
    before = Image.MAX_IMAGE_PIXELS
    # Pillow warns above its limit and refuses above twice that.
    Image.MAX_IMAGE_PIXELS = LARGEST // 2
    try:
        # From a handle: Pillow maps some TIFF files given by name into memory, and turns those the wrong way.
        with content or path.open("rb") as file, Image.open(file) as image:
            yield image
    except UnidentifiedImageError as error:
        msg = f"{quoted(path)} is not an image that Pillow can read"
        raise MediaError(msg) from error
    except Image.DecompressionBombError as error:
        msg = f"{quoted(path)} has too many pixels, expected at most {LARGEST:,}"
        raise MediaError(msg) from error
    finally:
        Image.MAX_IMAGE_PIXELS = before


def as_seen(image: Image.Image) -> Image.Image:
    """Return an open image as viewers show it.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode, at the frame that is wanted; it is left as it was.

    Returns
    -------
    PIL.Image.Image
        In RGB: turned as its EXIF orientation says, wide grey levels mapped as `to_eight_bits` does, whatever is
        transparent laid over white. One of 2**26 pixels or more is shrunk by a whole factor, to no fewer than 2**24
        pixels or so, from which the model's processor shrinks it further.
    """
    factor = _factor(image)
    # JPEG files can be decoded at an eighth of their size; other formats ignore this.
    image.draft(None, (image.width // factor, image.height // factor))
    image.load()
    seen = _upright(image)
    if image.mode in WIDE_MODES:
        seen = to_eight_bits(seen, getattr(image, "tag_v2", {}), of_format=image.format)
    seen = _opaque(seen)
    factor = _factor(seen)
    return (seen.reduce(factor) if factor > 1 else seen).convert("RGB")


def _factor(image: Image.Image) -> int:
    return max(1, math.isqrt(image.width * image.height // NEEDED))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # Metadata that cannot be read turns nothing; viewers show such a file as it lies.
        return image


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # which Pillow converts to nothing else
        image = image.convert("LA")
    if not image.has_transparency_data:
        # Grey stays grey until it is shrunk, which takes a quarter of the memory.
        return image.convert("L" if image.mode in {"1", "L"} else "RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
