"""Grey images of more than eight bits: which of their values is black, and which is white."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffTags import TAGS_V2

__all__ = ["WIDE_MODES", "to_eight_bits"]

WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
# Percent of the pixels that may be lost at both ends together where an image says nothing of its range; ImageJ's.
SATURATED = 0.35
_TAGS = {tag.name: number for number, tag in TAGS_V2.items()}


def to_eight_bits(image: Image.Image, tags: Mapping[int, Any], *, of_format: str | None) -> Image.Image:
    """Map a grey image of wide numbers to eight bits.

    Parameters
    ----------
    image : PIL.Image.Image
        Of one of `WIDE_MODES`.
    tags : mapping
        Tags of a TIFF file, empty for other files.
    of_format : str or None
        Pillow's name of the file's format.

    Returns
    -------
    PIL.Image.Image
        Of mode L. Integers of up to 16 bits: 0 is black and the largest number of so many bits white, as viewers show
        them. Floats that all lie in [0, 1]: 0 is black and 1 white. Anything else, such as 32-bit integers, measured
        heights or radiances, says nothing of its range: the smallest value is black and the largest white, but for the
        0.35 % of the pixels that lie furthest out. What is no number is black. A TIFF file may say that its 0 is white.

    Raises
    ------
    ValueError
        If no value is finite.

    Examples
    --------
    >>> ramp = Image.fromarray(np.array([[0.0, 0.25, 1.0]], dtype=np.float32))
    >>> np.asarray(to_eight_bits(ramp, {}, of_format=None)).tolist()
    [[0, 64, 255]]
    """
    values = np.asarray(image)
    if image.mode == "I" and _first(tags, "SampleFormat") == 1:
        values = values.view(np.uint32)  # Pillow keeps the bits of unsigned numbers in signed ones
    low, high = _range(image.mode, values, _bits(image.mode, tags, of_format))
    if _first(tags, "PhotometricInterpretation") == 0:
        low, high = high, low
    wide = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=max(low, high), neginf=min(low, high))
    shares = (wide - low) / (high - low) if high != low else np.full_like(wide, 0.5)
    return Image.fromarray(np.round(255 * np.clip(shares, 0.0, 1.0)).astype(np.uint8))


def _bits(mode: str, tags: Mapping[int, Any], of_format: str | None) -> int | None:
    if mode.startswith("I;16"):
        return int(_first(tags, "BitsPerSample") or 16)
    # Pillow stretches a portable grey map of any depth to 16 bits, and holds them in 32.
    return 16 if mode == "I" and of_format == "PPM" else None


def _range(mode: str, values: NDArray[Any], bits: int | None) -> tuple[float, float]:
    if bits is not None:
        return 0.0, float(2**bits - 1)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        msg = "it holds no finite number"
        raise ValueError(msg)
    smallest, largest = float(finite.min()), float(finite.max())
    if mode == "F" and smallest >= 0.0 and largest <= 1.0:
        return 0.0, 1.0
    ends = np.percentile(finite, [SATURATED / 2, 100 - SATURATED / 2], method="nearest")
    low, high = map(float, ends)
    return (low, high) if low < high else (smallest, largest)


def _first(tags: Mapping[int, Any], name: str) -> Any:
    value = tags.get(_TAGS[name])
    return value[0] if isinstance(value, tuple) else value
