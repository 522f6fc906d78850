"""How small each number of a configuration becomes: by its name, and by the part of the model that it sizes.

The names are those that the configurations of Transformers use. One that stands in no table keeps its default.
"""

from typing import Any

IMAGE, VIDEO, START, END, BREAK, AUDIO, AUDIO_START, AUDIO_END = range(120, 128)
PAD = 0
FIRST_WORD, FIRST_SPECIAL = 3, 110
"""Ids that stand for text: from the first on, below the second."""

VOCABULARY, WIDTH, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH, LAYERS = 128, 32, 4, 2, 8, 4
TOWER_WIDTH, TOWER_SIDE, TOWER_PATCH = 16, 16, 4

DERIVED = (
    "activation_sparsity_pattern",
    "architectures",
    "dtype",
    "id2label",
    "indexer_types",
    "intermediate_size_per_layer",
    "kv_source_layers",
    "label2id",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "model_type",
    "moe_layers",
    "no_rope_layers",
    "num_kv_shared_layers",
    "num_key_value_heads_per_layer",
    "per_layer_config",
    "transformers_version",
)
"""Entries for each layer, and what the class itself fills in: left out, so that it is made anew for fewer layers."""

_LAYERS = dict.fromkeys(
    ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers", "decoder_num_layers"), LAYERS
)
_WIDTHS = dict.fromkeys(
    ("hidden_size", "d_model", "conv_dim", "conv_dim_out", "d_inner", "word_embed_proj_dim", "n_embd"), WIDTH
)
_FEED_FORWARD = dict.fromkeys(
    (
        "intermediate_size",
        "intermediate_size_mlp",
        "ffn_dim",
        "decoder_ffn_dim",
        "encoder_ffn_dim",
        "d_ff",
        "block_ff_dim",
    ),
    48,
)
_HEADS = {
    **dict.fromkeys(
        (
            "num_attention_heads",
            "swa_num_attention_heads",
            "n_head",
            "num_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
        ),
        HEADS,
    ),
    **dict.fromkeys(
        ("num_key_value_heads", "swa_num_key_value_heads", "moe_num_key_value_heads", "num_global_key_value_heads"),
        KEY_VALUE_HEADS,
    ),
    **dict.fromkeys(("head_dim", "swa_head_dim", "global_head_dim", "d_kv", "v_head_dim"), HEAD_WIDTH),
}
_LATENT_ATTENTION = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "qk_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 16,
}
_LINEAR_ATTENTION = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 3,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "mamba_chunk_size": 16,
    "chunk_size": 16,
}
_EXPERTS = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_shared_experts", "moe_num_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_intermediate_size", "moe_hidden_size"), 16),
    "first_k_dense_replace": 1,
}
_SPECIAL_TOKENS = {
    **dict.fromkeys(("image_token_id", "image_token_index"), IMAGE),
    **dict.fromkeys(("video_token_id", "video_token_index"), VIDEO),
    **dict.fromkeys(("vision_start_token_id", "image_start_token_id", "boi_token_id", "boi_token_index"), START),
    **dict.fromkeys(("vision_end_token_id", "image_end_token_id", "eoi_token_id", "eoi_token_index"), END),
    "image_break_token_id": BREAK,
    **dict.fromkeys(("audio_token_id", "audio_token_index"), AUDIO),
    **dict.fromkeys(("boa_token_id", "audio_start_token_id"), AUDIO_START),
    **dict.fromkeys(("eoa_token_id", "audio_end_token_id"), AUDIO_END),
    "pad_token_id": PAD,
    "visual_indicator_token_ids": [],
}

WHOLE: dict[str, Any] = {
    **_SPECIAL_TOKENS,
    **dict.fromkeys(("vocab_size", "unpadded_vocab_size"), VOCABULARY),
    "tie_word_embeddings": False,
    **dict.fromkeys(("image_seq_length", "image_seq_len"), 16),
    "mm_tokens_per_image": 4,
    "image_grid_pinpoints": [[16, 32], [32, 16], [32, 32]],
    **dict.fromkeys(
        ("projection_dim", "projector_hidden_size", "multimodal_projector_hidden_size", "image_text_hidden_size"), WIDTH
    ),
    "num_query_tokens": 4,
}
"""Sizes of what stands beside tower and decoder."""

DECODER: dict[str, Any] = {
    **WHOLE,
    **_LAYERS,
    **_WIDTHS,
    **_FEED_FORWARD,
    **_HEADS,
    **_LATENT_ATTENTION,
    **_LINEAR_ATTENTION,
    **_EXPERTS,
    "encoder_layers": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
}
"""Sizes of a decoder."""

TOWER: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "embed_dim", "d_model", "hidden_dim", "projection_dim", "encoder_hidden_size"), TOWER_WIDTH
    ),
    **dict.fromkeys(("projector_input_dim",), TOWER_WIDTH),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "depth"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_global_layers"), 1),
    **dict.fromkeys(("num_heads", "num_attention_heads", "num_key_value_heads", "attention_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "dim_feedforward", "mlp_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 24),
    **dict.fromkeys(("out_hidden_size", "output_dim", "vision_output_dim", "projector_output_dim"), WIDTH),
    "text_hidden_size": WIDTH,
    "image_size": TOWER_SIDE,
    "patch_size": TOWER_PATCH,
    "window_size": 16,
    "head_dim": 8,
    "mlp_ratio": 2,
    "depths": [1, 1],
    "max_position_embeddings": 64,
    "num_position_embeddings": 64,
    "vocab_size": 64,
    "max_image_size": 64,
    "max_img_size": 64,
    "projection_intermediate_size": 24,
    **dict.fromkeys(("mm_embed_dim", "output_proj_dims"), TOWER_WIDTH),
    "mm_posemb_size": 64,
    "base_channels": 32,
    **dict.fromkeys(("pos_emb_height", "pos_emb_width", "init_pos_emb_height", "init_pos_emb_width"), 8),
    **dict.fromkeys(("pos_emb_time", "init_pos_emb_time"), 4),
}
"""Sizes of a tower for images, videos or audio."""
