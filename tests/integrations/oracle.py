"""The slow truth: nothing is removed, later layers are only forbidden to look at what was dropped."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tests.integrations.tiny_models import PAD_ID


@contextmanager
def forbidden(model: nn.Module, layer: int, dropped: Tensor, real: Tensor) -> Iterator[None]:
    """Let no layer from `layer` on look at the dropped tokens of a full-length, cacheless forward.

    `dropped` and `real` have shape (B, T); where the forward is longer, the rest was decoded, and where its batch is
    larger, each sample was repeated.
    """

    def mask_layer(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden = args[0]
        length = hidden.shape[1]
        seen = torch.ones(hidden.shape[0], length, dtype=torch.bool, device=hidden.device)
        prompt = (real & ~dropped).repeat_interleave(hidden.shape[0] // real.shape[0], dim=0)
        seen[:, : prompt.shape[1]] = prompt
        allowed = seen[:, None, None, :] & torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
        lowest = torch.finfo(hidden.dtype).min
        mask = torch.zeros(allowed.shape, dtype=hidden.dtype, device=hidden.device).masked_fill(~allowed, lowest)
        return args, {**kwargs, "attention_mask": mask}

    layers = getattr(model, "model", model).language_model.layers[layer:]
    handles = [module.register_forward_pre_hook(mask_layer, with_kwargs=True) for module in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def dropped_tokens(record: Any, shape: Sequence[int]) -> Tensor:
    """Return which tokens a record says were dropped, shape (B, T)."""
    dropped = torch.zeros(tuple(shape), dtype=torch.bool)
    for sample, (visual, kept) in enumerate(zip(record.visual, record.kept, strict=True)):
        dropped[sample, visual] = True
        dropped[sample, kept] = False
    return dropped


def with_tokens(inputs: dict[str, Any], tokens: Tensor) -> dict[str, Any]:
    """Return the inputs with text appended to every sample."""
    longer = dict(inputs)
    longer["input_ids"] = torch.cat((inputs["input_ids"], tokens), dim=1)
    longer["attention_mask"] = torch.cat((inputs["attention_mask"], torch.ones_like(tokens)), dim=1)
    if "mm_token_type_ids" in inputs:
        kinds = inputs["mm_token_type_ids"]
        longer["mm_token_type_ids"] = torch.cat((kinds, kinds.new_zeros(tokens.shape)), dim=1)
    return longer


def true_logits(model: nn.Module, inputs: dict[str, Any], layer: int, dropped: Tensor, **options: Any) -> Tensor:
    """Return the logits of all positions when nothing is removed and nothing is cached.

    `dropped` is shorter than the inputs where these hold decoded tokens.
    """
    prompt = dropped.shape[1]
    real = inputs["attention_mask"][:, :prompt].bool()
    with torch.no_grad(), forbidden(model, layer, dropped, real):
        return model(**positioned(model, inputs), use_cache=False, **options).logits


def positioned(model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs with the positions that `generate` gives: counted without padding, for LLaVA explicitly."""
    if "Qwen" in type(model).__name__:
        return inputs
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {**inputs, "position_ids": positions}


def true_generation(model: nn.Module, inputs: dict[str, Any], layer: int, dropped: Tensor, **options: Any) -> Any:
    """Return what `generate` gives when nothing is removed and nothing is cached."""
    with forbidden(model, layer, dropped, inputs["attention_mask"].bool()):
        return model.generate(**inputs, use_cache=False, return_dict_in_generate=True, output_logits=True, **options)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Fail unless two tensors agree relative to the largest entry."""
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"off by {error:.2e} of the largest entry, allowed {tolerance:.0e}"


def text_rows(inputs: dict[str, Any], dropped: Tensor) -> Tensor:
    """Return which rows are to be compared: all that are neither padding nor dropped."""
    rows = inputs["attention_mask"].bool().clone()
    rows[:, : dropped.shape[1]] &= ~dropped
    return rows


def sample_of(inputs: dict[str, Any], prompts: Sequence[Any], sample: int) -> dict[str, Any]:
    """Return one sample of a batch by itself, without padding."""
    from tests.integrations.tiny_models import Image, Video

    real = inputs["attention_mask"][sample].bool()
    single = {
        name: inputs[name][sample : sample + 1, real]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    for kind, grid, pixels in (
        (Image, "image_grid_thw", "pixel_values"),
        (Video, "video_grid_thw", "pixel_values_videos"),
    ):
        if pixels not in inputs:
            continue
        counts = [sum(isinstance(part, kind) for part in prompt) for prompt in prompts]
        first, last = sum(counts[:sample]), sum(counts[: sample + 1])
        if first == last:
            continue
        if grid in inputs:
            patches = inputs[grid].prod(1).tolist()
            single[grid] = inputs[grid][first:last]
            single[pixels] = inputs[pixels][sum(patches[:first]) : sum(patches[:last])]
            continue
        single[pixels] = inputs[pixels][first:last]
        if kind is Image:
            single["image_sizes"] = inputs["image_sizes"][first:last]
            if "batch_num_images" in inputs:
                single["batch_num_images"] = inputs["batch_num_images"][sample : sample + 1]
    assert PAD_ID not in single["input_ids"]
    return single
