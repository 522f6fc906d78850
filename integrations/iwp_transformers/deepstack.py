"""DeepStack: visual features that a decoder adds to its hidden states between its first layers.

The decoder adds them at full length, which does not fit once tokens were removed. So they are taken away from it, and
added in front of the layers that they were meant for, to the rows that are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iwp_transformers.rows import KeptRows

__all__ = ["DeepFeatures", "joined_features", "take_away"]

# Argument of the decoder with the features, the one that says where they go, and how many layers behind the key or
# place of a feature it is added.
_NAMES = (("deepstack_visual_embeds", "visual_pos_masks", 1), ("deepstack_features", "vision_mask", 0))


@dataclass(frozen=True, eq=False)
class DeepFeatures:
    """Features by the layer in front of which they are added.

    Attributes
    ----------
    features : mapping of int to torch.Tensor
        For each layer, shape (all visual tokens of the batch, E).
    places : torch.Tensor
        Shape (B, T), bool: where they go.
    """

    features: Mapping[int, Tensor]
    places: Tensor

    def added(self, index: int, hidden: Tensor, rows: KeptRows | None) -> Tensor:
        """Return the inputs of layer `index`, shape (B, M, E), with its features on those rows that are there."""
        if index not in self.features:
            return hidden
        places = self.places.to(hidden.device)
        features = self.features[index].to(hidden.device, hidden.dtype)
        if rows is not None:
            rows = rows.to(hidden.device)
            order = (places.flatten().cumsum(0) - 1).view_as(places).gather(1, rows.index)
            places = places.gather(1, rows.index) & rows.real
            features = features[order[places]]
        hidden = hidden.clone()
        hidden[places] = hidden[places] + features
        return hidden


def take_away(arguments: Mapping[str, Any], layers: int) -> tuple[DeepFeatures | None, dict[str, Any]]:
    """Return what a decoder would add, and its arguments without that.

    Parameters
    ----------
    arguments : mapping
        Keyword arguments of the decoder.
    layers : int
        Number of its layers.

    Raises
    ------
    NotImplementedError
        If features are added behind the last layer, or come without their places.
    """
    for name, mask, behind in _NAMES:
        given = arguments.get(name)
        if given is None:
            continue
        pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
        features = {index + behind: part for index, part in pairs}
        places = arguments.get(mask)
        if places is None or any(index >= layers for index in features):
            msg = (
                f"`{name}` comes without `{mask}`, or is added behind the last of {layers} layers: it cannot be pruned"
            )
            raise NotImplementedError(msg)
        places = places[..., 0] if places.ndim > 2 else places  # noqa: PLR2004 - one entry for each channel
        return DeepFeatures(features, places), {**arguments, name: None, mask: None}
    return None, dict(arguments)


def joined_features(chunks: Sequence[DeepFeatures | None], shapes: Sequence[tuple[int, ...]]) -> DeepFeatures | None:
    """Put the features of the chunks of a prompt together.

    Parameters
    ----------
    chunks : sequence of DeepFeatures or None
        What a decoder would add in each chunk.
    shapes : sequence of tuple of int
        For each chunk, samples B and tokens C.

    Returns
    -------
    DeepFeatures or None
        What it would add to the whole prompt, sample after sample; None where it would add nothing.
    """
    like = next((chunk.places for chunk in chunks if chunk is not None), None)
    if like is None:
        return None
    places = [
        like.new_zeros(shape) if chunk is None else chunk.places for chunk, shape in zip(chunks, shapes, strict=True)
    ]
    whole = torch.cat(places, dim=1)
    order = (whole.flatten().cumsum(0) - 1).view_as(whole)
    features: dict[int, Tensor] = {}
    for chunk, ranks in zip(chunks, torch.split(order, [shape[1] for shape in shapes], dim=1), strict=True):
        if chunk is None:
            continue
        for index, part in chunk.features.items():
            rows = features.setdefault(index, part.new_zeros(int(whole.sum()), part.shape[-1]))
            rows[ranks[chunk.places].to(part.device)] = part
    return DeepFeatures(features, whole)
