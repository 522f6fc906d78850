"""What cannot be correct inside vLLM, with the reason. It is refused when the engine starts."""

from collections.abc import Callable
from typing import Any

from iwp_vllm.options import requested

__all__ = ["has_graphs", "refusal"]

Reason = tuple[Callable[[Any], object], str]


def has_graphs(config: Any) -> bool:
    """Return whether an engine may use CUDA graphs, of whatever kind."""
    return config.device_config.device_type != "cpu" and not config.model_config.enforce_eager


def _full_graphs(config: Any) -> bool:
    # Where nobody says, vLLM decides for graphs of whole steps, after it has asked this.
    mode = config.compilation_config.cudagraph_mode
    return has_graphs(config) and (mode is None or bool(mode.has_full_cudagraphs()))


REASONS: tuple[Reason, ...] = (
    (
        lambda config: config.parallel_config.pipeline_parallel_size > 1,
        "pipeline parallelism: the process that embeds images lacks the later layers and their weights",
    ),
    (
        lambda config: config.parallel_config.tensor_parallel_size > 1,
        "tensor parallelism: each rank sees its own heads and would keep other tokens; use data parallelism",
    ),
    (
        lambda config: config.parallel_config.prefill_context_parallel_size > 1,
        "context parallelism of the prefill: each rank computes a part of the prompt",
    ),
    (
        lambda config: config.parallel_config.use_ubatching,
        "batches in parts (`enable_dbo`, `ubatch_size`): they would get each other's positions",
    ),
    (
        lambda config: config.speculative_config is not None,
        "speculative decoding (`speculative_config`): a draft looks one token ahead, at images that are not chosen yet",
    ),
    (
        lambda config: config.compilation_config.cudagraph_mm_encoder,
        "encoder CUDA graphs (`cudagraph_mm_encoder`): they replay the tower without what chooses behind it",
    ),
    (
        lambda config: config.lora_config is not None,
        "LoRA (`enable_lora`): the layers that choose would run without the adapter of the request",
    ),
    (
        lambda config: config.ec_transfer_config is not None,
        "encoders in a process of their own (`ec_transfer_config`): they lack the decoder's layers",
    ),
    (
        lambda config: config.model_config.multimodal_config.mm_encoder_only,
        "encoders in a process of their own (`mm_encoder_only`): they lack the decoder's layers",
    ),
    (
        lambda config: config.model_config.multimodal_config.is_multimodal_pruning_enabled(),
        "vLLM's own pruning of videos (`video_pruning_rate`): tokens would be dropped twice",
    ),
    (
        lambda config: config.model_config.enable_prompt_embeds,
        "prompts as embeddings (`enable_prompt_embeds`): which of them are images is not known",
    ),
    (
        lambda config: requested(config.model_config.multimodal_config.mm_processor_kwargs or {}),
        "options of a request in the engine's `mm_processor_kwargs`: what all requests share belongs into"
        " `hf_overrides={'iwp': ...}`",
    ),
    (
        lambda config: config.use_v2_model_runner,
        "Model Runner V2, with which it was not tried; set VLLM_USE_V2_MODEL_RUNNER=0",
    ),
    (
        lambda config: not config.model_config.uses_mrope,
        "plain positions, which vLLM counts itself, so that kept tokens would move together: start the engine with"
        " hf_overrides={'iwp': {}}, and with rotary embeddings of type 'default'",
    ),
    (
        _full_graphs,
        "CUDA graphs of whole steps: a step that is replayed would not put kept tokens at their positions;"
        " set compilation_config={'cudagraph_mode': 'PIECEWISE'}",
    ),
)


def refusal(config: Any, layer: int) -> str | None:
    """Return why an engine cannot prune; None if it can.

    Parameters
    ----------
    config : vllm.config.VllmConfig
    layer : int
        Layer that chooses.
    """
    text = config.model_config.hf_text_config
    if layer >= text.num_hidden_layers:
        return f"`layer` is {layer}, expected less than {text.num_hidden_layers}, the number of the model's layers"
    return next((f"iwp_vllm does not prune with {reason}" for applies, reason in REASONS if applies(config)), None)
