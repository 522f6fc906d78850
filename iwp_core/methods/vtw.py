"""VTW: drop all visual tokens from one layer on, and find that layer."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision

__all__ = ["vtw_divergence", "vtw_layer"]

FIRST = 5
"""First layer that the official calibration tries."""


@in_context
def vtw_layer(full: Array, withdrawn: Array, /, *, threshold: float = 0.003, first: int = FIRST) -> int:
    """Find the first layer from which on all visual tokens can be dropped while the next token hardly changes.

    The method itself keeps no visual token from that layer on. To find it, run the model on calibration samples: once
    with all visual tokens, and once for each layer that is tried.

    Parameters
    ----------
    full : array of float, shape (S, V)
        Next-token logits of the model with all visual tokens, for S samples and a vocabulary of V tokens.
    withdrawn : array of float, shape (S, R, V)
        Next-token logits with all visual tokens dropped from layer `first`, `first` + 1, ..., `first` + R - 1 on.
    threshold : float
        Largest mean divergence that is allowed, at least 0. The official code has 0.003 for LLaVA-1.5-7B and any other
        model, 0.0005 for LLaVA-1.5-13B and 0.0001 for LLaVA-1.6-7B.
    first : int
        First layer that is tried, at least 0.

    Returns
    -------
    int
        The smallest layer k at which KL(p_k || p_full), averaged over the samples, is at most `threshold`.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries; if a number has the wrong type.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if a number
        is out of range; if no layer qualifies.

    Notes
    -----
    Deviation: if no layer qualifies, the error names the smallest divergence; the official code raises an IndexError.

    References
    ----------
    Lin et al.: Boosting Multimodal LLMs with Visual Tokens Withdrawal. AAAI 2025, arXiv 2405.05803. Code: lzhxmu/VTW at
    a3d8cfc.

    Examples
    --------
    >>> import numpy as np
    >>> full = np.asarray([[0.0, 1.0]])
    >>> vtw_layer(full, np.asarray([[[1.0, 0.0], [0.0, 1.0]]]), first=5)
    6
    """
    check_number("threshold", threshold, 0.0, float("inf"))
    check_count("first", first, 0)
    divergence = vtw_divergence(full, withdrawn)
    means = [float(mean) for mean in namespace(full).mean(divergence, axis=0)]
    for layer, mean in enumerate(means, start=first):
        if mean <= threshold:
            return layer
    msg = f"`threshold` is {threshold:g}, but the smallest mean divergence of `withdrawn` is {min(means):g}"
    raise ValueError(msg)


@in_context
def vtw_divergence(full: Array, withdrawn: Array, /) -> Array:
    """Return how much the distribution of the next token changes when the visual tokens are dropped.

    Parameters
    ----------
    full, withdrawn : array
        As for `vtw_layer`.

    Returns
    -------
    array of float, shape (S, R)
        Kullback-Leibler divergence KL(p_k || p_full) in nats, at least 0, for each sample and each layer tried.

    Raises
    ------
    TypeError, ValueError
        As `vtw_layer`.

    Examples
    --------
    >>> import numpy as np
    >>> vtw_divergence(np.asarray([[0.0, 0.0]]), np.asarray([[[0.0, 0.0], [0.0, np.log(3)]]])).round(3)
    array([[0.   , 0.131]])
    """
    check_arrays({"full": (full, "S V"), "withdrawn": (withdrawn, "S R V")})
    xp = namespace(full)
    precision = Precision.of(full, withdrawn)
    target, other = (_log_softmax(precision.enter(x)) for x in (full, withdrawn))
    return xp.sum(xp.exp(other) * (other - target[:, None, :]), axis=-1)


def _log_softmax(logits: Array) -> Array:
    xp = namespace(logits)
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
