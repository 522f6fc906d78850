"""FastV by windows: the same share of every window of the grid, by attention."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, tokens_at
from iwp_core.methods._windows import check_grid, windows_of

__all__ = ["fastv_window"]


def fastv_window(attention: Array, /, budget: float, *, grid: tuple[int, int], window: int = 4) -> Array:
    """Keep in each window of the grid the visual tokens that get most attention from the last token of the prompt.

    Reads the attention of the layer before the one where tokens are dropped.

    Parameters
    ----------
    attention : array, shape (Hq, N)
        Soft-max attention of the last token to each visual token, by head; tokens row by row of the grid.
    budget : int or float
        Tokens to keep, or their share, as in `select_tokens`.
    grid : tuple of int
        Height and width; N is their product.
    window : int
        Side of a window, at least 1.

    Returns
    -------
    array of int64, shape (M,)
        Kept indices, ascending.

    Raises
    ------
    TypeError
        If `attention` is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, or a number is out of range.

    Notes
    -----
    A window of w tokens keeps floor(w M / N) of them; what is left of M goes one each to the windows of largest
    remainder, of equal ones to the first. So exactly M are kept, which round(w M / N) can miss; the paper gives neither
    the number nor the window. Windows at the lower and right edge are smaller where a side is no multiple of the
    window. Ties: lower index first. No official code.

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    algorithm 3.

    Examples
    --------
    >>> import numpy as np
    >>> fastv_window(np.asarray([[0.4, 0.3, 0.2, 0.1]]), 2, grid=(1, 4), window=2)
    array([0, 2])
    """
    total = check_arrays({"attention": (attention, "Hq N")})["N"]
    windows = windows_of(check_grid(grid, total), check_count("window", window, 1), attention)
    precision = Precision.of(attention)
    scores = precision.mean(precision.enter(attention), axis=0)
    quotas = _quotas([members.shape[0] for members in windows], tokens_to_keep(budget, total), total)
    kept = [
        tokens_at(members, largest(tokens_at(scores, members), quota))
        for members, quota in zip(windows, quotas, strict=True)
    ]
    return in_sequence(namespace(attention).concat(kept))


def _quotas(sizes: list[int], count: int, total: int) -> list[int]:
    """Divide a count among windows in proportion to their sizes, by largest remainder."""
    quotas = [size * count // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: -(sizes[place] * count % total))
    for place in by_remainder[: count - sum(quotas)]:
        quotas[place] += 1
    return quotas
