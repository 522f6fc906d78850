"""What right and wrong answers say: accuracies that weigh every kind of question alike, and their standard errors."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwp_miniature import KINDS

__all__ = ["Flags", "Names", "accuracies", "mean_accuracy", "paired_difference", "relative_average"]

Flags = NDArray[np.bool_]
Names = NDArray[np.str_]


def mean_accuracy(right: Flags, kinds: Names) -> tuple[float, float]:
    """Return the mean over kinds of the share of right answers, and its standard error.

    Parameters
    ----------
    right : ndarray of bool, shape (E,)
    kinds : ndarray of str, shape (E,)
        Kind of each question; two of each at least.
    """
    groups = [right[kinds == kind] for kind in np.unique(kinds)]
    variance = sum(group.var(ddof=1) / len(group) for group in groups)
    return float(np.mean([group.mean() for group in groups])), math.sqrt(variance) / len(groups)


def paired_difference(mine: NDArray[Any], other: NDArray[Any]) -> tuple[float, float]:
    """Return how many points more of the same questions one answers than another, and the standard error.

    Parameters
    ----------
    mine, other : ndarray of bool or float, shape (E,)
        Whether each question was answered right, or in what share of the runs; two at least.
    """
    gap = mine.astype(float) - other
    return 100 * float(gap.mean()), 100 * float(gap.std(ddof=1) / math.sqrt(len(gap)))


def relative_average(right: Flags, full: Flags, kinds: Names) -> tuple[float, float] | None:
    """Return the paper's relative average, the mean over kinds of accuracy over that without pruning, and its error.

    Parameters
    ----------
    right, full : ndarray of bool, shape (E,)
        Whether each question was answered right with and without pruning.
    kinds : ndarray of str, shape (E,)
        Kind of each question; two of each at least.

    Returns
    -------
    tuple of float, or None
        Shares, not per cent. The standard error is that of ratios of means of paired answers, to first order. None
        where a kind has no right answer without pruning.
    """
    ratios, variance = [], 0.0
    for kind in np.unique(kinds):
        mine, base = right[kinds == kind].astype(float), full[kinds == kind].astype(float)
        if not base.any():
            return None
        ratio = mine.mean() / base.mean()
        ratios.append(ratio)
        variance += (mine - ratio * base).var(ddof=1) / len(mine) / base.mean() ** 2
    return float(np.mean(ratios)), math.sqrt(variance) / len(ratios)


def accuracies(right: Flags, kinds: Names, styles: Names, *, full: Flags | None = None) -> dict[str, Any]:
    """Return what a result file tells of some answers, in per cent.

    Parameters
    ----------
    right : ndarray of bool, shape (E,)
    kinds, styles : ndarray of str, shape (E,)
        Kind of each question and style of its scene; every kind in every style.
    full : ndarray of bool, shape (E,), optional
        The answers with all tokens.

    Returns
    -------
    dict
        The mean over kinds and its standard error; accuracies by kind and by style; given `full`, the relative average
        and its standard error, if there are any.
    """
    mean, error = mean_accuracy(right, kinds)
    told: dict[str, Any] = {
        "mean": 100 * mean,
        "standard_error": 100 * error,
        "by_kind": {kind: 100 * float(right[kinds == kind].mean()) for kind in KINDS},
    }
    for style in np.unique(styles):
        told[str(style)] = 100 * float(np.mean([right[(styles == style) & (kinds == kind)].mean() for kind in KINDS]))
    relative = None if full is None else relative_average(right, full, kinds)
    if relative is not None:
        told |= {"relative_average": 100 * relative[0], "relative_standard_error": 100 * relative[1]}
    return told
