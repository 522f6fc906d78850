"""What the library answers to the golden cases: inputs, arguments and results of the methods' official codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from iwp_core import methods
from tests.libraries import Library, load

Arrays = dict[str, Any]
HALVES = ("bfloat16", "float16")


def answers(method: str, case: Mapping[str, Any], *, library: Library | None = None) -> dict[str, NDArray[Any]]:
    """Answer a golden case.

    Parameters
    ----------
    method : str
        Stem of a golden file, as ``"divprune"``.
    case : mapping
        The case's ``in_*`` and ``arg_*`` arrays (NumPy).
    library : Library, optional
        On whose arrays the method runs. Default NumPy; PyTorch where the case is in bfloat16, which NumPy lacks.

    Returns
    -------
    dict
        The ``out_*`` arrays (NumPy) that the library reproduces, always with the case's own arguments.
    """
    dtype = str(case.get("arg_dtype", "float32"))
    xp = library or load("torch" if dtype == "bfloat16" else "numpy")
    inputs = {name[3:]: xp.array(np.asarray(x), dtype) for name, x in case.items() if name.startswith("in_")}
    options = {name[4:]: _plain(x) for name, x in case.items() if name.startswith("arg_")}
    found = ANSWERS[method](xp, inputs, options)
    return {f"out_{name}": np.asarray(x) if _is_plain(x) else xp.numpy(x) for name, x in found.items()}


def _is_plain(x: object) -> bool:
    return isinstance(x, np.ndarray | int | float | list)


def _plain(x: Any) -> Any:
    """Return an argument as Python has it; of a float32 the decimal number that was meant."""
    value = np.asarray(x)[()]
    return float(str(value)) if isinstance(value, np.floating) else value.item() if hasattr(value, "item") else value


def _sequence(kept: NDArray[Any], start: int, total: int, length: int) -> NDArray[Any]:
    """Return the positions of a whole sequence that stay when of the visual tokens `kept` do."""
    return np.concatenate([np.arange(start), kept + start, np.arange(start + total, length)])


def _fastv(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    row = x["attn_last_row"]
    kept = xp.numpy(methods.fastv(row[:, arg["v0"] : arg["v0"] + arg["N"]], arg["M"]))
    return {"keep_sequence": _sequence(kept, arg["v0"], arg["N"], row.shape[1])}


def _divprune(_xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    return {"order": methods.divprune_order(x["X"], arg["M"])}


def _cdpruner(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    relevance = methods.cdpruner_relevance(x["image_embeds"], x["text_embeds"])
    crops = range(relevance.shape[0])
    orders = [xp.numpy(methods.cdpruner_order(x["X"][i, ...], relevance[i, ...], arg["M"])) for i in crops]
    return {"relevance": relevance, "order": np.stack(orders), "keep": np.sort(np.stack(orders), axis=1)}


def _scope(_xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    combination = {"multi": "multiply", "add": "add"}[arg["combined"]]
    order = methods.scope_order(x["X"], x["cls_attn"], arg["M"], exponent=arg["alpha"], combination=combination)
    return {"order": order}


def _visionzip(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    dominant, contextual = arg["dominant"], arg["contextual"]
    merged = methods.visionzip(x["hidden"], x["keys"], x["cls_attn"], dominant=dominant, contextual=contextual)
    kept, assignment = xp.numpy(merged.kept), xp.numpy(merged.assignment)
    others = np.setdiff1d(np.arange(assignment.shape[0]), kept)
    return {
        "dominant": kept[:dominant],
        "contextual_targets": kept[dominant:],
        "assign": assignment[others] - dominant,
        "tokens": merged.tokens,
    }


def _vispruner(_xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    return {"keep": methods.vispruner(x["X"], x["cls_attn"], arg["M"], important=arg["important_ratio"])}


def _fastervlm(_xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    return {"keep": methods.fastervlm(x["cls_attn"], arg["M"])}


def _sparsevlm(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    start, total = arg["v0"], arg["N"]
    stop = start + total
    embeds, attention = x["embeds"], x["attn_text_rows"]
    raters = methods.sparsevlm_raters(embeds[start:stop, :], embeds[stop:, :])
    gravity = None
    if arg["version"] == "2_0":
        positions = xp.array(np.arange(embeds.shape[0], dtype=np.float32))
        gravity = methods.rotary_gravity(positions[stop:], positions[start:stop], width=arg["head_dim"])
    scores = methods.sparsevlm_scores(attention, raters, gravity=gravity)
    kept = methods.sparsevlm(attention, raters, min(arg["budget"], total - 1), gravity=gravity)
    found = {"raters": raters, "scores": scores, "keep": kept}
    return found if gravity is None else found | {"heads": methods.sparsevlm_heads(attention, raters, gravity)}


def _pyramiddrop(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    start, count = arg["v0"], arg["n"]
    visual = xp.array(np.arange(start, start + count))
    tokens = (x["q_last_rotated"], x["k_rotated"], visual)
    kept = xp.numpy(methods.pyramiddrop(*tokens, arg["keep"]))
    length = x["k_rotated"].shape[1]
    sequence = _sequence(kept, start, count, length)
    return {"scores": methods.pyramiddrop_scores(*tokens), "keep": kept, "keep_sequence": sequence}


def _v2drop(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    start, total = arg["v0"], arg["N"]
    visual = slice(start, start + total)
    kept = xp.numpy(methods.v2drop(x["prev"][visual, :], x["cur"][visual, :], arg["k"]))
    return {"keep_sequence": _sequence(kept, start, total, x["cur"].shape[0])}


def _dart(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    start, total = arg["v0"], arg["N"]
    stop, pivots = start + total, arg["pivot_image"] + arg["pivot_text"]
    states = x["z"]
    keys = _heads_last(x["keys"])
    quota = _quota(arg, total, pivots)
    kept = methods.dart(
        states[start:stop, :],
        keys[start:stop, :],
        states[stop:, :],
        keys[stop:, :],
        quota=quota,
        image_pivots=arg["pivot_image"],
        text_pivots=arg["pivot_text"],
        offset=start,
    )
    return {"keep": xp.numpy(kept) + start, "q": quota}


def _heads_last(keys: Any) -> Any:
    """Return keys (H, L, D) as (L, H * D)."""
    xp = array_namespace(keys)
    return xp.reshape(xp.permute_dims(keys, (1, 0, 2)), (keys.shape[1], -1))


def _quota(arg: Arrays, total: int, pivots: int) -> int:
    """Compute the official number of tokens for each pivot.

    A ratio 1 - M/N went into the files as float32; it is read back as that fraction, where it is no short decimal.
    """
    if arg["version"] != "qwen2vl" and arg["max_num"] >= 0:
        return int(arg["max_num"] // pivots)
    ratio = arg["reduction_ratio"]
    if len(str(ratio)) > 6:
        ratio = 1 - round(total * (1 - ratio)) / total
    kept = total * (1 - ratio)
    return int(kept / pivots) if arg["version"] == "qwen2vl" else math.ceil(kept // pivots)


def _pact(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    start, total = arg["v0"], arg["N"]
    stop, width = start + total, arg["head_dim"]
    queries, keys = (_split(x[name][:stop, :], width) for name in ("q", "k"))
    importance = methods.pact_importance(x["hidden"][:stop, :], queries, keys, xp.array(np.arange(start, stop)))
    merged = methods.pact(
        x["hidden"][start:stop, :],
        x["k_rotated"][start:stop, :],
        importance,
        cutoff=arg["cutoff"],
        share=arg["keep_share"],
    )
    centres, assignment = xp.numpy(merged.kept), xp.numpy(merged.assignment)
    scores = xp.numpy(importance)
    survivors = np.sort(np.argsort(-scores, kind="stable")[: int(arg["keep_share"] * total)])
    pruned = np.setdiff1d(np.arange(total), survivors)
    order = np.concatenate([survivors, pruned])
    number = np.searchsorted(survivors, centres)
    return {
        "euti_scores": importance,
        "euti_keep": survivors,
        "labels": np.where(assignment[order] < 0, -1, number[assignment[order]]),
        "centres": centres,
        "merged": merged.tokens,
        "weights": merged.sizes,
    }


def _split(x: Any, width: int) -> Any:
    """Return heads side by side (L, H * D) as (H, L, D)."""
    xp = array_namespace(x)
    return xp.permute_dims(xp.reshape(x, (x.shape[0], -1, width)), (1, 0, 2))


def _tome(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    merged = methods.tome(
        x["metric"], x["x"], sizes=x["size"], merge=max(0, arg["r"]), class_token=bool(arg["class_token"])
    )
    assignment = xp.numpy(merged.assignment)
    source = assignment[None, :] == np.arange(merged.kept.shape[0])[:, None]
    return {"x": merged.tokens, "size": merged.sizes, "source_map": source.astype(np.uint8)}


def _prumerge(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    attention = methods.prumerge_attention(x["q_cls"], x["k"])
    share = arg["ratio"] if arg["ratio"] > 0 else methods.outlier_share(attention)
    merged = methods.prumerge(x["hidden"][1:, :], x["k"][1:, :], attention, share=share, spread=arg["mode"] == "plus")
    kept, tokens = xp.numpy(merged.kept), xp.numpy(merged.tokens)
    if kept.shape[0] == attention.shape[0]:  # nothing is dropped, and the official code appends a sum of nothing
        return {"scores": attention, "ratio": share, "index_order": kept, "tokens": np.pad(tokens, ((0, 1), (0, 0)))}
    return {"scores": attention, "ratio": share, "index_order": kept[:-1], "tokens": tokens}


def _vtw(_xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    full, withdrawn = x["logits_full"], x["logits_withdrawn"]
    divergence = methods.vtw_divergence(full, withdrawn)
    try:
        layer = methods.vtw_layer(full, withdrawn, threshold=arg["eta"])
    except ValueError:
        layer = -1
    return {"KL": divergence, "K": layer}


def _mustdrop(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    if "x" in x:
        tokens, side = x["x"], arg["grid"]
        merged = methods.mustdrop_merge(tokens[1:, :], grid=(side, side), threshold=arg["threshold"])
        class_token, sizes = xp.numpy(tokens[:1, :]), xp.numpy(merged.sizes)
        return {
            "tokens": np.concatenate([class_token, xp.numpy(merged.tokens)]),
            "sizes": np.concatenate([[1], sizes]),
            "n_merged": int((sizes > 1).sum()),
        }
    order = methods.mustdrop_key_tokens(x["cls_attn"][:, 1:])
    key_tokens = np.sort(xp.numpy(order))
    kept = methods.mustdrop(
        x["attn_text_rows"],
        xp.array(key_tokens),
        share_threshold=arg["global_thr"],
        single_threshold=arg["individual_thr"],
    )
    positions = np.searchsorted(xp.numpy(kept), key_tokens)
    return {"key_set_topk_order": order, "keep": kept, "key_set_new_positions": positions}


def _holov(xp: Library, x: Arrays, arg: Arrays) -> Arrays:
    order = xp.numpy(methods.holov_order(x["X"], x["attn"], arg["M"], patches=arg["P"]))
    padding = np.full(arg["M"] - order.shape[0], -1, dtype=order.dtype)
    return {"positions_order": np.concatenate([order, padding])}


ANSWERS: dict[str, Callable[[Library, Arrays, Arrays], Arrays]] = {
    function.__name__.removeprefix("_"): function
    for function in (
        _fastv, _divprune, _cdpruner, _scope, _visionzip, _vispruner, _fastervlm, _sparsevlm, _pyramiddrop, _v2drop,
        _dart, _pact, _tome, _prumerge, _vtw, _mustdrop, _holov,
    )
}  # fmt: skip
