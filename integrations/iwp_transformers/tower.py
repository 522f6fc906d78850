"""What a vision tower is called with, recorded while it runs, for rules that read its attention or features.

Only references are kept, to the inputs of three layers and the output of one. They stay with the thread that runs the
tower, and from then on with what the tower returned: `generate` may encode images ahead of the forward that uses them,
and a chat may use encoded images again.
"""

import inspect
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from iwp_transformers.attention import is_readable
from iwp_transformers.families import Medium
from iwp_transformers.frames import outward
from iwp_transformers.hooks import Hook, argument_names

if TYPE_CHECKING:
    from iwp_transformers.forwards import ThreadState

__all__ = ["Encoding", "LayerCall", "TowerLayer", "TowerWatch", "VisionTower", "vision_tower"]

TowerLayer = Literal["features", "last"]
"""The layer whose output the projector gets, or the tower's last one."""

TOWERS = ("vision_tower", "visual")


@dataclass(frozen=True, eq=False)
class VisionTower:
    """The parts of a model that encode images.

    Attributes
    ----------
    inner, tower : torch.nn.Module
        The model without its head, and its vision tower.
    layers : sequence of torch.nn.Module
        The tower's layers.
    features : int
        Number of the layer whose output the projector gets, from 0.
    class_token : bool
        Whether the first row of each image is a class token.
    """

    inner: nn.Module
    tower: nn.Module
    layers: Sequence[nn.Module]
    features: int
    class_token: bool

    @property
    def second(self) -> range:
        """The number of the second layer, whose inputs are what the first returned; empty where there is one layer."""
        return range(1, min(len(self.layers), 2))

    def number(self, layer: TowerLayer) -> int:
        """Return the number of a layer, from 0."""
        return self.features if layer == "features" else len(self.layers) - 1


@dataclass(frozen=True, eq=False)
class LayerCall:
    """What one layer of the tower was called with.

    Attributes
    ----------
    hidden : torch.Tensor
        Its inputs: shape (images or tiles, rows, E), or (rows, E) where images stand behind each other.
    arguments : mapping
        Its other arguments, by name.
    """

    hidden: Tensor
    arguments: Mapping[str, Any]


@dataclass(eq=False)
class Encoding:
    """One forward of the tower.

    Attributes
    ----------
    medium : str
        What it encoded, such as "image" or "video".
    arguments : mapping
        Arguments of the model's function that asked for it (`get_image_features`), as they were at the call.
    calls : dict of int to LayerCall
        By number of the layer.
    features : torch.Tensor or None
        What the layer returned that the projector reads.
    """

    medium: str
    arguments: Mapping[str, Any]
    calls: dict[int, LayerCall] = field(default_factory=dict)
    features: Tensor | None = None


def vision_tower(inner: nn.Module) -> VisionTower:
    """Return the vision tower of a model.

    Parameters
    ----------
    inner : torch.nn.Module
        The model without its head.

    Raises
    ------
    NotImplementedError
        If the tower cannot be read, or it cannot be told which of its layers makes the features.
    """
    name, kind = next((name for name in TOWERS if isinstance(getattr(inner, name, None), nn.Module)), ""), type(inner)
    if not name:
        msg = f"a {kind.__name__} has no vision tower by the name of {' or '.join(TOWERS)}: nothing can be read of it"
        raise NotImplementedError(msg)
    tower: nn.Module = getattr(inner, name)
    lists = (part for part in tower.modules() if isinstance(part, nn.ModuleList) and len(part))
    layers = next((part for part in lists if all(is_readable(layer) for layer in part)), None)
    if layers is None:
        msg = (
            f"the vision tower, a {type(tower).__name__}, has no layers that take their attention function from"
            " Transformers' registry: its attention cannot be read"
        )
        raise NotImplementedError(msg)
    config: Any = inner.config
    chosen = getattr(config, "vision_feature_layer", -1)
    if not isinstance(chosen, int):
        msg = f"`vision_feature_layer` is {chosen!r}: which of several layers is read for attention is not told"
        raise NotImplementedError(msg)
    # States count the tower's input as the first, so that number 1 is what layer 0 returned.
    features = len(layers) + chosen if chosen < 0 else chosen - 1
    if not 0 <= features < len(layers):
        msg = f"`vision_feature_layer` is {chosen}, expected an output of one of the tower's {len(layers)} layers"
        raise NotImplementedError(msg)
    class_token = any(part.endswith("class_embedding") for part, _ in tower.named_parameters())
    return VisionTower(inner, tower, cast("Sequence[nn.Module]", layers), features, class_token)


class TowerWatch:
    """Hooks that record what a tower runs, for the forwards of one session.

    Parameters
    ----------
    tower : VisionTower
        What is listened to.
    media : sequence of Medium
        What it may encode.
    thread : ThreadState
        What the running thread is in the middle of.
    """

    def __init__(self, tower: VisionTower, media: Sequence[Medium], thread: "ThreadState") -> None:
        self.tower, self.media, self._thread = tower, media, thread
        # Found by the object that the tower returned, as long as anybody holds that.
        self._known: dict[int, tuple[weakref.ref[Any], Encoding]] = {}

    def attach(self) -> list[RemovableHandle]:
        """Put the hooks on the tower."""
        hook = torch.compiler.disable
        handles = [
            Hook(hook(self._begin)).before(self.tower.tower),  # type: ignore[no-untyped-call]  # untyped in torch
            Hook(hook(self._end)).after(self.tower.tower),  # type: ignore[no-untyped-call]  # untyped in torch
        ]
        for number in {*self.tower.second, self.tower.features, len(self.tower.layers) - 1}:
            layer = self.tower.layers[number]
            handles.append(Hook(hook(self._enter), number).before(layer))  # type: ignore[no-untyped-call]  # same
            if number == self.tower.features:
                handles.append(Hook(hook(self._leave)).after(layer))  # type: ignore[no-untyped-call]  # same
        return handles

    def encoding_of(self, output: object) -> Encoding | None:
        """Return how something was encoded, or None if no session of this model saw it."""
        known = self._known.get(id(output))
        return known[1] if known is not None and known[0]() is output else None

    @cached_property
    def _codes(self) -> dict[CodeType, str]:
        functions = {f"get_{medium.name}_features": medium.name for medium in self.media}
        kind = type(self.tower.inner)
        return {inspect.unwrap(getattr(kind, name)).__code__: m for name, m in functions.items() if hasattr(kind, name)}

    def _begin(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._thread.encoding = None
        callers = [frame for frame in outward(sys._getframe()) if frame.f_code in self._codes]
        if callers:
            found = callers[-1]  # where the function for one medium calls that for another, the outer one was asked for
            names = inspect.getargs(found.f_code)
            wanted = {*names.args[1:], "batch_size", "frames"}
            arguments = {name: value for name, value in found.f_locals.items() if name in wanted}
            self._thread.encoding = Encoding(self._codes[found.f_code], {**kwargs, **arguments})

    def _enter(self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._thread.encoding is not None:
            names = argument_names(module)
            arguments = {**dict(zip(names, args, strict=False)), **kwargs}
            self._thread.encoding.calls[number] = LayerCall(arguments.pop(names[0]), arguments)

    def _leave(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        if self._thread.encoding is not None:
            self._thread.encoding.features = output[0] if isinstance(output, tuple) else output

    def _end(self, _module: nn.Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], output: Any) -> None:
        encoding, self._thread.encoding = self._thread.encoding, None
        if encoding is None or output is None:
            return
        key = id(output)
        self._known[key] = (weakref.ref(output, lambda _: self._known.pop(key, None)), encoding)
        forward = self._thread.forwards[-1] if self._thread.forwards else None
        if forward is not None:
            forward.encoded[encoding.medium] = output
