"""Engines that cannot prune soundly, and what the vision tower returned."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from iwp_vllm.refusals import refusal
from iwp_vllm.tower_outputs import TowerOutputs


def engine(**changed: Any) -> Any:
    """Return the configuration of an engine that can prune, with some settings changed."""
    values: dict[str, Any] = {
        "parallel_config.pipeline_parallel_size": 1,
        "parallel_config.tensor_parallel_size": 1,
        "parallel_config.prefill_context_parallel_size": 1,
        "parallel_config.use_ubatching": False,
        "speculative_config": None,
        "compilation_config.cudagraph_mm_encoder": False,
        "compilation_config.cudagraph_mode": SimpleNamespace(has_full_cudagraphs=lambda: False),
        "lora_config": None,
        "ec_transfer_config": None,
        "use_v2_model_runner": False,
        "device_config.device_type": "cuda",
        "model_config.enforce_eager": False,
        "model_config.uses_mrope": True,
        "model_config.enable_prompt_embeds": False,
        "model_config.hf_text_config.num_hidden_layers": 8,
        "model_config.multimodal_config.mm_encoder_only": False,
        "model_config.multimodal_config.is_multimodal_pruning_enabled": lambda: False,
        "model_config.multimodal_config.mm_processor_kwargs": None,
    } | {name.replace("__", "."): value for name, value in changed.items()}
    root = SimpleNamespace()
    for path, value in values.items():
        *parents, name = path.split(".")
        place = root
        for parent in parents:
            place.__dict__.setdefault(parent, SimpleNamespace())
            place = getattr(place, parent)
        setattr(place, name, value)
    return root


def test_a_plain_engine_is_served() -> None:
    """Nothing stands against it."""
    assert refusal(engine(), 7) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"parallel_config__tensor_parallel_size": 2}, "tensor parallelism"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "context parallelism"),
        ({"parallel_config__use_ubatching": True}, "batches in parts"),
        ({"speculative_config": object()}, "speculative decoding"),
        ({"compilation_config__cudagraph_mm_encoder": True}, "encoder CUDA graphs"),
        ({"compilation_config__cudagraph_mode": None}, "CUDA graphs of whole steps"),
        (
            {"compilation_config__cudagraph_mode": SimpleNamespace(has_full_cudagraphs=lambda: True)},
            "CUDA graphs of whole steps",
        ),
        ({"lora_config": object()}, "LoRA"),
        ({"ec_transfer_config": object()}, "process of their own"),
        ({"model_config__multimodal_config__mm_encoder_only": True}, "process of their own"),
        ({"model_config__multimodal_config__is_multimodal_pruning_enabled": lambda: True}, "dropped twice"),
        ({"model_config__multimodal_config__mm_processor_kwargs": {"iwp_budget": 0.5}}, "hf_overrides"),
        ({"model_config__enable_prompt_embeds": True}, "prompts as embeddings"),
        ({"use_v2_model_runner": True}, "Model Runner V2"),
        ({"model_config__uses_mrope": False}, "plain positions"),
        ({"model_config__hf_text_config__num_hidden_layers": 7}, "`layer` is 7, expected less than 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_unsound_is_refused_with_the_reason(changed: dict[str, Any], words: str) -> None:
    """Each by itself."""
    reason = refusal(engine(**changed), 7)

    assert reason is not None
    assert words in reason


@pytest.mark.parametrize(
    "changed",
    [{"model_config__enforce_eager": True}, {"device_config__device_type": "cpu"}],
    ids=["eager", "no device with graphs"],
)
def test_graphs_of_whole_steps_matter_where_they_are_replayed(changed: dict[str, Any]) -> None:
    """Elsewhere each step puts kept tokens at their positions."""
    assert refusal(engine(compilation_config__cudagraph_mode=None, **changed), 7) is None


def test_tower_outputs_are_kept_up_to_their_memory_oldest_first() -> None:
    """Each of these takes 400 KiB, so that two fit."""
    outputs = TowerOutputs(1)
    size = (100, 1024)
    for source in "abab":
        outputs.get(source, lambda: torch.ones(size))
    assert (outputs.runs, outputs.hits) == (2, 2)

    for source in "ca":
        outputs.get(source, lambda: torch.ones(size))

    assert outputs.runs == 4
    assert outputs.held <= outputs.limit


def test_tower_outputs_too_large_for_the_memory_are_not_kept() -> None:
    """With no memory the tower runs each time."""
    outputs = TowerOutputs(0)

    assert [outputs.get("a", lambda: torch.ones(2, 2)).sum().item() for _ in range(2)] == [4.0, 4.0]
    assert outputs.runs == 2
