"""`select_tokens`: check, score, choose."""

from iwp_core._arrays import Array, namespace
from iwp_core._plugins import backend_context, is_traced, overridable
from iwp_core._validate import KERNELS, check_flag, check_heads, check_name
from iwp_core.budget import Tolerance, check_budget, tokens_to_keep
from iwp_core.choice import Rule, chosen_tokens
from iwp_core.duplication import SIMILARITIES, check_hidden_given
from iwp_core.magnitude import MAGNITUDES, check_query_given
from iwp_core.pooling import check_pooling
from iwp_core.samples import Sample, Samples, check_tokens
from iwp_core.strategies import PCMMR, Strategy
from iwp_core.tolerance import check_tolerance

__all__ = ["check_traced", "select_batch", "select_tokens"]


def select_tokens(
    keys: Array,
    values: Array,
    queries: Array | None,
    budget: float | Tolerance,
    *,
    magnitude_keys: Array | None = None,
    strategy: Strategy = PCMMR(),  # noqa: B008 - frozen, so one default instance is safe
    magnitude: str = "dual",
    similarity: str = "dual",
    hidden: Array | None = None,
    kernel: str = "exponential",
    heads: str | float = "mean",
    mask: Array | None = None,
    context: Array | None = None,
    validate: bool = True,
) -> Array:
    """Choose the visual tokens whose updates of the implicit attention weight carry most and repeat least.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
        Keys as the attention compares them (with rotary embedding); read for duplication. Leading axes are
        batches. (N, D) means one head.
    values : array, shape (..., H, N, Dv)
        Values; (N, Dv) for keys (N, D).
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        One aggregated query a head, or T queries that are averaged (but see `heads`); Hq is a multiple of H. (D,) or
        (T, D) for keys (N, D). None is allowed where `magnitude` reads no query.
    budget : int, float or Tolerance
        Tokens to keep: an int >= 1 is a count (above N: all), a float in (0, 1] a share,
        max(1, floor(budget * N + 0.5)). With `mask`, N counts a sample's real tokens. A `Tolerance` keeps as few tokens
        as an error allows, of each sample its own number.
    magnitude_keys : array, shape of `keys`, optional
        Keys without rotary embedding, read for magnitude. Default: `keys`.
    strategy : Strategy, default PCMMR()
        How tokens are chosen: `PCMMR`, `MMR`, `TopK` or an object of your own.
    magnitude : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Metric of what a token carries (table 1).
    similarity : {"dual", "value", "hidden", "key", "kernel_key"}
        Metric of what two tokens share (table 3).
    hidden : array, shape (..., N, E), optional
        Hidden states, needed by ``similarity="hidden"`` only.
    kernel : {"exponential", "linear"}
        Softmax attention, or linear attention (section E.8).
    heads : {"mean", "softmax_mean", "softmax_mean_per_query", "max"} or float, default "mean"
        How heads are pooled in the magnitude.

        - "mean" is the paper's: the plain mean over heads of the averaged query's scores.
        - "softmax_mean" (ours, like all that follow) divides each head's scores by their sum over the tokens first.
        - "softmax_mean_per_query" does so for each of the T queries: none is averaged, each scores as if it had heads
          of its own, which takes T times the work.
        - "max" and a number p >= 1 take of each token the largest, or the power mean of exponent p, over all heads and
          queries, of what it adds to that query's output: its softmax share among all that the query sees (see
          `context`), times the norm of its value for the metric "dual". Queries are not averaged either.
    mask : array of bool, shape (..., N), optional
        True for real tokens. The others are never kept and count for nothing; what stands in their places is not read.
    context : array, shape (..., Hq, T), optional
        For `heads` "max" or p, or a `Tolerance` of outputs: the log-sum-exp of each query's scaled logits
        (q.k / sqrt(D)) over all that it sees outside of the candidates, such as text and attention sinks; -inf for
        nothing, which is the default.
    validate : bool, default True
        False skips the checks that read data (finiteness, the answer of a strategy of your own), for hot paths, and
        where a program is traced (`jax.jit`, `jax.vmap` and their kin), which a backend may serve.

    Returns
    -------
    array of int64, shape (..., M)
        Positions kept, ascending and distinct, in the library and on the device of `keys`. (JAX without 64-bit
        support returns its int32.) Where samples keep different numbers of tokens, M is the largest, and shorter rows
        are filled at the end with -1: ``(indices >= 0).sum(-1)`` counts.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind; if a needed array
        is missing; if `budget` is no real number, `heads` neither a name nor a number, or `validate` no bool; if
        `strategy` has no `select`.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, a name is unknown, `budget` or `heads` is outside
        its range, a row of `mask` has no real token, `heads` does not go with `queries` or `context`, or a `Tolerance`
        of outputs with `kernel`; if `validate` is True while a program is traced.
    NotImplementedError
        While a program is traced: for a `Tolerance`, a share with a `mask`, or a strategy of your own.

    Notes
    -----
    Ties go to the lower position. Computes in float32, or in float64 for float64 inputs. Memory beside the inputs: one
    sample's keys once more in that dtype (with `mask` its real tokens), and O(N). Each sample of a batch gets the
    answer of its own call.

    References
    ----------
    "Token pruning as implicit weight pruning", arXiv 2604.00757: equation 10 (magnitude), equation 12 squared
    (duplication), algorithm 1 (PC-MMR).

    Examples
    --------
    Five tokens: the second is a copy of the first, the last carries little. Both go.

    >>> import numpy as np
    >>> keys = np.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]])
    >>> values = np.asarray([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.1, 0.0]])
    >>> select_tokens(keys, values, np.asarray([1.0, 0.5]), 3, strategy=PCMMR(chunk=1))
    array([0, 2, 3])
    """
    given = (keys, values, queries, magnitude_keys, hidden, context, mask)
    traced = any(array is not None and is_traced(array) for array in given)
    if traced:
        check_traced(budget, mask, validate=validate)
    within = isinstance(budget, Tolerance)
    if isinstance(budget, Tolerance):
        check_tolerance(budget, queries, kernel)
    else:
        check_budget(budget)
    _check_rule(strategy, magnitude, similarity, kernel, heads, nested=within)
    check_flag("validate", validate)
    check_query_given(queries, magnitude)
    check_hidden_given(hidden, similarity)
    samples = check_tokens(
        keys,
        values,
        queries,
        magnitude_keys=magnitude_keys,
        hidden=hidden,
        context=context,
        mask=mask,
        finite=validate,
        known=not traced,
    )
    bounded = isinstance(budget, Tolerance) and budget.bound == "output"
    if isinstance(budget, Tolerance) or tokens_to_keep(budget, samples.count) < samples.count:  # else no query is read
        check_pooling(keys, queries, context, metric=magnitude, heads=heads, bounded=bounded)
    rule = Rule(strategy=strategy, magnitude=magnitude, similarity=similarity, kernel=kernel, heads=heads)
    with backend_context(keys):
        return select_batch(samples.keys, samples, budget, rule, check=validate)


@overridable
def select_batch(keys: Array, samples: Samples, budget: float | Tolerance, rule: Rule, *, check: bool) -> Array:  # noqa: ARG001 - finds the backend
    """Return what `select_tokens` returns, for checked arrays.

    Parameters
    ----------
    keys : array, shape (B, H, N, D)
        Those of `samples`.
    samples : Samples
    budget : int, float or Tolerance
    rule : Rule
    check : bool
        Whether the answer of a strategy is checked.
    """
    return samples.join_ragged([
        _original(chosen_tokens(sample, budget, rule, check=check), sample) for sample in samples
    ])


def _check_rule(
    strategy: Strategy, magnitude: str, similarity: str, kernel: str, heads: str | float, *, nested: bool
) -> None:
    """Check what a choice goes by.

    Raises
    ------
    TypeError
        If `strategy` has no `select`, or (where choices have to be `nested`) no `order`.
    ValueError
        If a name is unknown.
    """
    check_name("magnitude", magnitude, MAGNITUDES)
    check_name("similarity", similarity, SIMILARITIES)
    check_name("kernel", kernel, KERNELS)
    check_heads(heads)
    if isinstance(strategy, type) or getattr(strategy, "select", None) is None:
        msg = f"`strategy` is {strategy!r}, expected an object with `select`, such as PCMMR(), MMR() or TopK()"
        raise TypeError(msg)
    if nested and getattr(strategy, "order", None) is None:
        msg = (
            f"`strategy` is {strategy!r}, expected an object with `order`, such as PCMMR(), MMR() or TopK():"
            " a Tolerance keeps the first tokens of an order"
        )
        raise TypeError(msg)


def check_traced(budget: object, mask: Array | None, *, validate: object) -> None:
    """Check that nothing about an answer's shape depends on numbers that are not known while a program is traced.

    Raises
    ------
    NotImplementedError
        If the budget would have to be counted.
    ValueError
        If data is to be checked.
    """
    if isinstance(budget, Tolerance) or (mask is not None and isinstance(budget, float)):
        what = f"`budget` is {budget!r}" + ("" if isinstance(budget, Tolerance) else " with a `mask`")
        msg = f"{what}, expected a count: while a program is traced, numbers cannot say how many tokens are kept"
        raise NotImplementedError(msg)
    if validate is True:
        msg = "`validate` is True, expected False: while a program is traced, no number can be looked at"
        raise ValueError(msg)


def _original(kept: Array, sample: Sample) -> Array:
    """Return positions among real tokens as positions among all."""
    return kept if sample.real is None else namespace(kept).take(sample.real, kept)
