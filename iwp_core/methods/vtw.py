"""VTW: withdraw all visual tokens from one layer on, and find that layer."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays, check_count, check_number
from iwp_core.methods._precision import Precision

__all__ = ["vtw_divergence", "vtw_layer"]

FIRST = 5
"""First layer that the official calibration tries."""


def vtw_layer(full: Array, withdrawn: Array, /, *, threshold: float = 0.003, first: int = FIRST) -> int:
    """Find the first layer from which on all visual tokens can be withdrawn without changing the next token much.

    Reads the logits of the next token on calibration samples, once from the whole model and once for each layer that
    is tried. The method itself keeps no visual token from the layer found.

    Parameters
    ----------
    full : array, shape (S, V)
        Logits of the model with all tokens, for S samples.
    withdrawn : array, shape (S, R, V)
        Logits with all visual tokens withdrawn at layers first, first + 1, ..., first + R - 1.
    threshold : float
        Largest mean divergence allowed. Official: 0.003 (LLaVA-1.5-7B and any other), 0.0005 (13B), 0.0001 (1.6-7B).
    first : int
        First layer tried, at least 0.

    Returns
    -------
    int
        The smallest layer k whose mean KL(p_k || p_full) over the samples is at most the threshold.

    Raises
    ------
    TypeError
        If an argument is no floating-point array, or a number none.
    ValueError
        If shapes do not fit, data is not finite, a number is out of range, or no layer qualifies.

    Notes
    -----
    Deviation from the official code: where no layer qualifies, the error says so and names the smallest divergence.

    References
    ----------
    Lin et al.: Boosting Multimodal LLMs with Visual Tokens Withdrawal. AAAI 2025, arXiv 2405.05803; lzhxmu/VTW at
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


def vtw_divergence(full: Array, withdrawn: Array, /) -> Array:
    """Return the Kullback-Leibler divergence of each withdrawal, for each sample, in nats.

    Parameters
    ----------
    full, withdrawn : array
        As for `vtw_layer`.

    Returns
    -------
    array, shape (S, R)

    Raises
    ------
    TypeError, ValueError
        As `vtw_layer`.
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
