"""How many tokens SparseVLM keeps, and how many clusters of dropped tokens it brings back."""

from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_count

__all__ = ["clusters_of", "recycled_of", "sparsevlm_counts"]

SHARE = 0.3
"""Share of the dropped tokens that is recycled ..."""

CLUSTER = 10
"""... in clusters of about so many."""


def sparsevlm_counts(total: int, budget: float, /) -> tuple[int, int]:
    """Divide a budget between kept tokens and clusters of dropped tokens, so that both together meet it.

    Parameters
    ----------
    total : int
        Number of tokens N, at least 1.
    budget : int or float
        Number of kept tokens and clusters together, or their share of N, as in `select_tokens`.

    Returns
    -------
    kept : int
        Number of tokens to keep with `sparsevlm`, at least 1.
    clusters : int
        Number of clusters for `sparsevlm_recycle`. If it is 0, do not call that function.

    Raises
    ------
    TypeError
        If `total` is not an integer, or `budget` is not a real number.
    ValueError
        If `total` or `budget` is out of range.

    Notes
    -----
    The official code keeps as many tokens as its table says and appends the clusters to them. Their number follows from
    that of the dropped tokens and is about 3 % of it. Here clusters count within the budget. If the budget leaves no
    room for all of them beside one kept token, there are fewer clusters.

    References
    ----------
    As `sparsevlm`.

    Examples
    --------
    >>> sparsevlm_counts(576, 192)
    (180, 12)
    """
    check_count("total", total, 1)
    count = tokens_to_keep(budget, total)
    for kept in range(count, 0, -1):
        if kept + clusters_of(total - kept) <= count:
            return kept, count - kept
    return 1, count - 1


def recycled_of(dropped: int) -> int:
    """Return how many of the dropped tokens are recycled."""
    return int(SHARE * dropped) + 1 if dropped else 0


def clusters_of(dropped: int) -> int:
    """Return into how many clusters the recycled tokens are merged, from the number of dropped tokens."""
    return recycled_of(dropped) // CLUSTER + 1 if dropped else 0
