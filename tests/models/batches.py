"""A ragged batch for a tiny model of any class: images with text before, between and behind them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tests.models.media import Media, media_for, taker_of
from tests.models.sizes import END, FIRST_SPECIAL, FIRST_WORD, IMAGE, PAD, START, VIDEO
from tests.models.videos import VIDEOS, videos_for

TEXTS = ((4, 9, 3), (2, 5, 3))
"""Text tokens of each sample: before its first image, and behind each."""

Batch = dict[str, Any]


def make_batch(model: Any, model_type: str, images: Sequence[int] = (1, 1), padding: str = "left") -> Batch:
    """Return what a processor would for samples of so many images; all is the same whatever the padding."""
    media = media_for(model, model_type, images)
    lengths = feature_lengths(taker_of(model).get_image_features, media, sum(images))
    return {**_texts(model, model_type, images, IMAGE, lengths, padding), **media}


def make_video_batch(model: Any, model_type: str) -> Batch:
    """Return what a processor would for two samples of one video each, padded at the left."""
    media = videos_for(model, model_type)
    lengths = feature_lengths(taker_of(model).get_video_features, media, VIDEOS)
    return {**_texts(model, model_type, [1] * VIDEOS, VIDEO, lengths, "left"), **media}


def _texts(
    model: Any, model_type: str, counts: Sequence[int], placeholder: int, lengths: Sequence[int], padding: str
) -> Batch:
    generator = torch.Generator().manual_seed(5)
    opening, closing = ([START], [END]) if _brackets(model) else ([], [])
    remaining = iter(lengths)
    rows = []
    for count, texts in zip(counts, TEXTS, strict=False):
        row = _text(texts[0], generator)
        for behind in texts[1 : 1 + count]:
            row += [*opening, *[placeholder] * next(remaining), *closing, *_text(behind, generator)]
        rows.append(row)
    tokens, mask = _padded(rows, padding)
    return {"input_ids": tokens, "attention_mask": mask, **_kinds(model, model_type, tokens)}


def _text(length: int, generator: torch.Generator) -> list[int]:
    return torch.randint(FIRST_WORD, FIRST_SPECIAL, (length,), generator=generator).tolist()


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
    """Return what kind each token is of, under the names by which the model takes it."""
    names = set().union(*(inspect.signature(type(part).forward).parameters for part in (model, taker_of(model))))
    # PaliGemma's are 1 for the answer, which a prompt does not have, and 0 for the prefix that sees itself whole.
    kinds = torch.zeros_like(tokens) if model_type == "paligemma" else (tokens == IMAGE) + 2 * (tokens == VIDEO)
    return dict.fromkeys(names & {"mm_token_type_ids", "token_type_ids"}, kinds)


def feature_lengths(ask: Callable[..., Any], media: Media, count: int) -> list[int]:
    """Return how many tokens each image or video becomes, by the model's own method that computes the features."""
    names = inspect.signature(ask).parameters
    anything = any(name.kind is name.VAR_KEYWORD for name in names.values())
    pixels, *others = media.items()
    wanted = {name: part for name, part in others if name in names or anything}
    strategy = names.get("vision_feature_select_strategy")
    if strategy is not None and strategy.default is strategy.empty:
        # Llama 4 in older versions.
        wanted["vision_feature_select_strategy"] = "default"
    as_output = {"return_dict": True} if anything or "return_dict" in names else {}
    with torch.no_grad():
        # The pixels by their place: their name differs between versions of Transformers.
        answer = ask(pixels[1], **wanted, **as_output)
    features = getattr(answer, "pooler_output", answer)
    if features is None and hasattr(answer, "deepstack_features"):
        # All features enter the decoder behind a layer: pairs of the layer and one tensor for each image.
        features = answer.deepstack_features[0][1]
    features = answer.last_hidden_state if features is None else features
    if isinstance(features, (list, tuple)):
        lengths = [feature.shape[:-1].numel() for feature in features]
        return lengths if len(lengths) == count else [sum(lengths) // count] * count
    return [features.shape[:-1].numel() // count] * count
