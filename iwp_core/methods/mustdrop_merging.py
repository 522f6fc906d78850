"""The stage of MustDrop in the vision tower: a window of the grid whose tokens are all similar becomes one token."""

from iwp_core._arrays import Array, arange_indices, namespace, order_descending
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._merged import MergedTokens
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import placed, remaining, tokens_at

__all__ = ["mustdrop_merge"]


def mustdrop_merge(tokens: Array, /, *, grid: tuple[int, int], threshold: float = 0.8, window: int = 3) -> MergedTokens:
    """Merge each window of the grid whose tokens are similar, by the mean cosine between them.

    The published method reads the tokens behind the first layer of the vision tower, without the class token.

    Parameters
    ----------
    tokens : array of float, shape (N, E)
        Tokens in row-major order of the grid.
    grid : tuple of int
        Height and width of the grid. Their product is N, and both are multiples of `window`.
    threshold : float
        Smallest mean cosine, -1 to 1, with which a window is merged.
    window : int
        Side of a square window, at least 2.

    Returns
    -------
    MergedTokens
        First the merged windows, the largest mean cosine first, then the untouched tokens, ascending. A merged window
        has the mean of its tokens, the place of its last token, and the size window * window.

    Raises
    ------
    TypeError
        If `tokens` is not a floating-point array, or a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range.

    Notes
    -----
    Windows with equal mean cosines stay in their order. In half precision every operation is rounded, as in the
    official code. Deviation: the official code merges the same number of windows in all samples of a batch, here each
    sample merges its own.

    References
    ----------
    As `mustdrop`.

    Examples
    --------
    >>> import numpy as np
    >>> mustdrop_merge(np.ones((4, 2)), grid=(2, 2), window=2).sizes
    array([4.])
    """
    total = check_arrays({"tokens": (tokens, "N E")})["N"]
    height, width = (check_count("grid", side, 1) for side in grid)
    check_count("window", window, 2)
    check_number("threshold", threshold, -1.0, 1.0)
    if height * width != total or height % window or width % window:
        msg = f"`grid` is {grid}, expected {total} tokens and sides that are multiples of `window`, {window}"
        raise ValueError(msg)
    xp = namespace(tokens)
    precision = Precision.of(tokens)
    everything = xp.reshape(arange_indices(total, tokens), (height // window, window, width // window, window))
    windows = xp.reshape(xp.permute_dims(everything, (0, 2, 1, 3)), (-1, window * window))
    states = precision.enter(tokens)
    alike = xp.stack([_mean_cosine(tokens_at(states, members), precision) for members in _rows(windows)])
    merged = order_descending(alike)[: int(xp.sum(xp.astype(alike >= threshold, xp.int32)))]
    members = tokens_at(windows, merged)
    sources = xp.reshape(members, (-1,))
    untouched = remaining(sources, total)
    sums = precision.sum(xp.reshape(tokens_at(states, sources), (-1, window * window, tokens.shape[1])), axis=1)
    rows = arange_indices(merged.shape[0] + untouched.shape[0], windows)
    into = xp.reshape(xp.broadcast_to(rows[: merged.shape[0], None], members.shape), (-1,))
    values = precision.leave(precision.round(sums / float(window * window)))
    return MergedTokens(
        kept=xp.concat([members[:, -1], untouched]),
        tokens=xp.concat([values, tokens_at(tokens, untouched)]),
        sizes=xp.concat([
            xp.full_like(values[:, 0], window * window),
            xp.ones_like(tokens_at(tokens[:, 0], untouched)),
        ]),
        assignment=placed(xp.concat([into, rows[merged.shape[0] :]]), xp.concat([sources, untouched])),
    )


def _rows(x: Array) -> list[Array]:
    return [x[row, :] for row in range(x.shape[0])]


def _mean_cosine(rows: Array, precision: Precision) -> Array:
    """Return the mean cosine of the pairs of different rows."""
    xp = namespace(rows)
    count = rows.shape[0]
    units = precision.units(rows)
    cosine = precision.sum(precision.round(units[:, None, :] * units[None, :, :]), axis=2)
    places = arange_indices(count, rows)
    others = xp.where(places[:, None] == places[None, :], xp.zeros_like(cosine), cosine)
    return xp.sum(others) / (count * (count - 1))
