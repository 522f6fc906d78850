"""What one sample keeps: measured, then chosen by a strategy, for a number of tokens or within a tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from iwp_core._arrays import Array, arange_indices, as_dtype, index_dtype, is_array, namespace
from iwp_core.budget import Tolerance, tokens_to_keep
from iwp_core.comparison import Duplication
from iwp_core.magnitude import log_sample_magnitude
from iwp_core.pooling import log_min_max, pooled
from iwp_core.samples import Sample, Samples
from iwp_core.similarity import Cosine, Gaussian, factors_of
from iwp_core.strategies import MMR, PCMMR, Strategy, TopK
from iwp_core.tolerance import first_within, log_deletion_errors, log_output_errors

__all__ = ["Rule", "chosen_tokens"]

OWN = (PCMMR, MMR, TopK)
"""Strategies whose answers need no check; a subclass of one may choose otherwise."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a choice goes by; the attributes are the arguments of `select_tokens`."""

    strategy: Strategy
    magnitude: str
    similarity: str
    kernel: str
    heads: str | float

    def measured(self, sample: Sample, beside: Sequence[Array] = ()) -> tuple[Array, Duplication]:
        """Return what a strategy is asked with: log magnitude, pooled with what stands `beside`, and duplication."""
        duplication = Duplication(sample.keys, sample.values, sample.hidden, metric=self.similarity, kernel=self.kernel)
        if not beside:
            return self.log_scores(sample, shared=duplication, scaled=True), duplication
        xp = namespace(beside[0])
        return log_min_max(pooled(xp.stack(list(beside)), self.heads)[0, :]), duplication

    def factors(self, samples: Samples) -> tuple[Cosine | Gaussian, ...]:
        """Return the factors of the similarity with the tokens of all samples, (B, H, N, D)."""
        return factors_of(samples.keys, samples.values, samples.hidden, metric=self.similarity, kernel=self.kernel)

    def is_pc_mmr(self, samples: Samples, budget: float | Tolerance) -> bool:
        """Return whether `PCMMR` itself is to choose, by a count or share, fewer tokens than there are."""
        if type(self.strategy) is not PCMMR or isinstance(budget, Tolerance):
            return False
        return tokens_to_keep(budget, samples.count) < samples.count

    def log_scores(self, sample: Sample, *, shared: Duplication | None = None, scaled: bool = False) -> Array:
        """Return the log magnitude of a sample, `scaled` to [0, 1] or up to a factor, as several can be pooled."""
        return log_sample_magnitude(
            sample, metric=self.magnitude, kernel=self.kernel, heads=self.heads, shared=shared, scaled=scaled
        )


def chosen_tokens(
    sample: Sample,
    budget: float | Tolerance,
    rule: Rule,
    *,
    check: bool,
    scores: Sequence[Array] = (),
    bounded: Sample | None = None,
) -> Array:
    """Return the ascending positions that a sample keeps.

    Parameters
    ----------
    sample : Sample
    budget : int, float or Tolerance
    rule : Rule
    check : bool
        Whether the answer of a strategy is checked.
    scores : sequence of array (N,), optional
        Of `Rule.log_scores`: pooled, they are the magnitude in place of the sample's own.
    bounded : Sample, optional
        The same tokens with the queries and keys that a `Tolerance` reads. Default: `sample`.
    """
    count = 0 if isinstance(budget, Tolerance) else tokens_to_keep(budget, sample.count)
    if count == sample.count:
        return arange_indices(count, sample.keys)
    log_scores, duplication = rule.measured(sample, scores)
    if not isinstance(budget, Tolerance):
        check = check and type(rule.strategy) not in OWN
        return _ascending(rule.strategy.select(log_scores, duplication, count), log_scores, count, check=check)

    def first(count: int) -> Array:
        chosen = rule.strategy.order(log_scores, duplication, count)  # type: ignore[attr-defined]  # was checked
        _ascending(chosen, log_scores, count, check=check)
        return as_dtype(chosen, arange_indices(0, log_scores).dtype)

    log_errors = partial(log_output_errors, bounded or sample)
    if budget.bound == "deletion":
        log_errors = partial(log_deletion_errors, sample, kernel=rule.kernel)
    return namespace(log_scores).sort(first_within(budget, first, log_errors, sample.count))


def _ascending(chosen: Array, like: Array, count: int, *, check: bool) -> Array:
    """Return a strategy's answer in ascending order, as indices.

    Raises
    ------
    TypeError
        If it is no integer array of the library of the tokens.
    ValueError
        If it is no set of `count` positions.
    """
    xp = namespace(like)
    total = like.shape[0]
    if not is_array(chosen) or namespace(chosen) is not xp or not xp.isdtype(chosen.dtype, "integral"):
        msg = f"`strategy` returned {type(chosen).__name__}, expected an integer array of {xp.__name__}"
        raise TypeError(msg)
    if tuple(chosen.shape) != (count,):
        msg = f"`strategy` returned shape {tuple(chosen.shape)}, expected ({count},)"
        raise ValueError(msg)
    kept = as_dtype(xp.sort(chosen), index_dtype(xp, like))
    # One question, as a device may have to be waited for with each.
    if check and ((kept[0] < 0) | (kept[-1] >= total) | xp.any(kept[1:] == kept[:-1])):
        msg = f"`strategy` returned repeated or foreign positions, expected {count} distinct ones from 0 to {total - 1}"
        raise ValueError(msg)
    return kept
