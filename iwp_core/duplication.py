"""Information duplication: how much the updates of two tokens share (lemma 2, proposition 1, equation 12, table 3)."""

from typing import Protocol

from iwp_core._arrays import Array, arange_indices
from iwp_core._plugins import backend_context
from iwp_core._validate import KERNELS, check_name
from iwp_core.comparison import Duplication
from iwp_core.samples import check_tokens, expand_indices

__all__ = [
    "SIMILARITIES",
    "PairwiseDuplication",
    "check_hidden_given",
    "information_duplication",
    "update_cosine",
]

SIMILARITIES = ("dual", "value", "hidden", "key", "kernel_key")


def information_duplication(
    keys: Array,
    values: Array,
    /,
    rows: Array | None = None,
    cols: Array | None = None,
    *,
    metric: str = "dual",
    kernel: str = "exponential",
    hidden: Array | None = None,
) -> Array:
    """Return the information duplication of pairs of tokens: their squared similarity, averaged over heads.

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
        Needed for ``metric="hidden"`` only.

    Returns
    -------
    array, shape (..., R, C)
        In [0, 1]. float64 for float64 inputs, else float32.

    Raises
    ------
    TypeError
        If an argument is no array, of another library than `keys`, or of a dtype of the wrong kind; if `hidden` is
        missing.
    ValueError
        If shapes do not fit, there are no tokens, data is not finite, an index is out of range, or a name is unknown.

    Notes
    -----
    Memory O(H R C): where N is large, compare blocks of tokens.

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
    /,
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
    return _pairwise(keys, values, rows, cols, kernel=kernel, signed=True)


def _pairwise(
    keys: Array,
    values: Array,
    rows: Array | None,
    cols: Array | None,
    hidden: Array | None = None,
    *,
    metric: str = "dual",
    kernel: str,
    signed: bool,
) -> Array:
    """Check the inputs, and compare tokens sample by sample."""
    check_name("kernel", kernel, KERNELS)
    check_hidden_given(hidden, metric)
    samples = check_tokens(keys, values, hidden=hidden)
    everyone = arange_indices(samples.count, keys)
    rows = expand_indices("rows", everyone if rows is None else rows, samples)
    cols = expand_indices("cols", everyone if cols is None else cols, samples)
    with backend_context(keys):
        blocks = []
        for index, sample in enumerate(samples):
            duplication = Duplication(sample.keys, sample.values, sample.hidden, metric=metric, kernel=kernel)
            compare = duplication.signed if signed else duplication
            blocks.append(compare(rows[index, :], cols[index, :]))
        return samples.join(blocks, per_head=signed)


def check_hidden_given(hidden: Array | None, metric: str) -> None:
    """Check that hidden states are there if the metric reads them.

    Raises
    ------
    TypeError
        If they are missing.
    """
    if hidden is None and metric == "hidden":
        msg = "`hidden` is None, expected an array (..., N, E): the similarity 'hidden' reads it"
        raise TypeError(msg)


class PairwiseDuplication(Protocol):
    """Information duplication of one sample, as strategies see it; `select_tokens` passes a `Duplication`.

    The core's own strategies take a callable without `identical` too: then no two tokens count as identical.
    """

    @property
    def identical(self) -> Array | None:
        """For each token the position of the first token that no similarity can tell from it; None if all differ."""
        ...

    def __call__(self, rows: Array, cols: Array, /) -> Array:
        """Return the duplication of tokens `rows` (R,) with tokens `cols` (C,), shape (R, C), in [0, 1]."""
        ...
