"""Where a layer computes: what is handed to it outside of its own call has to be moved there first."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["beside_weights"]


def beside_weights(layer: nn.Module, hidden: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    """Return a layer's inputs and arguments on the device of its weights.

    The first layer of another device is about to be handed inputs that are moved only within its call. Offloaded
    weights have no device yet, and within a sharded whole a layer may have no parameters of its own: those are left.
    """
    device = next((part.device for part in layer.parameters()), hidden.device)
    if device.type == "meta" or device == hidden.device:
        return hidden, arguments
    return hidden.to(device), {name: _moved(value, device) for name, value in arguments.items()}


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return tuple(_moved(part, device) for part in value) if isinstance(value, tuple) else value
