"""Key tokens of MustDrop: those that the class token of the vision tower attends to most."""

import math

from iwp_core._arrays import Array
from iwp_core.methods._checks import check_arrays, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ranking import largest
from iwp_core.methods._ties import head_mean

__all__ = ["mustdrop_key_tokens"]


@in_context
def mustdrop_key_tokens(attention: Array, /, *, share: float = 0.08) -> Array:
    """Return the visual tokens that the class token attends to most.

    Parameters
    ----------
    attention : array of float, shape (H, N)
        Softmax attention of the class token to each visual token, for each head of the vision tower.
    share : float
        Share of the tokens that are key tokens, 0 to 1.

    Returns
    -------
    array of int64, shape (max(1, ceil(share * N)),)
        Indices, the most attended first.

    Raises
    ------
    TypeError
        If `attention` is not a floating-point array, or `share` is not a real number.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `share`
        is out of range.

    Notes
    -----
    Attention is averaged over heads. Of equal scores, the lower index is taken. In half precision every operation is
    rounded, as in the official code.

    References
    ----------
    As `mustdrop`.

    Examples
    --------
    >>> import numpy as np
    >>> mustdrop_key_tokens(np.asarray([[0.1, 0.6, 0.3]]), share=0.5)
    array([1, 2])
    """
    total = check_arrays({"attention": (attention, "H N")})["N"]
    check_number("share", share, 0.0, 1.0)
    precision = Precision.of(attention)
    return largest(head_mean(attention, precision), max(1, math.ceil(share * total)))
