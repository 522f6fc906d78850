"""DivPrune*: DivPrune on the visual tokens that are best aligned with the text."""

from iwp_core._arrays import Array
from iwp_core.budget import tokens_to_keep
from iwp_core.methods._context import in_context
from iwp_core.methods._ranking import in_sequence, tokens_at
from iwp_core.methods.max_min import greedy_max_min
from iwp_core.methods.trimtokenator import aligned

__all__ = ["divprune_star"]


@in_context
def divprune_star(visual: Array, text: Array, /, budget: float, *, alignment: str = "l2", share: float = 0.8) -> Array:
    """Keep tokens that are aligned with the text and far apart from each other.

    The published method reads the visual tokens and the text embeddings at the input of the language model.

    Parameters
    ----------
    visual : array of float, shape (N, E)
        Visual tokens.
    text : array of float, shape (T, E)
        Text tokens.
    budget : int or float
        Number of tokens to keep, or their share, as in `select_tokens`.
    alignment, share : str, float
        Measure of alignment and share of the tokens that pass the first stage, as in `trimtokenator`.

    Returns
    -------
    array of int64, shape (M,)
        Indices of the tokens to keep, ascending and distinct.

    Raises
    ------
    TypeError, ValueError
        As `trimtokenator`.

    Notes
    -----
    The first stage is that of `trimtokenator`, the second is `divprune`. Of equal scores, the lower index is taken.
    There is no official code.

    References
    ----------
    Zhang et al.: TrimTokenator. arXiv 2509.00320, section 5.4.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [9.0, 9.0]])
    >>> divprune_star(x, x[:1, :], 2)
    array([0, 2])
    """
    candidates = aligned(visual, text, budget, alignment=alignment, share=share)
    chosen = greedy_max_min(tokens_at(visual, candidates), tokens_to_keep(budget, visual.shape[0]))
    return in_sequence(tokens_at(candidates, chosen))
