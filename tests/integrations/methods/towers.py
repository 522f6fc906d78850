"""What a vision tower computes, read anew: an eager copy that returns its whole attention, placed by loops."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tests.integrations.tiny_models import CROP, PATCH

SIDE = CROP // PATCH
"""Patches along each side of a tile of the LLaVA miniatures."""


def eager_tower(model: Any) -> Any:
    """Return a copy of the model's vision tower in eager attention."""
    name = "visual" if hasattr(model.model, "visual") else "vision_tower"
    tower = copy.deepcopy(getattr(model.model, name))
    tower.set_attn_implementation("eager")
    return tower


def _unwindowed(rows: Tensor, height: int, width: int, window: int = 2) -> Tensor:
    """Put (heads, patches) of one image in windows back into the order of the pixels, four patches a token."""
    order = [
        row * width + column
        for top in range(0, height, window)
        for left in range(0, width, window)
        for row in range(top, min(top + window, height))
        for column in range(left, min(left + window, width))
    ]
    found = torch.empty_like(rows).view(len(rows), -1, 4)
    found[:, order] = rows.view(len(rows), -1, 4)
    return found.flatten(1)


def tokens_of_views(model: Any, patches: list[Tensor]) -> list[Tensor]:
    """Return (heads, tokens) of each image or tile whose (heads, patches) are given."""
    if hasattr(model.model, "visual"):
        return [part.view(len(part), -1, 4).mean(2) for part in patches]
    return patches


@dataclass(frozen=True)
class TowerReading:
    """What the tower computes for the visual tokens of one sample, N of them.

    Attributes
    ----------
    attention, whole_attention : Tensor
        Shapes (Hq, N) and (N,): received by head, and by whole queries and keys.
    keys : Tensor
        Shape (N, H, D).
    features, states : Tensor
        Shapes (N, width) and (N, E): before the projector, and what the language model gets.
    early : Tensor
        Shape (N, width): what the first layer returns.
    view : Tensor
        Shape (N,): which image or tile, -1 for newlines.
    project : callable
        From what tokens are merged in to states.
    """

    attention: Tensor
    whole_attention: Tensor
    keys: Tensor
    features: Tensor
    states: Tensor
    early: Tensor
    view: Tensor
    project: Callable[[Tensor], Tensor]
    unprojected: Tensor


def views_of(tower: TowerReading) -> list[Tensor]:
    """Return the indices of the tokens of each view."""
    numbers = sorted(set(tower.view[tower.view >= 0].tolist()))
    return [(tower.view == number).nonzero().squeeze(1) for number in numbers]


def read_tower(model: Any, inputs: dict[str, Any]) -> list[TowerReading]:
    """Return what an eager tower computes for each sample of `PAIR`."""
    qwen = hasattr(model.model, "visual")
    rows = _qwen_rows(model, inputs) if qwen else _llava_rows(model, inputs)
    with torch.no_grad():
        names = ("pixel_values", "image_sizes", "batch_num_images", "image_grid_thw")
        given = {name: inputs[name] for name in names if name in inputs}
        states = torch.cat(list(model.get_image_features(**given, return_dict=True).pooler_output))
    counts = (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist()
    readings = []
    for start, stop in pairwise([0, *torch.tensor(counts).cumsum(0).tolist()]):
        own = {name: part[start:stop] for name, part in rows.items()}
        readings.append(
            TowerReading(
                attention=own["attention"].T,
                whole_attention=own["whole"][:, 0],
                keys=own["keys"].unflatten(1, (own["attention"].shape[1], -1)),
                features=own["features"],
                states=states[start:stop],
                early=own["early"],
                view=own["view"][:, 0],
                project=(lambda merged: merged) if qwen else _projector(model),
                unprojected=states[start:stop] if qwen else own["features"],
            )
        )
    return readings


def _projector(model: Any) -> Callable[[Tensor], Tensor]:
    def project(features: Tensor) -> Tensor:
        with torch.no_grad():
            return model.model.multi_modal_projector(features)

    return project


def _llava_rows(model: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return what the rows of the tower hold, token by token, placed by loops."""
    tower = eager_tower(model)
    layer = tower.encoder.layers[-1]
    pixels = [images[: _tiles(model, inputs, place)] for place, images in enumerate(inputs["pixel_values"])]
    with torch.no_grad():
        output = tower(torch.cat(pixels), output_attentions=True, output_hidden_states=True)
        normed = layer.layer_norm1(output.hidden_states[-2])
        queries, keys = layer.self_attn.q_proj(normed), layer.self_attn.k_proj(normed)
    whole = (queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5).softmax(-1)
    first = int("CLIP" in type(tower).__name__)
    attention = output.attentions[-1]
    parts = {
        "attention": (attention[:, :, 0] if first else attention.mean(2)).transpose(1, 2)[:, first:],
        "whole": (whole[:, 0] if first else whole.mean(1))[:, first:, None],
        "keys": keys[:, first:],
        "features": output.hidden_states[-1][:, first:],
        "early": output.hidden_states[1][:, first:],
        "view": torch.arange(len(attention))[:, None, None].expand(-1, SIDE**2, 1),
    }
    return {name: torch.cat(_sequence(model, inputs, part)) for name, part in parts.items()}


def _tiles(model: Any, inputs: dict[str, Any], place: int) -> int:
    """Return how many tiles an image of `PAIR` has: alone in its prompt, or always in LLaVA-NeXT, also crops."""
    height, width = inputs["image_sizes"][place].tolist()
    alone = "Next" in type(model).__name__ or place == len(inputs["image_sizes"]) - 1
    return 1 + _crops(height, width)[0] * _crops(height, width)[1] if alone else 1


def _crops(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of crops: the pinpoint that loses least of the image, and then wastes least."""
    return {(24, 32): (2, 2), (16, 16): (1, 2), (32, 16): (2, 1)}[height, width]


def _sequence(model: Any, inputs: dict[str, Any], part: Tensor) -> list[Tensor]:
    """Lay (tiles, patches, C) out as the sequence has them; a newline is -1 in views and 0 otherwise."""
    newline = part.new_full((1, part.shape[2]), 0 if part.is_floating_point() else -1)
    laid, tile = [], 0
    for place, size in enumerate(inputs["image_sizes"].tolist()):
        laid.append(part[tile])
        if _tiles(model, inputs, place) == 1:
            laid.append(newline)
            tile += 1
            continue
        rows, columns = _crops(*size)
        # Where the canvas is wider or higher than the image, its padding is cut off.
        height, width = rows * SIDE, columns * SIDE
        if size[0] * width > size[1] * height:
            cut_rows, cut_columns = 0, (width - round(size[1] * height / size[0])) // 2
        else:
            cut_rows, cut_columns = (height - round(size[0] * width / size[1])) // 2, 0
        for row in range(cut_rows, height - cut_rows):
            for column in range(cut_columns, width - cut_columns):
                crop = tile + 1 + row // SIDE * columns + column // SIDE
                laid.append(part[crop, row % SIDE * SIDE + column % SIDE][None])
            laid.append(newline)
        tile += 1 + rows * columns
    return laid


def _qwen_rows(model: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return what four patches of the tower hold in the mean, image by image."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("attention", "whole", "keys", "features", "early", "view")}
    tower, start = eager_tower(model), 0
    for number, (frames, height, width) in enumerate(inputs["image_grid_thw"].tolist()):
        count = frames * height * width
        queries, keys, features, early, scaling = _qwen_heads(
            tower, inputs["pixel_values"][start : start + count], (height, width)
        )
        wide = [part.transpose(0, 1).flatten(1) for part in (queries, keys)]
        parts = {
            "attention": (queries @ keys.transpose(1, 2) * scaling).softmax(-1).mean(1).T,
            "whole": (wide[0] @ wide[1].T / wide[0].shape[1] ** 0.5).softmax(-1).mean(0)[:, None],
            "keys": wide[1],
            "features": features,
            "early": early,
        }
        for name, part in parts.items():
            placed = _unwindowed(part.T, height // 2, width // 2).view(part.shape[1], -1, 4).mean(2).T
            found[name].append(placed)
        found["view"].append(torch.full((count // 4, 1), number))
        start += count
    return {name: torch.cat(parts) for name, parts in found.items()}


def _qwen_heads(tower: Any, pixels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Return queries and keys (heads, patches, D) of one image in windows, and what the last and first block return."""
    block = tower.blocks[-1]
    heard: list[Any] = []
    first: list[Tensor] = []
    handles = [
        block.attn.register_forward_pre_hook(
            lambda _m, args, kwargs: heard.append((args[0], kwargs)), with_kwargs=True
        ),
        block.register_forward_hook(lambda _m, _args, output: heard.append(output)),
        tower.blocks[0].register_forward_hook(lambda _m, _args, output: first.append(output)),
    ]
    with torch.no_grad():
        tower(pixels, grid_thw=torch.tensor([[1, *size]]))
        (hidden, kwargs), features = heard
        queries, keys, _ = block.attn.qkv(hidden).view(len(hidden), 3, block.attn.num_heads, -1).unbind(1)
    for handle in handles:
        handle.remove()
    queries, keys = (_turned(part, kwargs["position_embeddings"]).transpose(0, 1) for part in (queries, keys))
    return queries, keys, features, first[0], block.attn.scaling


def _turned(part: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = (each[:, None] for each in rotation)
    half = part.shape[-1] // 2
    return part * cos + torch.cat((-part[..., half:], part[..., :half]), -1) * sin
