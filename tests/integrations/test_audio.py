"""Models that hear and do not see are pruned through the same boundary: placeholders of audio are candidates."""

from typing import Any

import pytest
import torch
from transformers import (
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close
from tests.integrations.test_exactness import scattered
from tests.models.factory import weighted
from tests.models.oracle import steps, true_steps

AUDIO, FEATURES, MEL, NEW = 120, 8, 8, 4
"""Id of the placeholder, tokens that the audio becomes, channels of its spectrogram, decoded tokens."""
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
}


def voxtral() -> Any:
    """Give Voxtral, on a Llama."""
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tower |= {"num_mel_bins": MEL, "max_source_positions": 16, "head_dim": 8}
    text = {"model_type": "llama", "head_dim": 8, **TEXT}
    return VoxtralForConditionalGeneration(VoxtralConfig(audio_config=tower, text_config=text, audio_token_id=AUDIO))


def qwen2_audio() -> Any:
    """Give Qwen2-Audio."""
    tower = {"d_model": 16, "encoder_ffn_dim": 32, "encoder_layers": 2, "encoder_attention_heads": 2}
    tower |= {"num_mel_bins": MEL, "max_source_positions": 16}
    text = {"model_type": "qwen2", **TEXT}
    return Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(audio_config=tower, text_config=text, audio_token_index=AUDIO)
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("build", [voxtral, qwen2_audio])
def test_decoding_after_pruned_audio_equals_the_masked_full_model(build: Any, layer: int) -> None:
    """Tokens of the audio are dropped, and no row behind the layer sees them."""
    torch.manual_seed(0)
    model: Any = weighted(build())
    tokens = torch.tensor([[5, 6, 7, *[AUDIO] * FEATURES, 8, 9, 10, 11]])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    batch["input_features"] = torch.randn(1, MEL, 32)
    if build is qwen2_audio:
        batch["feature_attention_mask"] = torch.ones(1, 32, dtype=torch.long)

    with prune_visual_tokens(model, budget=0.4, layer=layer, selector=scattered) as session:
        decoded = steps(model, batch, NEW)

    record = session.records[0]
    dropped = tokens == AUDIO
    dropped[0, record.kept[0]] = False
    assert len(record.visual[0]) == FEATURES
    assert_close(decoded, true_steps(model, batch, layer, dropped, NEW))
