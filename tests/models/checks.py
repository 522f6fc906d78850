"""What has to hold of a pruned model of any class, each against the full-length truth."""

import os
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from iwp_transformers import LayerView, prune_visual_tokens
from tests.models.batches import Batch, make_batch, make_video_batch
from tests.models.factory import attending, decoder_of
from tests.models.oracle import apart, steps, true_logits, true_steps
from tests.models.outside import NO_UNCACHED_DECODING
from tests.models.received import Received, received
from tests.models.sizes import IMAGE, VIDEO
from tests.models.videos import VIDEO_MAKERS

BUDGET, LAYER, NEW, TOLERANCE = 0.3, 2, 3, 1e-4
"""Share of visual tokens kept, layer that prunes, decoded tokens, and how far apart two float32 forwards may be."""

NOTICEABLE = 50 * TOLERANCE
"""How far dropping has to move the logits, so that the comparison can fail."""


def scattered(view: LayerView) -> Tensor:
    """Keep tokens at random, for every sample others."""
    seed = torch.Generator().manual_seed(int(view.visual.positions.sum()))
    return torch.randperm(len(view.visual), generator=seed)[: view.budget]


def dropped_in(record: Any, batch: Batch) -> Tensor:
    """Return which tokens a record says were dropped, shape (B, T)."""
    dropped = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)
    for sample, (visual, kept) in enumerate(zip(record.visual, record.kept, strict=True)):
        placeholders = torch.isin(batch["input_ids"][sample], torch.tensor((IMAGE, VIDEO))).nonzero()[:, 0]
        assert visual.equal(placeholders), f"sample {sample} has {len(placeholders)} visual tokens, not {len(visual)}"
        dropped[sample, visual] = True
        dropped[sample, kept] = False
    return dropped


def check_prefill(model: Any, batch: Batch, layer: int = LAYER, *, moves: bool = True, **options: Any) -> None:
    """Hold the logits of all rows but padding and dropped ones to the truth.

    `moves` says whether any layer from `layer` on reads other rows than its own, so that dropping is noticed.
    """
    options = options or {"selector": scattered}
    with prune_visual_tokens(model, budget=BUDGET, layer=layer, **options) as session, torch.no_grad():
        logits = model(**batch).logits
    dropped = dropped_in(session.records[-1], batch)
    rows = batch["attention_mask"].bool() & ~dropped
    truth = true_logits(model, batch, layer, dropped)
    assert logits.shape == truth.shape, f"logits have shape {tuple(logits.shape)}, not {tuple(truth.shape)}"
    _close(logits[rows], truth[rows], f"prefill from layer {layer} on")
    if not moves:
        return
    with torch.no_grad():
        moved = apart(model(**batch).logits[rows], truth[rows])
    assert moved > NOTICEABLE, f"dropping moves the logits by {moved:.1e} of the largest only: nothing was compared"


def check_decoding(model: Any, batch: Batch, *, judged: bool = True, **options: Any) -> None:
    """Hold the logits of each decoded token to a decoding that removes and caches nothing.

    Where the unpruned model cannot decode without a cache, `judged` is False, and nothing but a refusal will do.
    """
    with prune_visual_tokens(model, budget=BUDGET, layer=LAYER, selector=scattered) as session:
        decoded = steps(model, batch, NEW, **options)
    assert judged, "decoding is not refused, and cannot be judged"
    dropped = dropped_in(session.records[0], batch)
    _close(decoded, true_steps(model, batch, LAYER, dropped, NEW), "decoding")


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    error = apart(actual, expected)
    assert error <= TOLERANCE, f"{what} is off by {error:.1e} of the largest logit"


def check_exact(model: Any, model_type: str) -> None:
    """Run everything that a class has to pass to be called exact, but for static caches and the view."""
    left, right = (make_batch(model, model_type, padding=side) for side in ("left", "right"))
    single, two_images = (make_batch(model, model_type, images=(count,)) for count in (1, 2))
    videos = [make_video_batch(model, model_type)] if model_type in VIDEO_MAKERS else []
    for batch in (single, two_images, left, right, *videos):
        check_prefill(model, batch)
    with attending(model, "eager"):
        check_prefill(model, left)
    for batch in (single, left):
        check_decoding(model, batch, judged=model_type not in NO_UNCACHED_DECODING)


def pruning_layers(model: Any, model_type: str) -> str:
    """Return the layers from which on the class can be pruned, each held to the truth or refused."""
    batch = make_batch(model, model_type)
    decoder, served = decoder_of(model), []
    kinds = getattr(decoder.config, "layer_types", None) or ["full_attention"] * len(decoder.layers)
    for layer in range(len(decoder.layers)):
        try:
            check_prefill(model, batch, layer, moves=not set(kinds[layer:]) <= {"moe", "mlp"})
        except Exception as error:
            if refusal(error) is None:
                raise
            continue
        served.append(str(layer))
    return ", ".join(served)


def static_cache(model: Any, model_type: str) -> str:
    """Return whether decoding on a static cache is exact, refused, or unknown to the model itself."""
    batch = make_batch(model, model_type)
    try:
        same = apart(steps(model, batch, NEW, cache_implementation="static"), steps(model, batch, NEW)) <= TOLERANCE
    except Exception:  # whatever the unpruned model says: it has no static cache
        return "none"
    if not same:
        return "none"
    try:
        check_decoding(model, batch, cache_implementation="static")
    except Exception as error:
        if refusal(error) is None:
            raise
        return "refused"
    return "exact"


def paper_rule(model: Any, model_type: str) -> str:
    """Return whether the paper's rule reads what the attention of a layer receives."""
    batch = make_batch(model, model_type)
    for layer in range(LAYER, len(decoder_of(model).layers)):
        truth = received(model, batch, layer)
        if truth is not None:
            break
    else:
        return "no layer hands queries and keys to an attention function"
    try:
        check_shown(model, batch, layer, truth)
        check_prefill(model, batch, layer, query="text")
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        return reason
    return "exact"


def check_shown(model: Any, batch: Batch, layer: int, truth: Received) -> None:
    """Hold what a selector is shown to what the layer's attention receives, with rotation and without."""
    unrotated = received(model, batch, layer, rotated=False)
    views = shown(model, batch, layer)
    for sample, view in enumerate(views):
        for positions, tokens in view:
            expected = {} if unrotated is None else _tokens(unrotated, sample, positions, "")
            expected |= _tokens(truth, sample, positions, "rotated_")
            for name, there in expected.items():
                assert tokens[name].shape == there.shape, f"`{name}` has shape {tuple(tokens[name].shape)}"
                _close(tokens[name], there, f"`{name}` as shown")


def _tokens(truth: Received, sample: int, positions: Tensor, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}queries": truth.queries[sample][:, positions],
        f"{prefix}keys": truth.keys[sample][:, positions],
        "values": truth.values[sample][:, positions],
    }


NAMES = ("queries", "keys", "rotated_queries", "rotated_keys", "values")


def shown(model: Any, batch: Batch, layer: int) -> list[list[tuple[Tensor, Mapping[str, Tensor]]]]:
    """Return, for each sample, positions and tensors of the visual and of the text tokens that a selector sees."""
    seen: list[list[tuple[Tensor, Mapping[str, Tensor]]]] = []

    def look(view: LayerView) -> Tensor:
        parts = (view.visual, view.text)
        seen.append([(part.positions, {name: getattr(part, name).clone() for name in NAMES}) for part in parts])
        return torch.arange(view.budget)

    with prune_visual_tokens(model, budget=BUDGET, layer=layer, selector=look), torch.no_grad():
        model(**batch)
    return seen


def refusal(error: BaseException) -> str | None:
    """Return the reason if an error is a refusal of the integration's own, None if it is a fault."""
    if not isinstance(error, (NotImplementedError, TypeError, ValueError)):
        return None
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = f"{os.sep}iwp_transformers{os.sep}" in last.filename and (last.line or "").startswith("raise")
    return str(error) if ours else None
