"""Relevance of visual tokens to an instruction, as CDPruner computes it."""

from iwp_core._arrays import Array, namespace
from iwp_core.methods._checks import check_arrays
from iwp_core.methods._context import in_context
from iwp_core.methods._precision import Precision
from iwp_core.methods._ties import tied

__all__ = ["cdpruner_relevance"]


@in_context
def cdpruner_relevance(image: Array, text: Array, /, *, sign: int = -1) -> Array:
    """Return how relevant each visual token is to an instruction, from embeddings in one space of images and texts.

    Parameters
    ----------
    image : array of float, shape (B, N, E)
        Embeddings of the visual tokens of all B crops of an image. With CLIP: its patches after the visual projection.
    text : array of float, shape (T, E)
        Embeddings of the T segments of the instruction.
    sign : {-1, 1}
        1 takes the cosine, as the paper's formula does. -1 takes its negative, which the authors found to be right for
        LLaVA's CLIP.

    Returns
    -------
    array of float, shape (B, N)
        The signed cosine, averaged over the T segments and min-max scaled over all crops together, plus 1e-6 / range.
        Ones if all are equal. In the dtype of the inputs.

    Raises
    ------
    TypeError
        If an array is not floating-point, or arrays are of different libraries.
    ValueError
        If shapes or devices do not match, an axis is empty, or an entry or a computed value is not finite; if `sign` is
        neither 1 nor -1.

    Notes
    -----
    In half precision every operation is rounded, as in the official code.

    References
    ----------
    Zhang et al.: Beyond Attention or Similarity. NeurIPS 2025, arXiv 2506.10967. Code: Theia-4869/CDPruner at 9541616;
    issues 9 and 14 of that repository explain the sign.

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
    cosine = tied(cosine, image)
    low, high = xp.min(cosine), xp.max(cosine)
    spread = precision.round(high - low)
    shifted = precision.round(precision.round(cosine - low) + 1e-6)
    scaled = precision.round(shifted / xp.where(spread > 0, spread, xp.ones_like(spread)))
    return precision.leave(xp.where(spread > 0, scaled, xp.ones_like(scaled)))
