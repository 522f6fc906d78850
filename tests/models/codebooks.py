"""Models whose images become words of a codebook: a small one, whose words stand in the vocabulary."""

from typing import Any

from tests.models.sizes import IMAGE

FIRST_WORD, WORDS = 30, range(8)
"""Id of the first word, and how many there are."""

CODEBOOKS: dict[str, dict[str, Any]] = {
    "apertus1p5": {
        "image_token_offset": FIRST_WORD,
        "audio_token_offset": FIRST_WORD + len(WORDS),
        "vision_config": {
            "codebook_size": len(WORDS),
            "latent_channels": 16,
            "channel_multiplier": [1, 1, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "resolution": 32,
            "spatial_scale_factor": 4,
        },
        "audio_config": {"codebook_size": 4, "codebook_dim": 16, "num_filters": 4, "num_lstm_layers": 1},
    },
    "chameleon": {
        "vocabulary_map": {"<image>": IMAGE, **{f"IMGIMG{chr(ord('A') + code)}Z": FIRST_WORD + code for code in WORDS}},
        "image_token_id": IMAGE,
        "vq_config": {
            "num_embeddings": len(WORDS),
            "latent_channels": 16,
            "channel_multiplier": [1, 1, 2],
            "num_res_blocks": 1,
            "resolution": 16,
        },
    },
    "emu3": {
        "vocabulary_map": {
            "<image>": IMAGE,
            "<|extra_200|>": FIRST_WORD - 1,
            **{f"<|visual token {code:06}|>": FIRST_WORD + code for code in WORDS},
        },
        "vq_config": {
            "codebook_size": len(WORDS),
            "embed_dim": 4,
            "hidden_size": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "num_attention_heads": 1,
        },
    },
}
