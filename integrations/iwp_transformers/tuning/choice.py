"""From samples on which each setting agrees with the unpruned model to one setting, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

__all__ = ["Aim", "Certainty", "certainty_of", "cheapest_within", "confidence_within", "front"]

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What is wanted of a setting.

    Attributes
    ----------
    cost : str
        What has to be little: "time" an answer, or "flops" of the prompt.
    tolerance : float
        Share of answers that may differ, in (0, 1).
    confidence : float
        How sure that has to be, in [0, 1).
    """

    cost: str
    tolerance: float
    confidence: float

    def most_disagreements(self, samples: int) -> int:
        """Return how many answers may differ for the confidence to be reached; 0 where it cannot be."""
        count = 0
        while count < samples and confidence_within(samples, count + 1, self.tolerance) >= self.confidence:
            count += 1
        return count


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How sure a choice is.

    Attributes
    ----------
    confidence : float
        Of the exact binomial test that agreement is within the tolerance, in [0, 1].
    interval : tuple of float
        Agreement in the middle 95 % of the resamples of the paired bootstrap.
    within : float
        Share of the resamples in which it is within the tolerance.
    chosen_again : float
        Share of the resamples from which the same setting would have been chosen.
    """

    confidence: float
    interval: tuple[float, float]
    within: float
    chosen_again: float


def confidence_within(samples: int, disagreements: int, tolerance: float) -> float:
    """Return how sure it is that fewer than a share of all answers differ, by the exact binomial test.

    Parameters
    ----------
    samples, disagreements : int
        How many were seen, and how many of them differ.
    tolerance : float
        The share, in (0, 1).

    Returns
    -------
    float
        One minus the probability of so few differing answers, or fewer, if just that share of all differed.

    Examples
    --------
    >>> round(confidence_within(200, 1, 0.02), 3)
    0.911
    """
    terms = (
        comb(samples, count) * tolerance**count * (1 - tolerance) ** (samples - count)
        for count in range(disagreements + 1)
    )
    return max(0.0, 1.0 - sum(terms))


def cheapest_within(agreed: Flags, order: Sequence[int], aim: Aim) -> int | None:
    """Return the first setting that is sure enough to be within the tolerance.

    Parameters
    ----------
    agreed : ndarray of bool, shape (samples, settings)
        Which answers are those of the unpruned model.
    order : sequence of int
        Columns of the settings, the cheapest first.
    aim : Aim
        What is wanted. With fewer samples than that takes, no answer may differ.

    Returns
    -------
    int or None
        Column of the setting; None if none is.
    """
    allowed = aim.most_disagreements(len(agreed))
    fit = (~agreed).sum(0) <= allowed
    return next((int(column) for column in order if fit[column]), None)


def certainty_of(agreed: Flags, order: Sequence[int], chosen: int, aim: Aim, *, seed: int) -> Certainty:
    """Return how sure a choice is, by the exact test and by the paired bootstrap over samples.

    Parameters
    ----------
    agreed, order, aim
        As given to `cheapest_within`.
    chosen : int
        Column of the setting.
    seed : int
        Draws the resamples, each of all samples with replacement, the same for all settings.
    """
    rng, samples = np.random.default_rng(seed), len(agreed)
    counts = rng.multinomial(samples, np.full(samples, 1 / samples), size=RESAMPLES)
    differing = counts @ (~agreed).astype(np.int64)
    shares = 1 - differing[:, chosen] / samples
    low, high = np.quantile(shares, (0.025, 0.975))
    fit = (differing <= aim.most_disagreements(samples))[:, np.array(order)]
    again = fit.any(1) & (fit.argmax(1) == list(order).index(chosen))
    return Certainty(
        confidence=confidence_within(samples, int((~agreed[:, chosen]).sum()), aim.tolerance),
        interval=(float(low), float(high)),
        within=float((differing[:, chosen] <= aim.tolerance * samples).mean()),
        chosen_again=float(again.mean()),
    )


def front(agreement: Floats, seconds: Floats) -> list[int]:
    """Return the settings that no other beats in both, from the fastest to the one that agrees most.

    Examples
    --------
    >>> front(np.array([0.5, 0.9, 0.7]), np.array([1.0, 2.0, 3.0]))
    [0, 1]
    """
    best, found = -np.inf, []
    for index in sorted(range(len(seconds)), key=lambda each: (seconds[each], -agreement[each])):
        if agreement[index] > best:
            best = agreement[index]
            found.append(index)
    return found
