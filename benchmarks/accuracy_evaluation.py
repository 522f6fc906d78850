"""Questions to a miniature, encoded once, and its answers under any rule.

What is the same for all rules is computed once: the vision tower, and the decoder layers before the first that prunes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accuracy_rules import Asked, Options, options
from answers import Flags
from torch import Tensor

from iwp_miniature import Example, Miniature, in_batches
from iwp_transformers import PruningRecord, family_of, prune_visual_tokens
from iwp_transformers.tower import vision_tower

__all__ = ["Batch", "Evaluation", "remembered", "with_features"]

BATCH = 75


@dataclass(frozen=True)
class Batch:
    """Some questions, encoded.

    Parameters
    ----------
    asked : Asked
        What a rule may know.
    inputs : dict
        What `generate` is called with, the tower's features in place of pixels.
    with_pixels : dict
        The same with pixels, for rules that read the tower.
    outputs, encoded : dict
        What a layer of the decoder, before the one that prunes, and one of the tower have returned, by its index.
    """

    asked: Asked
    inputs: dict[str, Any]
    with_pixels: dict[str, Any] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)
    encoded: dict[int, Any] = field(default_factory=dict)


class Evaluation:
    """The test questions, encoded once, and the answers of one miniature under any rule."""

    def __init__(self, miniature: Miniature, examples: Sequence[Example]) -> None:
        self.miniature, self.examples = miniature, examples
        self.layers: Sequence[Any] = miniature.model.model.language_model.layers
        self.tower_layers = vision_tower(miniature.model.model).layers
        self.batches = []
        for batch in in_batches(examples, BATCH):
            inputs = miniature.encode([each.scene.image for each in batch], [each.question.text for each in batch])
            regions = family_of(miniature.model).regions(miniature.model.config, inputs, 0)
            self.batches.append(Batch(Asked(batch, regions), with_features(miniature.model, inputs), inputs))
        self.kinds = np.array([each.question.kind for each in examples])
        self.styles = np.array([each.scene.layout.style for each in examples])

    def right(self, around: Callable[[Batch], Any]) -> Flags:
        """Tell which questions are answered right; `around` gives a context for each batch."""
        words = []
        for batch in self.batches:
            with around(batch):
                words += self._answers(batch.inputs)
        return self._compared(words)

    def pruned(self, rule: str, layer: int, budget: float) -> Flags:
        """Tell which questions are answered right under a rule."""
        right, _ = self.under(lambda asked: options(rule, asked) | {"budget": budget, "layer": layer}, layer)
        return right

    def under(
        self, arguments: Callable[[Asked], Options], first: int, *, tower: bool = False
    ) -> tuple[Flags, list[PruningRecord]]:
        """Tell which questions are answered right under any pruning, and what it kept of each batch.

        Parameters
        ----------
        arguments : callable
            Returns the keyword arguments of `prune_visual_tokens` for a batch.
        first : int
            First layer that prunes: those before are the same for every rule.
        tower : bool, default False
            Whether the rule reads the vision tower, which then has to be seen at work.
        """
        words, records = [], []
        for batch in self.batches:
            with (
                remembered(self.layers[:first], batch.outputs),
                remembered(self.tower_layers if tower else (), batch.encoded),
                prune_visual_tokens(self.miniature.model, **arguments(batch.asked)) as session,
            ):
                words += self._answers(batch.with_pixels if tower else batch.inputs)
                records.append(session.records[-1])
        return self._compared(words), records

    def without_picture(self) -> Flags:
        """Tell which questions are answered right from the text alone."""
        words = []
        for batch in self.batches:
            words += self._answers(self.miniature.encode_text([each.question.text for each in batch.asked.examples]))
        return self._compared(words)

    def without_visual_tokens(self, layer: int) -> Flags:
        """Tell which questions are answered right if layers from `layer` on see no visual token at all."""
        token = self.miniature.model.config.image_token_id
        return self.right(lambda batch: hidden_from(self.layers[layer:], batch.inputs["input_ids"] == token))

    def _compared(self, words: Sequence[str]) -> Flags:
        return np.array([word == each.question.answer for word, each in zip(words, self.examples, strict=True)])

    def _answers(self, inputs: Mapping[str, Any]) -> list[str]:
        with torch.no_grad():
            output = self.miniature.model.generate(**inputs, do_sample=False, max_new_tokens=1)
        return self.miniature.tokenizer.batch_decode(output[:, -1:])


def with_features(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Replace pixels by what the tower makes of them: the tower is the same for every rule."""
    pixels = {name: inputs[name] for name in ("pixel_values", "image_sizes", "image_grid_thw") if name in inputs}
    with torch.no_grad():
        features = model.model.get_image_features(**pixels, return_dict=True)
    return {name: value for name, value in inputs.items() if name != "pixel_values"} | {
        "mm_encoder_outputs": {"image": features}
    }


@contextmanager
def remembered(layers: Sequence[Any], outputs: dict[int, Any]) -> Iterator[None]:
    """Let the first layers run once and then return the same, with their hooks called; for answers of one forward."""

    def forward(index: int, run: Any, *args: Any, **kwargs: Any) -> Any:
        if run.__self__ is not layers[index]:
            return run(*args, **kwargs)  # of a copy of the layer, by which a rule reads its attention
        if index not in outputs:
            outputs[index] = run(*args, **kwargs)
        return outputs[index]

    with ExitStack() as patches:
        for index, layer in enumerate(layers):
            patches.enter_context(patch.object(layer, "forward", partial(forward, index, layer.forward)))
        yield


@contextmanager
def hidden_from(layers: Sequence[Any], visual: Tensor) -> Iterator[None]:
    """Forbid layers to attend to visual tokens, in a prefill of full length."""

    def hide(_module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        length = visual.shape[1]
        mask = kwargs.get("attention_mask")
        allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        if mask is not None:
            allowed = mask if mask.dtype == torch.bool else mask == 0
        # Each row may see itself, else a visual row would attend to nothing at all.
        allowed = allowed & (~visual[:, None, None, :] | torch.eye(length, dtype=torch.bool))
        bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(args[0].dtype).min)
        return args, kwargs | {"attention_mask": bias.to(args[0].dtype)}

    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(hide, with_kwargs=True))
        yield
