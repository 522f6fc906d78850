"""Relevance of visual tokens to an instruction, for CDPruner."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._precision import Precision

__all__ = ["cdpruner_relevance"]


def cdpruner_relevance(image: Array, text: Array, /, *, sign: int = -1) -> Array:
    """Return how relevant each token is to an instruction, from embeddings in a space of images and texts.

    Parameters
    ----------
    image : array, shape (B, N, E)
        Embeddings of the tokens of all B crops of an image (CLIP: patches after the visual projection).
    text : array, shape (T, E)
        Embeddings of the T segments of the instruction.
    sign : int
        -1 takes the negative cosine, which the authors found right for LLaVA's CLIP; 1 the paper's formula.

    Returns
    -------
    array, shape (B, N)
        The mean cosine scaled to [1e-6 / range, 1 + 1e-6 / range] over all crops together; ones where all are equal.

    Raises
    ------
    TypeError
        If an argument is no floating-point array.
    ValueError
        If shapes do not fit, data is not finite, or `sign` is neither 1 nor -1.

    Notes
    -----
    Half-precision inputs are rounded after every operation, as the official code does.

    References
    ----------
    Zhang et al.: Beyond Attention or Similarity. NeurIPS 2025, arXiv 2506.10967; Theia-4869/CDPruner at 9541616, whose
    issues 9 and 14 explain the sign.

    Examples
    --------
    >>> import numpy as np
    >>> cdpruner_relevance(np.asarray([[[1.0, 0.0], [0.0, 1.0]]]), np.asarray([[0.0, 1.0]]), sign=1).round(3)
    array([[0., 1.]])
    """
    check_arrays({"image": (image, "B N E"), "text": (text, "T E")})
    if sign not in (-1, 1):
        msg = f"`sign` is {sign!r}, expected 1 or -1"
        raise ValueError(msg)
    xp = namespace(image)
    precision = Precision.of(image, text)
    units = [precision.units(precision.enter(x)) for x in (image, text)]
    cosine = precision.mean(sign * precision.round(units[0] @ xp.matrix_transpose(units[1])), axis=-1)
    low, high = xp.min(cosine), xp.max(cosine)
    spread = precision.round(high - low)
    shifted = precision.round(precision.round(cosine - low) + 1e-6)
    scaled = precision.round(shifted / xp.where(spread > 0, spread, xp.ones_like(spread)))
    return precision.leave(xp.where(spread > 0, scaled, xp.ones_like(scaled)))
