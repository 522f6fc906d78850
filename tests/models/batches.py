"""A ragged batch for a tiny model of any class: one image in each sample, text before and behind it."""

import inspect
from typing import Any

import torch
from torch import Tensor

from tests.models.media import Media, media_for, taker_of
from tests.models.sizes import END, FIRST_SPECIAL, FIRST_WORD, IMAGE, PAD, START

BEFORE, BEHIND = (4, 2), (9, 5)
"""Text tokens around the image of each sample."""

Batch = dict[str, Any]


def make_batch(model: Any, model_type: str, *, samples: int = 2, padding: str = "left") -> Batch:
    """Return what a processor would for one or two samples; texts and images are the same whatever the padding."""
    media = media_for(model, model_type, samples)
    generator = torch.Generator().manual_seed(5)
    opening, closing = ([START], [END]) if _brackets(model) else ([], [])
    rows = []
    for before, behind, length in zip(BEFORE, BEHIND, image_lengths(model, media, samples), strict=False):
        text = torch.randint(FIRST_WORD, FIRST_SPECIAL, (before + behind,), generator=generator).tolist()
        rows.append([*text[:before], *opening, *[IMAGE] * length, *closing, *text[before:]])
    tokens, mask = _padded(rows, padding)
    return {"input_ids": tokens, "attention_mask": mask, **_kinds(model, model_type, tokens), **media}


def _brackets(model: Any) -> bool:
    """Say whether the configuration names a token that opens an image."""
    return START in model.config.to_dict().values()


def _padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    tokens, mask = torch.full((len(rows), longest), PAD), torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), None) if side == "left" else slice(len(row))
        tokens[index, place], mask[index, place] = torch.tensor(row), 1
    return tokens, mask


def _kinds(model: Any, model_type: str, tokens: Tensor) -> Batch:
    """Return which tokens are images, under the names by which the model takes them."""
    names = set().union(*(inspect.signature(type(part).forward).parameters for part in (model, taker_of(model))))
    # PaliGemma's are 1 for the answer to be learnt, which a prompt does not have.
    given = {"mm_token_type_ids", "token_type_ids"} if model_type != "paligemma" else set()
    return {name: (tokens == IMAGE).long() for name in names & given}


def image_lengths(model: Any, media: Media, samples: int) -> list[int]:
    """Return how many tokens each image becomes, asked of the model itself."""
    ask = taker_of(model).get_image_features
    names = inspect.signature(ask).parameters
    anything = any(name.kind is name.VAR_KEYWORD for name in names.values())
    wanted = {name: part for name, part in media.items() if name in names or anything}
    as_output = {"return_dict": True} if anything or "return_dict" in names else {}
    with torch.no_grad():
        answer = ask(**wanted, **as_output)
    features = getattr(answer, "pooler_output", answer)
    if features is None and hasattr(answer, "deepstack_features"):
        # All features enter the decoder behind a layer: pairs of the layer and one tensor for each image.
        features = answer.deepstack_features[0][1]
    features = answer.last_hidden_state if features is None else features
    if isinstance(features, (list, tuple)):
        return [len(feature.reshape(-1, feature.shape[-1])) for feature in features]
    return [features.shape[:-1].numel() // samples] * samples
