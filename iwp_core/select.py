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
    """Choose the visual tokens to keep: those of large magnitude that duplicate each other least.

    Attention multiplies a query by an implicit weight, to which each token adds one update. The magnitude says how much
    a token's update contributes to the outputs of the queries, the duplication how similar two updates are.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
        Keys as the attention compares them, with rotary embedding; duplication is computed from them. Leading axes
        are batch axes. Shape (N, D) means one head.
    values : array, shape (..., H, N, Dv)
        Values; (N, Dv) for keys (N, D).
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        One query for each head, or T queries, which are averaged unless `heads` says otherwise. Hq is a multiple of H.
        Shape (D,) or (T, D) for keys of shape (N, D). None is allowed if `magnitude` does not depend on a query.
    budget : int, float or Tolerance
        How many tokens to keep. An int >= 1 is a count; above N, all tokens are kept. A float in (0, 1] is a share:
        M = max(1, floor(budget * N + 0.5)), where N counts the real tokens of a sample if there is a `mask`. A
        `Tolerance` keeps, in each sample, as few tokens as hold an error within it.
    magnitude_keys : array, shape of `keys`, optional
        Keys without rotary embedding, from which the magnitude is computed. Default: `keys`.
    strategy : Strategy, default PCMMR()
        How tokens are chosen: `PCMMR`, `MMR`, `TopK` or an object of your own.
    magnitude : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Metric of a token's magnitude (table 1).
    similarity : {"dual", "value", "hidden", "key", "kernel_key"}
        Metric of the duplication of two tokens (table 3).
    hidden : array, shape (..., N, E), optional
        Hidden states; needed for ``similarity="hidden"`` only.
    kernel : {"exponential", "linear"}
        Softmax attention, or linear attention (section E.8).
    heads : {"mean", "softmax_mean", "softmax_mean_per_query", "max"} or float, default "mean"
        How heads are pooled in the magnitude.

        - "mean" is the paper's: queries are averaged, and the scores of all heads are averaged.
        - "softmax_mean" (ours, as are the following): each head's scores are first divided by their sum over the
          tokens, so that no head with large logits decides alone.
        - "softmax_mean_per_query": the same without averaging the queries. Each of the T queries is scored as if it
          were one more head, which takes T times the work.
        - "max" or a number p >= 1: queries are not averaged either. A token's score for one head and query is its
          softmax weight among all that the query attends to (see `context`), times the norm of its value if the metric
          is "dual". The largest of these scores counts, or their power mean with exponent p.
    mask : array of bool, shape (..., N), optional
        True for real tokens, False for padding, which is never kept nor read. Shares count real tokens only.
    context : array, shape (..., Hq, T), optional
        For `heads` "max" or p, or a `Tolerance` of outputs: the log-sum-exp of each query's scaled logits
        (q.k / sqrt(D)) over everything that it attends to besides these tokens, such as text and attention sinks. Use
        -inf for a query that attends to nothing else, which is the default.
    validate : bool, default True
        False skips the checks that read data: that all numbers are finite, and that a strategy of your own returned
        distinct positions. Needed where a program is traced, as under `jax.jit` or `torch.compile`, or captured in a
        CUDA graph.

    Returns
    -------
    array of int64, shape (..., M)
        Indices of the tokens to keep, ascending and distinct, in the library and on the device of `keys`. (JAX without
        64-bit support returns int32.) If samples keep different numbers of tokens, M is the largest of these, and
        shorter rows are padded at the end with -1: ``(indices >= 0).sum(-1)`` counts them.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind; if a needed array
        is missing; if `budget` is no real number, `heads` neither a name nor a number, or `validate` no bool; if
        `strategy` has no method `select`.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, a name is unknown, `budget` or `heads` is outside
        its range, a row of `mask` has no real token, `heads` does not go with `queries` or `context`, or a `Tolerance`
        of outputs with `kernel`; if `validate` is True while a program is traced or captured.
    NotImplementedError
        While a program is traced: for a `Tolerance`, a share with a `mask`, or a strategy of your own. While a CUDA
        graph is captured: for a `Tolerance`, a `mask`, a strategy of the library but `PCMMR` and `TopK`, or what has no
        Triton kernel.

    Notes
    -----
    Of tokens with equal scores, the one with the lower index is taken. Computations are in float32, or in float64 for
    float64 inputs. Memory beside the inputs: one copy of one sample's keys in that dtype, and O(N). Each sample of a
    batch gets the same answer as in a call of its own.

    References
    ----------
    "Token pruning as implicit weight pruning", arXiv 2604.00757: equation 10 (magnitude), equation 12 squared
    (duplication), algorithm 1 (PC-MMR).

    Examples
    --------
    Five tokens, of which the second is a copy of the first, and the last has little magnitude. These two are dropped.

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

    Nor are they while a CUDA graph is captured.

    Raises
    ------
    NotImplementedError
        If the budget would have to be counted.
    ValueError
        If data is to be checked.
    """
    if isinstance(budget, Tolerance) or (mask is not None and isinstance(budget, float)):
        what = f"`budget` is {budget!r}" + ("" if isinstance(budget, Tolerance) else " with a `mask`")
        msg = f"{what}, expected a count: while a program is traced or captured, numbers cannot say how many are kept"
        raise NotImplementedError(msg)
    if validate is True:
        msg = "`validate` is True, expected False: while a program is traced or captured, no number can be looked at"
        raise ValueError(msg)


def _original(kept: Array, sample: Sample) -> Array:
    """Return positions among real tokens as positions among all."""
    return kept if sample.real is None else namespace(kept).take(sample.real, kept)
