"""Token pruning as implicit weight pruning, on the arrays of any library with the Array API standard.

Attention is an implicit linear layer whose weight is a sum of rank-1 updates phi(k_i) (x) v_i, one a token. Pruning
keeps the updates that carry most magnitude and least duplication (arXiv 2604.00757).

Shape letters, the same everywhere
----------------------------------
B batch, H key/value heads, Hq query heads (a multiple of H), N visual tokens, D width of queries and keys, Dv width of
values, T query tokens, E width of hidden states, M tokens kept, R and C rows and columns of a block of token pairs.
"""

from iwp_core._plugins import Backend, Kernel, overridable, use_backend
from iwp_core.budget import Tolerance
from iwp_core.dual_weight import deletion_error, dual_spectrum, log_update_norm
from iwp_core.duplication import information_duplication, update_cosine
from iwp_core.magnitude import information_magnitude
from iwp_core.overlap import selection_overlap
from iwp_core.select import select_tokens
from iwp_core.strategies import MMR, PCMMR, Strategy, TopK

__version__ = "0.2.0"

__all__ = [
    "MMR",
    "PCMMR",
    "Backend",
    "Kernel",
    "Strategy",
    "Tolerance",
    "TopK",
    "deletion_error",
    "dual_spectrum",
    "information_duplication",
    "information_magnitude",
    "log_update_norm",
    "overridable",
    "select_tokens",
    "selection_overlap",
    "update_cosine",
    "use_backend",
]
