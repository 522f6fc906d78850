"""Share of the tokens that PruMerge keeps by their attention."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision

__all__ = ["affordable_share", "outlier_share", "spacing"]


@in_context
def outlier_share(attention: Array, /) -> float:
    """Return the share of tokens whose attention is an outlier.

    An outlier is more than 1.5 interquartile ranges above the third quartile.

    Parameters
    ----------
    attention : array of float, shape (N,)
        Attention that each token receives.

    Returns
    -------
    float
        Share from 0 to about 0.25.

    Raises
    ------
    TypeError
        If `attention` is not a floating-point array.
    ValueError
        If `attention` does not have one non-empty axis or is not finite.

    References
    ----------
    As `prumerge`.

    Examples
    --------
    >>> import numpy as np
    >>> outlier_share(np.asarray([0.1, 0.1, 0.1, 0.7]))
    0.25
    """
    total = check_arrays({"attention": (attention, "N")})["N"]
    xp = namespace(attention)
    values = Precision.of(attention).enter(attention)
    ascending = xp.sort(values)
    lower, upper = (_quantile(ascending, q) for q in (0.25, 0.75))
    outliers = values > upper + 1.5 * (upper - lower)
    return int(xp.sum(xp.astype(outliers, xp.int32))) / total


def _quantile(ascending: Array, q: float) -> Array:
    """Interpolate linearly between the two entries next to a quantile."""
    place = q * (ascending.shape[0] - 1)
    below = int(place)
    above = min(below + 1, ascending.shape[0] - 1)
    part, step = place - below, ascending[above] - ascending[below]
    return ascending[below] + step * part if 2 * part < 1 else ascending[above] - step * (1 - part)


def spacing(share: float) -> int:
    """Return the distance between the evenly spaced tokens of PruMerge+; 1 where the share is 0."""
    return max(1, int(int(1 / share) / 3)) if share > 0 else 1


def affordable_share(count: int, total: int, *, spread: bool) -> float:
    """Return a share with which at most `count` tokens are kept, the extra token included.

    Raises
    ------
    ValueError
        If there is no such share.
    """
    for top in range(min(count, total) - 1, 0, -1):
        share = (top + 0.5) / total  # int(total * share) is `top` whatever the rounding
        spaced = -(-(total - 1) // spacing(share)) if spread else 0
        if top + spaced < count or count >= total:
            return share
    msg = f"`budget` is {count} tokens of {total}, expected enough for one kept token, those spaced, and one more"
    raise ValueError(msg)
