"""Which patches of the vision tower each visual token is made of: the model's own path, run on other numbers.

Whatever a tower holds for each of its rows goes the way that the rows' features go: through the model's own cutting,
unpadding, interpolation and pooling (LLaVA and its successors), or through the mean over the patches that are merged
into one token, in the order of the tokens (Qwen2-VL and Qwen2.5-VL).
"""

import inspect
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import vision_utils

from iwp_transformers.tower import Encoding, VisionTower, vision_tower
from iwp_transformers.twins import twin_of

__all__ = ["PatchMap", "patch_map", "read_tower", "times_placed"]

# Classes without head whose features go through functions of their own, and those whose tower merges patches itself.
PACKED = ("LlavaModel", "LlavaNextModel", "LlavaOnevisionModel")
MERGED = ("Qwen2VLModel", "Qwen2_5_VLModel")


class PatchMap(Protocol):
    """From the rows of a tower to the visual tokens of one encoding, in the order of the sequence."""

    def tokens(self, encoding: Encoding, rows: Tensor) -> Tensor:
        """Return (visual tokens, C) for what the tower's rows hold; NaN for a token without patches."""

    def joined(self, medium: str, parts: Iterable[Tensor]) -> Tensor:
        """Return the projected features of all images or videos behind each other, (visual tokens, E)."""

    def sources(self, encoding: Encoding) -> Tensor:
        """Return, for each visual token, which image, tile or frame it looks at most: int64, -1 for none."""

    def project(self, features: Tensor) -> Tensor | None:
        """Return features as the language model gets them; None if a token's features are not projected alone."""


def read_tower(inner: nn.Module) -> VisionTower:
    """Return the vision tower of a model without head, if its visual tokens can be told from its patches.

    Raises
    ------
    NotImplementedError
        As `vision_tower` and `patch_map`.
    """
    tower = vision_tower(inner)
    patch_map(tower)
    return tower


def patch_map(tower: VisionTower) -> PatchMap:
    """Return how a model's visual tokens are made of patches.

    Parameters
    ----------
    tower : VisionTower
        The model's tower.

    Raises
    ------
    NotImplementedError
        If this is not known of the model.
    """
    names = {base.__name__ for base in type(tower.inner).__mro__}
    if names.intersection(MERGED):
        return _MergedPatches(tower)
    if not names.intersection(PACKED):
        msg = (
            f"which patches the visual tokens of a {type(tower.inner).__name__} are made of is not known; rules that"
            f" read the vision tower serve {', '.join((*PACKED, *MERGED))}"
        )
        raise NotImplementedError(msg)
    config: Any = tower.inner.config
    strategy = config.vision_feature_select_strategy
    if tower.class_token != (strategy == "default"):
        msg = (
            f"`vision_feature_select_strategy` is {strategy!r} and the tower has {'a' if tower.class_token else 'no'}"
            " class token: a token that is no patch would be visual, or a patch be missing"
        )
        raise NotImplementedError(msg)
    return _PackedPatches(tower)


def times_placed(tokens: int, counts: Tensor) -> int:
    """Return how many times in a row each sample of an encoding stands in a batch.

    Parameters
    ----------
    tokens : int
        Visual tokens of the encoding.
    counts : torch.Tensor
        Shape (B,), int64: placeholders of each sample of the batch.

    Raises
    ------
    NotImplementedError
        If they do not fit.
    """
    times = int(counts.sum()) // tokens
    fits = times > 0 and times * tokens == int(counts.sum()) and not len(counts) % times
    if not fits or not torch.equal(counts, counts[::times].repeat_interleave(times)):
        msg = (
            f"the vision tower was seen to make {tokens} tokens, and samples have {counts.tolist()} placeholders for"
            " them: which patch stands where is not known"
        )
        raise NotImplementedError(msg)
    return times


class _PackedPatches:
    """LLaVA, LLaVA-NeXT, LLaVA-OneVision: `get_image_features` itself, with other numbers behind the tower."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower

    def tokens(self, encoding: Encoding, rows: Tensor) -> Tensor:
        inner, kind = self._tower.inner, type(self._tower.inner)
        function: Any = inspect.unwrap(getattr(kind, f"get_{encoding.medium}_features"))
        names = inspect.getargs(function.__code__).args[1:]
        given = {name: value for name, value in encoding.arguments.items() if name in names}
        for name in ("vision_feature_layer", "vision_feature_select_strategy"):
            if given.get(name) != getattr(inner.config, name):
                msg = f"`{name}` came as {given.get(name)!r}; the vision tower is read by that of the configuration"
                raise NotImplementedError(msg)
        # Of the pixels only their number matters: tiles, or videos and frames.
        sizes = [encoding.arguments[name] for name in ("batch_size", "frames") if name in encoding.arguments]
        given[names[0]] = rows.new_empty(*(sizes or rows.shape[:1]), 0, 0, 0)
        twin: nn.Module = twin_of(inner, {})
        # The instance's own attributes go before its modules and parameters.
        twin.__dict__.update(
            vision_tower=lambda *_args, **_kwargs: SimpleNamespace(hidden_states=_Everywhere(rows)),
            multi_modal_projector=lambda features: features,
            image_newline=rows.new_full(rows.shape[-1:], torch.nan),
        )
        return self._joined(encoding.medium, function(twin, **given).pooler_output, twin.image_newline)

    def joined(self, medium: str, parts: Iterable[Tensor]) -> Tensor:
        return self._joined(medium, parts, getattr(self._tower.inner, "image_newline", None))

    def _joined(self, medium: str, parts: Iterable[Tensor], newline: Any) -> Tensor:
        kind = type(self._tower.inner)
        features, forward = (inspect.unwrap(getattr(kind, name)) for name in (f"get_{medium}_features", "forward"))
        # Some versions of LLaVA-OneVision end each video with a separator only in the model's forward.
        ends = [newline[None]] if _names_newline(forward) and not _names_newline(features) else []
        return torch.cat([row for part in parts for row in (part.reshape(-1, part.shape[-1]), *ends)])

    def sources(self, encoding: Encoding) -> Tensor:
        tiles, count = encoding.calls[self._tower.features].hidden.shape[:2]
        marks = torch.eye(tiles, device=encoding.calls[self._tower.features].hidden.device)
        shares = self.tokens(encoding, marks[:, None].expand(-1, count, -1))
        return shares.argmax(1).masked_fill(shares[:, 0].isnan(), -1)

    def project(self, features: Tensor) -> Tensor | None:
        projector: Any = self._tower.inner.multi_modal_projector
        projected: Tensor = projector(features)
        return projected


def _names_newline(function: Any) -> bool:
    return "image_newline" in function.__code__.co_names


class _Everywhere:
    """Hidden states that are the same at every layer."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __getitem__(self, _layer: int) -> Tensor:
        return self._rows


class _MergedPatches:
    """Qwen2-VL, Qwen2.5-VL: patches that stand behind each other are merged, in windows in the latter."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower

    def tokens(self, encoding: Encoding, rows: Tensor) -> Tensor:
        module: Any = self._tower.tower
        unit = module.spatial_merge_size**2
        merged = rows.view(-1, unit, rows.shape[-1]).mean(1)
        if not hasattr(module, "window_size"):
            return merged
        order = encoding.arguments.get("window_index")
        if order is None:
            order, _ = vision_utils.get_vision_window_index(
                self._grid(encoding), module.spatial_merge_size, module.window_size, module.patch_size
            )
        return merged[torch.as_tensor(order, device=merged.device).argsort()]

    def joined(self, medium: str, parts: Iterable[Tensor]) -> Tensor:  # noqa: ARG002 - as the protocol
        return torch.cat(list(parts))

    def sources(self, encoding: Encoding) -> Tensor:
        module: Any = self._tower.tower
        grid = self._grid(encoding)
        lengths = (grid[:, 1] * grid[:, 2] // module.spatial_merge_size**2).repeat_interleave(grid[:, 0])
        return torch.arange(len(lengths), device=grid.device).repeat_interleave(lengths)

    def project(self, features: Tensor) -> Tensor | None:  # noqa: ARG002 - as the protocol
        return None

    @staticmethod
    def _grid(encoding: Encoding) -> Tensor:
        grid: Tensor = encoding.arguments["grid_thw"]
        return grid
