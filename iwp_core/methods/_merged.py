"""The result of a method that merges tokens."""

from dataclasses import dataclass

from iwp_core._arrays import Array

__all__ = ["MergedTokens"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedTokens:
    """Tokens after merging: the place, value and size of each row, and for each token the row that it went into.

    Parameters
    ----------
    kept : array of int64, shape (M,)
        For each row, the index of the token in whose place it stands.
    tokens : array of float, shape (M, E)
        Values of the rows, in the dtype of the input.
    sizes : array of float, shape (M,)
        Number of tokens that a row stands for. Methods with proportional attention add its logarithm to the attention
        logits.
    assignment : array of int64, shape (N,)
        For each token, the row that it went into; -1 if it was dropped.

    Examples
    --------
    >>> import numpy as np
    >>> merged = MergedTokens(
    ...     kept=np.asarray([1]),
    ...     tokens=np.asarray([[0.5]]),
    ...     sizes=np.asarray([2.0]),
    ...     assignment=np.asarray([0, 0, -1]),
    ... )
    >>> merged.tokens[0]
    array([0.5])
    """

    kept: Array
    tokens: Array
    sizes: Array
    assignment: Array
