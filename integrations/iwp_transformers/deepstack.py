"""DeepStack: visual features that a decoder adds to its hidden states between its first layers.

The decoder adds them at full length, which does not fit once tokens were removed. So they are taken away from it, and
added in front of the layers that they were meant for, to the rows that are there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from iwp_transformers.rows import KeptRows

__all__ = ["DeepFeatures", "take_away"]

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
