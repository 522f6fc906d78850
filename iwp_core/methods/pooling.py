"""Pooling: keep one token of each window of the grid."""

from iwp_core._arrays import Array, device, namespace
from iwp_core._validate import check_name
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._checks import check_arrays, check_count, check_exactly_one
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import placed, tokens_at
from iwp_core.methods._windows import check_grid, windows_of

__all__ = ["pooling"]

READINGS = ("select", "average")


def pooling(
    hidden: Array,
    /,
    *,
    grid: tuple[int, int],
    window: int | None = None,
    budget: float | None = None,
    reading: str = "select",
) -> MergedTokens:
    """Keep in each window of the grid the token with the largest L1 norm, with its own state or the window's mean.

    The published method reads the states that enter layer 2 of the language model.

    Parameters
    ----------
    hidden : array of float, shape (N, E)
        States of the tokens in row-major order of the grid.
    grid : tuple of int
        Height and width of the grid, whose product is N.
    window : int
        Side of a square window, at least 1: 2 keeps a quarter of the tokens, 3 a ninth. Give either `window` or
        `budget`.
    budget : int or float
        Upper limit on the number of tokens, or on their share, as in `select_tokens`. The smallest window that meets it
        is taken.
    reading : {"select", "average"}
        How the paper is read. "select", as its algorithm is printed, keeps the state of the token. "average", as its
        text says, replaces the state by the mean of the window.

    Returns
    -------
    MergedTokens
        One row for each window, in row-major order of the windows, so that `kept` may not be ascending.

    Raises
    ------
    TypeError
        If `hidden` is not a floating-point array, or a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if not exactly one of `window` and `budget` is given; if `reading` is unknown.

    Notes
    -----
    Of equal norms, the lower index is taken. Windows at the lower and right edge are smaller if a side is not a
    multiple of the window, a case that the paper leaves open. There is no official code.

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501,
    algorithm 4.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0], [3.0], [2.0], [2.0]])
    >>> pooling(x, grid=(2, 2), window=2).kept, pooling(x, grid=(2, 2), window=2, reading="average").tokens
    (array([1]), array([[2.]]))
    """
    total = check_arrays({"hidden": (hidden, "N E")})["N"]
    height, width = check_grid(grid, total)
    check_name("reading", reading, READINGS)
    check_exactly_one(window=window, budget=budget)
    if budget is not None:
        most = tokens_to_keep(budget, total)
        sides = range(1, max(height, width) + 1)
        window = next(side for side in sides if -(-height // side) * -(-width // side) <= most)
    xp = namespace(hidden)
    precision = Precision.of(hidden)
    states = precision.enter(hidden)
    windows = windows_of((height, width), check_count("window", window, 1), hidden)
    norms = precision.sum(xp.abs(states), axis=1)
    kept = xp.stack([members[xp.argmax(tokens_at(norms, members))] for members in windows])
    means = xp.stack([precision.mean(tokens_at(states, members), axis=0) for members in windows])
    sizes = xp.asarray([float(members.shape[0]) for members in windows], dtype=states.dtype, device=device(hidden))
    rows = xp.concat([xp.full_like(members, row) for row, members in enumerate(windows)])
    return MergedTokens(
        kept=kept,
        tokens=tokens_at(hidden, kept) if reading == "select" else precision.leave(means),
        sizes=precision.leave(sizes),
        assignment=placed(rows, xp.concat(windows)),
    )
