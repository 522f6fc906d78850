"""Pooling: one token for each window of the grid."""

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
    """Keep in each window of the grid the token of largest L1 norm, with its own state or the window's mean.

    Reads the states entering one layer of the language model (as published layer 2).

    Parameters
    ----------
    hidden : array, shape (N, E)
        Row by row of the grid.
    grid : tuple of int
        Height and width; N is their product.
    window : int
        Side of a window: 2 keeps a quarter, 3 a ninth. Exactly one of `window` and `budget` is given.
    budget : int or float
        At most so many tokens, or that share of them, as in `select_tokens`: takes the smallest window that does.
    reading : str
        ``"select"`` (the algorithm as printed) leaves the token as it is, ``"average"`` (the text) writes the mean of
        the window in its place.

    Returns
    -------
    MergedTokens
        A row a window, row by row of the grid; `kept` is in that order, which need not ascend.

    Raises
    ------
    TypeError
        If `hidden` is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, both or none of `window` and `budget` are given, a number is out of
        range, or the reading is unknown.

    Notes
    -----
    Ties: lower index first. Windows at the lower and right edge are smaller where a side is no multiple of the window,
    which the paper leaves open. No official code.

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
