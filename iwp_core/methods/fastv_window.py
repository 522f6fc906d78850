"""FastV by windows: keep the same share of the tokens in every window of the grid."""

from iwp_core._arrays import Array, namespace
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import in_sequence, largest, tokens_at
from iwp_core.methods._ties import head_mean
from iwp_core.methods._windows import check_grid, windows_of

__all__ = ["fastv_window"]


@in_context
def fastv_window(attention: Array, /, budget: float, *, grid: tuple[int, int], window: int = 4) -> Array:
    """Keep, in each window of the grid, the visual tokens that the last token of the prompt attends to most.

    The published method reads the attention of the layer before the pruning layer.

    Parameters
    ----------
    attention : array of float, shape (Hq, N)
        Softmax attention of the last token to each visual token, for each head. Tokens are in row-major order of the
        grid.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    grid : tuple of int
        Height and width of the grid, whose product is N.
    window : int
        Side of a square window, at least 1.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError
        If `attention` is not a floating-point array, or a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    Notes
    -----
    A window of w tokens keeps floor(w M / N) of them. The rest of M goes, one token each, to the windows with the
    largest remainder, and of equal remainders to the first. So exactly M tokens are kept, which rounding w M / N would
    not ensure. The paper gives neither the rounding nor the size of the window. Windows at the lower and right edge are
    smaller if a side is not a multiple of `window`. Of equal scores, the lower index is taken. There is no official
    code.

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
    scores = head_mean(attention, precision)
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
