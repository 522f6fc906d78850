"""Selection and merging rules of published methods, on plain arrays of any library.

Each function takes the arrays of one sample, positional-only, and returns indices or merged tokens. `array of float`
stands for float16, bfloat16, float32 or float64. Computation is in float32, or in float64 if an array is float64. All
arrays of a call are of one library and on one device. Beside the shape letters of `iwp_core`, L is the number of tokens
in the sequence and S that of samples. The pruning layer is the first layer that no longer sees the dropped tokens.
Neither gradients nor torch's autocast nor TF32 reach a rule, except for those that return merged tokens.
"""

from iwp_core.methods._merged import MergedTokens
from iwp_core.methods.cdpruner import cdpruner, cdpruner_order
from iwp_core.methods.cdpruner_relevance import cdpruner_relevance
from iwp_core.methods.dart import dart
from iwp_core.methods.dart_pivots import dart_pivots, dart_quota
from iwp_core.methods.divprune import divprune, divprune_order
from iwp_core.methods.divprune_star import divprune_star
from iwp_core.methods.fastervlm import fastervlm
from iwp_core.methods.fastv import fastv, fastv_visual
from iwp_core.methods.fastv_balanced import fastv_balanced
from iwp_core.methods.fastv_reverse import fastv_reverse
from iwp_core.methods.fastv_window import fastv_window
from iwp_core.methods.holov import holov, holov_order
from iwp_core.methods.mustdrop import mustdrop
from iwp_core.methods.mustdrop_key_tokens import mustdrop_key_tokens
from iwp_core.methods.mustdrop_merging import mustdrop_merge
from iwp_core.methods.pact import pact
from iwp_core.methods.pact_importance import pact_importance
from iwp_core.methods.pooling import pooling
from iwp_core.methods.prumerge import prumerge
from iwp_core.methods.prumerge_attention import prumerge_attention
from iwp_core.methods.prumerge_share import outlier_share
from iwp_core.methods.pyramiddrop import pyramiddrop, pyramiddrop_scores
from iwp_core.methods.random_tokens import random_tokens
from iwp_core.methods.rotary_gravity import rotary_gravity
from iwp_core.methods.scope import scope, scope_order
from iwp_core.methods.sparsevlm import sparsevlm
from iwp_core.methods.sparsevlm_counts import sparsevlm_counts
from iwp_core.methods.sparsevlm_raters import sparsevlm_raters
from iwp_core.methods.sparsevlm_recycling import sparsevlm_recycle
from iwp_core.methods.sparsevlm_scores import sparsevlm_heads, sparsevlm_scores
from iwp_core.methods.tome import tome
from iwp_core.methods.trimtokenator import trimtokenator
from iwp_core.methods.uniform import uniform
from iwp_core.methods.v2drop import v2drop
from iwp_core.methods.visionzip import visionzip
from iwp_core.methods.vispruner import vispruner
from iwp_core.methods.vtw import vtw_divergence, vtw_layer

__all__ = [
    "MergedTokens",
    "cdpruner",
    "cdpruner_order",
    "cdpruner_relevance",
    "dart",
    "dart_pivots",
    "dart_quota",
    "divprune",
    "divprune_order",
    "divprune_star",
    "fastervlm",
    "fastv",
    "fastv_balanced",
    "fastv_reverse",
    "fastv_visual",
    "fastv_window",
    "holov",
    "holov_order",
    "mustdrop",
    "mustdrop_key_tokens",
    "mustdrop_merge",
    "outlier_share",
    "pact",
    "pact_importance",
    "pooling",
    "prumerge",
    "prumerge_attention",
    "pyramiddrop",
    "pyramiddrop_scores",
    "random_tokens",
    "rotary_gravity",
    "scope",
    "scope_order",
    "sparsevlm",
    "sparsevlm_counts",
    "sparsevlm_heads",
    "sparsevlm_raters",
    "sparsevlm_recycle",
    "sparsevlm_scores",
    "tome",
    "trimtokenator",
    "uniform",
    "v2drop",
    "visionzip",
    "vispruner",
    "vtw_divergence",
    "vtw_layer",
]
