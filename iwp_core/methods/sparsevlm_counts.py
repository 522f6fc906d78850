"""How many tokens SparseVLM keeps, and how many clusters of dropped ones it brings back."""

from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_count

__all__ = ["clusters_of", "recycled_of", "sparsevlm_counts"]

SHARE = 0.3
"""Share of the dropped tokens that is recycled ..."""

CLUSTER = 10
"""... in clusters of about so many."""


def sparsevlm_counts(total: int, budget: float, /) -> tuple[int, int]:
    """Divide a budget among tokens that are kept and clusters of dropped ones, so that both together meet it.

    Parameters
    ----------
    total : int
        Number of tokens N, at least 1.
    budget : int or float
        Tokens to keep in all, or their share, as in `select_tokens`.

    Returns
    -------
    kept : int
        Tokens to keep with `sparsevlm`, at least 1.
    clusters : int
        Clusters to ask `sparsevlm_recycle` for; 0 where none is to be asked for.

    Raises
    ------
    TypeError
        If `total` is no integer or `budget` no real number.
    ValueError
        If one is out of range.

    Notes
    -----
    The official code keeps as many as its table says and appends the clusters, whose number follows from how many were
    dropped: about 3 % of them. Here that number counts within the budget; there are fewer clusters where it leaves room
    for no more beside one token.

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
    """Return how many of some dropped tokens are recycled."""
    return int(SHARE * dropped) + 1 if dropped else 0


def clusters_of(dropped: int) -> int:
    """Return in how many clusters the recycled of some dropped tokens come back."""
    return recycled_of(dropped) // CLUSTER + 1 if dropped else 0
