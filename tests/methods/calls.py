"""One valid call of every public function of `iwp_core.methods`, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iwp_core import methods
from tests.libraries import Library

N, E, D, H, T, M = 12, 5, 4, 2, 3, 5


@dataclass(frozen=True, kw_only=True)
class Call:
    """Arrays by the names of the parameters, what follows them, and options."""

    arrays: Mapping[str, NDArray[Any]]
    rest: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, name: str, xp: Library, *, dtype: str = "float64", **changed: Any) -> Any:
        """Call a function of `iwp_core.methods` on a library's arrays, with some of them exchanged."""
        given = {
            key: changed.get(key, xp.array(x, dtype if x.dtype.kind == "f" else None)) for key, x in self.arrays.items()
        }
        return getattr(methods, name)(*given.values(), *self.rest, **self.options)


def _calls(seed: int = 0) -> dict[str, Call]:
    rng = np.random.default_rng(seed)
    x, keys, text = rng.standard_normal((N, E)), rng.standard_normal((N, D)), rng.standard_normal((T, E))
    heads = rng.dirichlet(np.ones(N), size=H)
    rows = rng.dirichlet(np.ones(N), size=(H, T))
    one = heads.mean(axis=0)
    features, attention = {"features": x}, {"attention": heads}
    both = features | attention
    raters, two = np.asarray([0, 2]), {"visual": x, "text": text}
    gravity = np.abs(rng.standard_normal((T, N))) + 1.0
    queries, head_keys = rng.standard_normal((4, N, D)), rng.standard_normal((H, N, D))
    where = np.arange(2, 8)
    dart = {"states": x, "keys": keys, "text_states": text, "text_keys": rng.standard_normal((T, D))}
    pyramid = {"query": rng.standard_normal((H, D)), "keys": head_keys, "visual": where}
    patches = {"features": x, "keys": keys, "attention": one}
    logits = {"full": rng.standard_normal((2, 6)), "withdrawn": rng.standard_normal((2, 3, 6))}
    image = {"image": rng.standard_normal((1, N, D)), "text": rng.standard_normal((T, D))}
    relevant = features | {"relevance": rng.uniform(size=N)}
    euti = {"hidden": x, "queries": queries, "keys": head_keys, "visual": where}
    return {
        "cdpruner": Call(arrays=relevant, rest=(M,)),
        "cdpruner_order": Call(arrays=relevant, rest=(M,)),
        "cdpruner_relevance": Call(arrays=image),
        "dart": Call(arrays=dart, options={"budget": M, "image_pivots": 1, "text_pivots": 1}),
        "dart_pivots": Call(
            arrays={"keys": keys, "text_keys": dart["text_keys"]}, options={"image_pivots": 2, "text_pivots": 1}
        ),
        "divprune": Call(arrays=features, rest=(M,)),
        "divprune_order": Call(arrays=features, rest=(M,)),
        "divprune_star": Call(arrays=two, rest=(M,)),
        "fastervlm": Call(arrays=attention, rest=(M,)),
        "fastv": Call(arrays=attention, rest=(M,)),
        "fastv_balanced": Call(arrays=attention | {"hidden": x, "last": text[0]}, rest=(M,)),
        "fastv_reverse": Call(arrays=attention, rest=(M,)),
        "fastv_visual": Call(arrays=attention, rest=(M,)),
        "fastv_window": Call(arrays=attention, rest=(M,), options={"grid": (3, 4), "window": 2}),
        "holov": Call(arrays=features | {"attention": one}, rest=(M,), options={"patches": 3}),
        "holov_order": Call(arrays=features | {"attention": one}, rest=(M,), options={"patches": 3}),
        "mustdrop": Call(arrays={"attention": rows, "key_tokens": np.asarray([1])}, options={"budget": M}),
        "mustdrop_key_tokens": Call(arrays=attention),
        "mustdrop_merge": Call(arrays={"tokens": x}, options={"grid": (2, 6), "window": 2, "threshold": 0.0}),
        "outlier_share": Call(arrays={"attention": one}),
        "pact": Call(arrays={"hidden": x, "keys": keys, "importance": one}),
        "pact_importance": Call(arrays=euti),
        "pooling": Call(arrays={"hidden": x}, options={"grid": (3, 4), "window": 2}),
        "prumerge": Call(arrays=patches, options={"budget": M, "neighbours": 3}),
        "prumerge_attention": Call(arrays={"query": keys[0], "keys": keys}),
        "pyramiddrop": Call(arrays=pyramid, rest=(M,)),
        "pyramiddrop_scores": Call(arrays=pyramid),
        "random_tokens": Call(arrays=features, rest=(M,), options={"seed": 3}),
        "rotary_gravity": Call(arrays={"text": np.asarray([9.0]), "visual": np.arange(4.0)}, options={"width": 4}),
        "scope": Call(arrays=both, rest=(M,)),
        "scope_order": Call(arrays=both, rest=(M,)),
        "sparsevlm": Call(arrays={"attention": rows, "raters": raters}, rest=(M,)),
        "sparsevlm_heads": Call(arrays={"attention": rows, "raters": raters, "gravity": gravity}, options={"count": 1}),
        "sparsevlm_raters": Call(arrays=two),
        "sparsevlm_recycle": Call(arrays={"hidden": x, "scores": one, "kept": np.asarray([0, 5])}),
        "sparsevlm_scores": Call(arrays={"attention": rows, "raters": raters}),
        "tome": Call(arrays={"metric": keys, "x": x}, options={"merge": 4}),
        "trimtokenator": Call(arrays=two, rest=(M,)),
        "uniform": Call(arrays=features, rest=(M,)),
        "v2drop": Call(arrays={"before": x, "after": x + rng.standard_normal((N, E))}, rest=(M,)),
        "visionzip": Call(
            arrays={"hidden": x, "keys": keys, "attention": heads}, options={"dominant": 3, "contextual": 2}
        ),
        "vispruner": Call(arrays=both, rest=(M,)),
        "vtw_divergence": Call(arrays=logits),
        "vtw_layer": Call(arrays=logits, options={"threshold": 100.0}),
    }


CALLS = _calls()
KEEPING = sorted(name for name, call in CALLS.items() if call.rest == (M,) or call.options.get("budget") == M)
"""Functions that are given a budget of M tokens."""
