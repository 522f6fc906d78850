"""What a method returns that merges tokens."""

from dataclasses import dataclass

from iwp_core._arrays import Array

__all__ = ["MergedTokens"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedTokens:
    """Tokens after merging, row by row: where each stands, its value, its weight, and where every token went.

    Parameters
    ----------
    kept : array of int64, shape (M,)
        Index of the token in whose place each row stands, in the order of the rows.
    tokens : array, shape (M, E)
        Values, in the dtype of the input.
    sizes : array, shape (M,)
        How many tokens a row stands for, in the dtype of the input; methods with proportional attention add its
        logarithm to the attention logits.
    assignment : array of int64, shape (N,)
        Row that each token went into, -1 where it is lost.

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
