"""How engines start: unasked, wrongly asked, and asked for what cannot be sound."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm import EngineArgs, ModelRegistry
from vllm.model_executor.models.config import MODELS_CONFIG_MAP

import iwp_vllm
from iwp_vllm.engine.registration import MODELS
from tests.vllm.miniatures import Trained, trained


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Return the Qwen2.5-VL miniature."""
    return trained("qwen2.5-vl", tmp_path_factory.mktemp("start"))


def configured(miniature: Trained, **options: Any) -> Any:
    """Return the configuration of an engine that would start."""
    return EngineArgs(model=str(miniature.folder), max_model_len=512, **options).create_engine_config()


def test_registration_may_be_repeated() -> None:
    """Each process of vLLM loads plugins, and some of them twice."""
    iwp_vllm.register()
    iwp_vllm.register()

    assert set(MODELS) <= set(ModelRegistry.get_supported_archs())


def test_an_engine_that_is_not_asked_is_not_refused(miniature: Trained) -> None:
    """Tensor parallelism without pruning is none of the plugin's business; a request that asks gets the reason."""
    config = configured(miniature, tensor_parallel_size=2, distributed_executor_backend="mp")

    assert "tensor parallelism" in config.model_config.hf_config.iwp_refusal


def test_llava_onevision_takes_the_positions_of_the_whole_prompt_only_in_an_engine_that_is_asked(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The plugin alone changes nothing; a request that asks an engine of plain positions gets the reason."""
    llava = trained("llava-onevision", tmp_path_factory.mktemp("start"))

    unasked, asked = configured(llava), configured(llava, hf_overrides={"iwp": {}})

    assert not unasked.model_config.uses_mrope
    assert "plain positions" in unasked.model_config.hf_config.iwp_refusal
    assert asked.model_config.uses_mrope
    assert asked.model_config.hf_config.iwp_refusal is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"pipeline_parallel_size": 2, "distributed_executor_backend": "mp"},
            NotImplementedError,
            "pipeline parallelism",
        ),
        ({"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}, NotImplementedError, "tensor parallelism"),
        (
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}},
            NotImplementedError,
            "speculative decoding",
        ),
        ({"enable_lora": True}, NotImplementedError, "LoRA"),
        ({"video_pruning_rate": 0.5}, NotImplementedError, "pruning of videos"),
        ({"enable_prompt_embeds": True}, NotImplementedError, "prompts as embeddings"),
        ({"compilation_config": {"cudagraph_mm_encoder": True}}, NotImplementedError, "encoder CUDA graphs"),
        ({"mm_processor_kwargs": {"iwp_budget": 0.5}}, NotImplementedError, "hf_overrides"),
        ({"hf_overrides": {"iwp": {"layer": 8}}}, ValueError, "`layer` is 8, expected less than 8"),
        ({"hf_overrides": {"iwp": {"budget": 0.0}}}, ValueError, "`budget` is 0.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_engines_that_cannot_prune_are_refused_before_they_start(
    miniature: Trained, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """In the user's process, with the reason."""
    with pytest.raises(error, match=words):
        configured(miniature, **{"hf_overrides": {"iwp": {"budget": 0.5}}, **options})


def test_other_architectures_are_refused_and_else_keep_vllms_own_check() -> None:
    """Qwen3-VL would else run with all tokens, and nobody would know."""
    check = MODELS_CONFIG_MAP["Qwen3VLForConditionalGeneration"]
    asked = SimpleNamespace(hf_config=SimpleNamespace(iwp={}), architecture="Qwen3VLForConditionalGeneration")

    with pytest.raises(NotImplementedError, match="not Qwen3VLForConditionalGeneration"):
        check.verify_and_update_config(SimpleNamespace(model_config=asked))

    check = MODELS_CONFIG_MAP["Ernie4_5_VLMoeForConditionalGeneration"]
    unasked = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace()))
    unasked.compilation_config = SimpleNamespace(fast_moe_cold_start=True)
    check.verify_and_update_config(unasked)
    assert not unasked.compilation_config.fast_moe_cold_start
