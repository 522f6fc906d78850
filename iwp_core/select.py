"""`select_tokens`: check, score, choose; and the two scores by themselves."""

from iwp_core._arrays import Array, accumulation_dtype, arange_indices, is_array, namespace
from iwp_core._plugins import backend_context
from iwp_core._validate import HEADS, KERNELS, Sample, check_name, check_tokens, expand_indices
from iwp_core.budget import tokens_to_keep
from iwp_core.duplication import SIMILARITIES, Duplication
from iwp_core.magnitude import MAGNITUDES, QUERY_MAGNITUDES, log_magnitude
from iwp_core.strategies import PCMMR, Strategy

__all__ = ["information_duplication", "information_magnitude", "select_tokens", "update_cosine"]


def select_tokens(
    keys: Array,
    values: Array,
    queries: Array | None,
    budget: float,
    *,
    magnitude_keys: Array | None = None,
    strategy: Strategy = PCMMR(),  # noqa: B008 - frozen, so one default instance is safe
    magnitude: str = "dual",
    similarity: str = "dual",
    hidden: Array | None = None,
    kernel: str = "exponential",
    heads: str = "mean",
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
        One aggregated query a head, or T queries that are averaged; Hq is a multiple of H. (D,) or (T, D) for keys
        (N, D). None is allowed where `magnitude` reads no query.
    budget : int or float
        Tokens to keep: an int >= 1 is a count (above N: all), a float in (0, 1] a share,
        max(1, floor(budget * N + 0.5)).
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
    heads : {"mean", "softmax_mean"}
        How heads are pooled in the magnitude: the plain mean (the paper), or after each head's scores are divided
        by their sum over the tokens (ours).
    validate : bool, default True
        False skips the checks that read data (finiteness, the answer of a strategy of your own), for hot paths.

    Returns
    -------
    array of int64, shape (..., M)
        Positions kept, ascending and distinct, in the library and on the device of `keys`. (JAX without 64-bit
        support returns its int32.)

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, of an integer or complex dtype; if `budget` is no
        real number; if `strategy` has no `select`.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, a name is unknown, a needed array is missing, or
        `budget` is outside its range.

    Notes
    -----
    Ties go to the lower position. Computes in float32, or in float64 for float64 inputs; float16 and bfloat16 are
    converted tile by tile. Memory O(N) beside the inputs. Each sample of a batch gets the answer of its own call.

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
    check_name("magnitude", magnitude, MAGNITUDES)
    check_name("similarity", similarity, SIMILARITIES)
    check_name("kernel", kernel, KERNELS)
    check_name("heads", heads, HEADS)
    if not isinstance(strategy, Strategy) or isinstance(strategy, type):
        msg = f"`strategy` is {strategy!r}, expected an object with `select`, such as PCMMR(), MMR() or TopK()"
        raise TypeError(msg)
    _check_needed(queries, hidden, magnitude, similarity)
    samples = check_tokens(
        keys, values, queries, magnitude_keys=magnitude_keys, hidden=hidden, finite=validate
    )
    count = tokens_to_keep(budget, samples.count)
    with backend_context(keys):
        kept = []
        for sample in samples:
            if count == samples.count:
                kept.append(arange_indices(count, keys))
                continue
            log_scores = _log_magnitude(sample, metric=magnitude, kernel=kernel, heads=heads)
            duplication = Duplication(sample.keys, sample.values, sample.hidden, metric=similarity, kernel=kernel)
            chosen = strategy.select(log_scores, duplication, count)
            kept.append(_ascending(chosen, log_scores, count, check=validate))
        return samples.join(kept)


def information_magnitude(
    queries: Array | None,
    keys: Array,
    values: Array,
    *,
    metric: str = "dual",
    kernel: str = "exponential",
    heads: str = "mean",
) -> Array:
    """Return how much each token's update carries, scaled to [0, 1] over the tokens of a sample.

    Parameters
    ----------
    queries : array, shape (..., Hq, D) or (..., Hq, T, D), or None
        As in `select_tokens`; None is allowed where `metric` reads no query.
    keys : array, shape (..., H, N, D)
        Keys to score, by default of the library without rotary embedding.
    values : array, shape (..., H, N, Dv)
    metric : {"dual", "kernel", "gradient_norm", "key_norm", "raw_key_norm", "value_norm"}
        Score of table 1; its head mean is scaled by its minimum and maximum.
    kernel : {"exponential", "linear"}
    heads : {"mean", "softmax_mean"}
        As in `select_tokens`.

    Returns
    -------
    array, shape (..., N)
        In [0, 1]; all ones if all scores are equal. float64 for float64 inputs, else float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of no real floating dtype.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, or a name is unknown.

    Notes
    -----
    Computed in logarithms; a score more than about 100 below the largest in its logarithm is 0 in float32.

    References
    ----------
    arXiv 2604.00757, equation 10, tables 1 and 2; equation 22 for the linear kernel, whose product may be negative:
    its absolute value counts.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[3.0, 4.0], [0.0, 1.0], [0.0, 3.0]])
    >>> information_magnitude(None, np.zeros((3, 2)), values, metric="value_norm")
    array([1. , 0. , 0.5])
    """
    check_name("metric", metric, MAGNITUDES)
    check_name("kernel", kernel, KERNELS)
    check_name("heads", heads, HEADS)
    _check_needed(queries, None, metric, "dual")
    samples = check_tokens(keys, values, queries)
    with backend_context(keys):
        return samples.join(
            [samples.xp.exp(_log_magnitude(sample, metric=metric, kernel=kernel, heads=heads)) for sample in samples]
        )


def information_duplication(
    keys: Array,
    values: Array,
    rows: Array | None = None,
    cols: Array | None = None,
    *,
    metric: str = "dual",
    kernel: str = "exponential",
    hidden: Array | None = None,
) -> Array:
    """Return how much of their updates pairs of tokens share: the head mean of the squared similarity.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
    values : array, shape (..., H, N, Dv)
    rows, cols : array of int, shape (R,) and (C,), or with the leading axes of `keys`, optional
        Tokens to compare. Default: all.
    metric : {"dual", "value", "hidden", "key", "kernel_key"}
        Similarity of table 3.
    kernel : {"exponential", "linear"}
    hidden : array, shape (..., N, E), optional
        Needed by ``metric="hidden"`` only.

    Returns
    -------
    array, shape (..., R, C)
        In [0, 1]. float64 for float64 inputs, else float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, an index is out of range, a name is unknown, or
        `hidden` is missing.

    Notes
    -----
    Memory O(H R C): ask for blocks where N is large.

    References
    ----------
    arXiv 2604.00757, equation 12 (squared) and table 3.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> information_duplication(np.zeros((3, 2)), values, np.asarray([0]))
    array([[1., 0., 1.]])
    """
    check_name("metric", metric, SIMILARITIES)
    return _pairwise(keys, values, rows, cols, hidden, metric=metric, kernel=kernel, signed=False)


def update_cosine(
    keys: Array,
    values: Array,
    rows: Array | None = None,
    cols: Array | None = None,
    *,
    kernel: str = "exponential",
) -> Array:
    """Return the cosine of the updates of pairs of tokens in the Hilbert-Schmidt inner product, head by head.

    Parameters
    ----------
    keys : array, shape (..., H, N, D)
    values : array, shape (..., H, N, Dv)
    rows, cols : array of int, shape (R,) and (C,), or with the leading axes of `keys`, optional
        Tokens to compare. Default: all.
    kernel : {"exponential", "linear"}

    Returns
    -------
    array, shape (..., H, R, C)
        Signed, in [-1, 1]; 0 where an update is zero. Without a head axis if `keys` has none.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, an index is out of range, or `kernel` is
        unknown.

    References
    ----------
    arXiv 2604.00757, proposition 1.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.asarray([[1.0, 0.0], [-2.0, 0.0]])
    >>> update_cosine(np.zeros((2, 2)), values)
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    return _pairwise(keys, values, rows, cols, None, metric="dual", kernel=kernel, signed=True)


def _pairwise(
    keys: Array,
    values: Array,
    rows: Array | None,
    cols: Array | None,
    hidden: Array | None,
    *,
    metric: str,
    kernel: str,
    signed: bool,
) -> Array:
    """Check the inputs, and compare tokens sample by sample."""
    check_name("kernel", kernel, KERNELS)
    _check_needed(keys, hidden, "dual", metric)
    samples = check_tokens(keys, values, hidden=hidden)
    everyone = arange_indices(samples.count, keys)
    asked = [expand_indices(name, everyone if tokens is None else tokens, samples) for name, tokens in (("rows", rows), ("cols", cols))]
    with backend_context(keys):
        blocks = []
        for index, sample in enumerate(samples):
            duplication = Duplication(sample.keys, sample.values, sample.hidden, metric=metric, kernel=kernel)
            compare = duplication.signed if signed else duplication
            blocks.append(compare(asked[0][index, :], asked[1][index, :]))
        return samples.join(blocks, per_head=signed)


def _check_needed(queries: Array | None, hidden: Array | None, magnitude: str, similarity: str) -> None:
    """Raise if an array that a metric reads is missing."""
    if queries is None and magnitude in QUERY_MAGNITUDES:
        msg = f"`queries` is None, expected an array (..., Hq, D): the magnitude {magnitude!r} reads it"
        raise TypeError(msg)
    if hidden is None and similarity == "hidden":
        msg = "`hidden` is None, expected an array (..., N, E): the similarity 'hidden' reads it"
        raise ValueError(msg)


def _log_magnitude(sample: Sample, *, metric: str, kernel: str, heads: str) -> Array:
    """Average the queries of a sample, and score its tokens."""
    queries = sample.queries
    if queries is not None:
        xp = namespace(queries)
        queries = xp.mean(xp.astype(queries, accumulation_dtype(queries)), axis=-2)
    return log_magnitude(sample.magnitude_keys, sample.values, queries, metric=metric, kernel=kernel, heads=heads)


def _ascending(chosen: Array, like: Array, count: int, *, check: bool) -> Array:
    """Return a strategy's answer in ascending order, as indices; raise if it is no set of `count` tokens."""
    xp = namespace(like)
    total = like.shape[0]
    if not is_array(chosen) or namespace(chosen) is not xp or not xp.isdtype(chosen.dtype, "integral"):
        msg = f"`strategy` returned {type(chosen).__name__}, expected an integer array of {xp.__name__}"
        raise TypeError(msg)
    if tuple(chosen.shape) != (count,):
        msg = f"`strategy` returned shape {tuple(chosen.shape)}, expected ({count},)"
        raise ValueError(msg)
    kept = xp.astype(xp.sort(chosen), arange_indices(0, like).dtype)
    if check and (kept[0] < 0 or kept[-1] >= total or xp.any(kept[1:] == kept[:-1])):
        msg = f"`strategy` returned positions that repeat or leave the range 0 to {total - 1}, expected {count} distinct ones"
        raise ValueError(msg)
    return kept
