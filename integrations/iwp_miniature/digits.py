"""Real handwritten digits (UCI optical recognition, through scikit-learn) in three disjoint splits."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SIZE", "SPLITS", "DigitBank", "Split", "digit_bank"]

Split = Literal["train", "validation", "test"]
SPLITS: dict[Split, tuple[int, int]] = {"train": (0, 1200), "validation": (1200, 1450), "test": (1450, 1797)}
"""Where each split lies in the shuffled data set."""

SIZE = 16
"""Width and height of a digit in a picture, in pixels; the scans are 8 by 8."""

DISTORTED_COPIES = {"train": 16, "validation": 1, "test": 1}
SHUFFLE_SEED = 20


@dataclass(frozen=True)
class DigitBank:
    """The digits of one split.

    Parameters
    ----------
    masks : tuple of ndarray, each of shape (scans, SIZE, SIZE)
        Opacity of the ink in [0, 1], one array a digit 0..9. Training scans come in several distorted copies.
    """

    masks: tuple[NDArray[np.float32], ...]

    def draw(self, digit: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a random scan of a digit, shape (SIZE, SIZE)."""
        scans = self.masks[digit]
        mask: NDArray[np.float32] = scans[rng.integers(len(scans))]
        return mask


@cache
def digit_bank(split: Split) -> DigitBank:
    """Return the digits of a split.

    Parameters
    ----------
    split : {"train", "validation", "test"}

    Returns
    -------
    DigitBank

    Raises
    ------
    ValueError
        If there is no such split.

    Examples
    --------
    >>> len(digit_bank("test").masks)
    10
    """
    # A heavy import that only drawing needs, without types.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # noqa: PLC0415

    if split not in SPLITS:
        msg = f"`split` is {split!r}, expected one of {', '.join(map(repr, SPLITS))}"
        raise ValueError(msg)
    data = load_digits()
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(data.target))[slice(*SPLITS[split])]
    rng = np.random.default_rng(SHUFFLE_SEED)
    copies = DISTORTED_COPIES[split]
    masks = []
    for digit in range(10):
        scans = data.images[order][data.target[order] == digit] / 16.0
        masks.append(np.stack([_enlarged(scan, rng, distort=copies > 1) for scan in scans for _ in range(copies)]))
    return DigitBank(tuple(masks))


def _enlarged(scan: NDArray[np.float64], rng: np.random.Generator, *, distort: bool) -> NDArray[np.float32]:
    """Enlarge a scan to SIZE, turned, sheared and scaled a little if asked."""
    angle, shear, scale = rng.uniform(-1, 1, 3) * (0.2, 0.15, 0.12) if distort else (0.0, 0.0, 0.0)
    to_scan = np.array([[np.cos(angle), shear - np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / (1 + scale)
    to_scan *= scan.shape[0] / SIZE
    offset = scan.shape[0] / 2 - to_scan @ np.array([SIZE / 2, SIZE / 2])
    coefficients = (*to_scan[0], offset[0], *to_scan[1], offset[1])
    image = Image.fromarray(scan.astype(np.float32))
    enlarged = image.transform((SIZE, SIZE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged, dtype=np.float32), 0.0, 1.0)
