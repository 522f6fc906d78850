"""Rules of the papers that choose or merge visual tokens, each on plain arrays of any library."""

from iwp_core.methods.cdpruner import cdpruner, cdpruner_order, cdpruner_relevance
from iwp_core.methods.dart import dart, dart_pivots, dart_quota
from iwp_core.methods.divprune import divprune, divprune_order
from iwp_core.methods.fastervlm import fastervlm
from iwp_core.methods.fastv import fastv, fastv_reverse, fastv_visual
from iwp_core.methods.holov import holov, holov_order
from iwp_core.methods.mustdrop import mustdrop, mustdrop_key_tokens
from iwp_core.methods.mustdrop_merging import mustdrop_merge
from iwp_core.methods.pact import pact, pact_importance
from iwp_core.methods.prumerge import outlier_share, prumerge, prumerge_attention
from iwp_core.methods.pyramiddrop import pyramiddrop, pyramiddrop_scores
from iwp_core.methods.rotary_gravity import rotary_gravity
from iwp_core.methods.scope import scope, scope_order
from iwp_core.methods.sparsevlm import sparsevlm, sparsevlm_heads, sparsevlm_raters, sparsevlm_scores
from iwp_core.methods.sparsevlm_recycling import sparsevlm_recycle
from iwp_core.methods.tome import tome
from iwp_core.methods.v2drop import v2drop
from iwp_core.methods.visionzip import visionzip
from iwp_core.methods.vispruner import vispruner
from iwp_core.methods.vtw import vtw_divergence, vtw_layer
