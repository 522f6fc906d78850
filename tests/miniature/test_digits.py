"""The digits of the three splits, against the rows of scikit-learn's data set."""

from typing import get_args

import numpy as np
import pytest
import sklearn.datasets
from sklearn.utils import Bunch

from iwp_miniature.digits import DigitBank, Split, digit_bank

SPLITS: tuple[Split, ...] = get_args(Split)
splits = pytest.mark.parametrize("split", SPLITS)


@pytest.fixture(scope="module")
def rows() -> dict[Split, list[np.ndarray]]:
    """For each split and digit the rows of the data set that its masks were made from.

    Found by making banks from a data set whose scans are uniform, each of a grey of its own, in the same order.
    """
    genuine = sklearn.datasets.load_digits()
    count = len(genuine.target)
    greys = np.broadcast_to(16.0 * np.arange(count)[:, None, None] / count, (count, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, "load_digits", lambda: Bunch(images=greys, target=genuine.target))
        banks = {split: digit_bank.__wrapped__(split) for split in SPLITS}
    return {
        split: [np.rint(masks[:, 8, 8] * count).astype(int) for masks in bank.masks] for split, bank in banks.items()
    }


def test_no_scan_is_in_two_splits(rows: dict[Split, list[np.ndarray]]) -> None:
    """Training, validation and test share no row of the data set, and leave none out."""
    used = {split: set(np.concatenate(rows[split]).tolist()) for split in SPLITS}

    assert sum(map(len, used.values())) == 1797
    assert set.union(*used.values()) == set(range(1797))


@splits
def test_every_digit_is_in_every_split(split: Split, rows: dict[Split, list[np.ndarray]]) -> None:
    """Ten digits of at least 15 scans each, every scan under its own label."""
    labels = sklearn.datasets.load_digits().target

    for digit, used in enumerate(rows[split]):
        assert len(set(used.tolist())) >= 15
        assert set(labels[used].tolist()) == {digit}


@splits
def test_masks_are_opacities(split: Split) -> None:
    """Numbers in [0, 1], clear and opaque ones both, 16 by 16."""
    for masks in digit_bank(split).masks:
        assert masks.shape[1:] == (16, 16)
        assert masks.dtype == np.float32
        assert masks.min() == 0.0
        assert 0.95 < masks.max() <= 1.0


@pytest.mark.parametrize(("split", "least"), [("train", 0.5), ("validation", 0.95), ("test", 0.95)])
def test_masks_look_like_their_scans(split: Split, least: float, rows: dict[Split, list[np.ndarray]]) -> None:
    """Shrunk back to 8 by 8 they correlate with the row that they come from: upright, in place, barely distorted."""
    scans = sklearn.datasets.load_digits().images

    for masks, used in zip(digit_bank(split).masks, rows[split], strict=True):
        shrunk = masks.reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4)).reshape(-1, 64)
        likeness = [np.corrcoef(a, scan.ravel())[0, 1] for a, scan in zip(shrunk, scans[used], strict=True)]
        assert min(likeness) > least


def test_training_scans_come_in_copies_that_differ(rows: dict[Split, list[np.ndarray]]) -> None:
    """Each row of the training split is distorted in 16 ways; those of the others are there once, as they are."""
    for masks, used in zip(digit_bank("train").masks, rows["train"], strict=True):
        assert set(np.unique(used, return_counts=True)[1].tolist()) == {16}
        assert len(np.unique(masks.reshape(len(masks), -1), axis=0)) == len(masks)
    for split in ("validation", "test"):
        assert all(len(set(used.tolist())) == len(used) for used in rows[split])


def test_a_draw_is_any_scan_of_its_digit() -> None:
    """Of three masks of a digit each is drawn, and none of another digit."""
    masks = tuple(
        np.full((3, 16, 16), digit / 10, np.float32) + np.arange(3)[:, None, None] / 100 for digit in range(4)
    )
    bank = DigitBank(tuple(mask.astype(np.float32) for mask in masks))
    rng = np.random.default_rng(0)

    drawn = {round(float(bank.draw(2, rng)[0, 0]), 3) for _ in range(60)}

    assert drawn == {0.2, 0.21, 0.22}


def test_an_unknown_split_is_named_with_the_known() -> None:
    """`split`, what it was, what is allowed."""
    with pytest.raises(ValueError, match=r"`split` is 'dev', expected one of 'train', 'validation', 'test'"):
        digit_bank("dev")  # type: ignore[arg-type]
