"""Visual-token pruning on stock Transformers models, with one `with` line.

Shape letters: `B` batch, `T` tokens of the padded input, `Q` new tokens, `E` width of the hidden states, `Hq` query
heads, `H` key/value heads, `D` head width, `N` visual tokens of a sample, `M` rows kept.
"""

from iwp_transformers.capture import LayerView, TokenView
from iwp_transformers.families import family_of, supported_models
from iwp_transformers.record import PrefillSummary, PruningRecord
from iwp_transformers.session import PruningSession, prune_visual_tokens

__all__ = [
    "LayerView",
    "PrefillSummary",
    "PruningRecord",
    "PruningSession",
    "TokenView",
    "family_of",
    "prune_visual_tokens",
    "supported_models",
]
