"""What the default configuration with small numbers lacks, class by class, each with its reason."""

from tests.models.codebooks import CODEBOOKS
from tests.models.patterns import (
    DEEPSTACK,
    GEMMA_4,
    GLM,
    IN_THREE,
    RECURRENT,
    ROTARY,
    SLIDING,
    THREE_ROTATIONS,
    WINDOWS,
    Override,
)
from tests.models.sizes import END, IMAGE, START, WIDTH

OVERRIDES: dict[str, Override] = {
    **{name: Override("images become words of a small codebook", config) for name, config in CODEBOOKS.items()},
    "aria": Override("as many queries as an image has tokens", {"projector_patch_to_query_dict": {16: 4}}),
    "aya_vision": WINDOWS,
    "cohere2_vision": WINDOWS,
    "cohere_compass": Override(
        "a rotation for each kind of layer",
        {
            "text_config": {**SLIDING, "rope_parameters": {"sliding_attention": IN_THREE, "full_attention": IN_THREE}},
            "vision_config": {"deepstack_visual_indexes": [0, 1]},
        },
    ),
    "cosmos3_omni": DEEPSTACK,
    "deepseek_ocr2": Override(
        "the first layer is dense, and two experts answer",
        {
            "text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 3, "num_experts_per_tok": 2},
            "vision_config": {"sam_config": {"mlp_ratio": 2.0, "downsample_channels": [16, 16]}},
        },
    ),
    "deepseek_vl_hybrid": Override(
        "the larger tower has two layers, of which the first looks everywhere",
        {"high_res_vision_config": {"global_attn_indexes": [0], "num_pos_feats": 8}},
    ),
    "diffusion_gemma": Override(
        "sliding layers, and experts",
        {
            "text_config": {
                **SLIDING,
                "per_layer_config": {},
                "num_experts": 4,
                "top_k_experts": 2,
                "moe_intermediate_size": 16,
            }
        },
    ),
    "dots3_note": Override(
        "as many keys as queries; tower and adapters are of one width; where it looks up fewer tokens than there are,"
        " the model itself decodes other numbers with a cache than without",
        {
            "text_config": {
                "num_key_value_heads": 4,
                "index_topk": 512,
                "shared_experts_intermediate_size": 16,
                "layer_types": ["indexed_attention", "sliding_attention"] * 2,
                "sliding_window": 6,
                "per_layer_config": {},
            },
            "vision_config": {
                "adapter_in_dim": 16,
                "adapter_out_dim": WIDTH,
                "per_layer_config": {},
                "mlp_layer_types": ["dense", "sparse"],
            },
            "audio_config": {"adapter_input_size": 16, "adapter_out_dim": WIDTH},
        },
    ),
    "ernie4_5_vl_moe": Override(
        "time, height and width share a head of 8 channels",
        {"text_config": {"rope_parameters": {**ROTARY, "mrope_section": [1, 1, 2]}, "moe_intermediate_size": [16, 16]}},
    ),
    "exaone4_5": WINDOWS,
    "fast_vlm": Override(
        "a small tower of timm", {"vision_config": {"architecture": "test_resnet", "model_args": {}, "hidden_size": 96}}
    ),
    "florence2": Override("the tower has four stages", {"vision_config": {"depths": [1] * 4}}),
    "fuyu": Override("no tower: the patches are the features", {"patch_size": 4, "image_size": 16}),
    "gemma3": WINDOWS,
    "gemma3n": Override(
        "sliding layers; no layer shares another's keys; a small tower of timm",
        {
            "vision_soft_tokens_per_image": 16,
            "vision_config": {"architecture": "test_resnet", "hidden_size": 96, "vocab_offset": 128, "vocab_size": 32},
            "audio_config": {"vocab_offset": 160, "vocab_size": 16},
            "text_config": {
                **SLIDING,
                "num_kv_shared_layers": 0,
                "intermediate_size": 48,
                "activation_sparsity_pattern": [0.0] * 4,
            },
        },
    ),
    "gemma4": GEMMA_4,
    "gemma4_unified": Override(
        "sliding layers; no layer shares another's keys",
        {**GEMMA_4.config, "vision_config": {"model_type": "gemma4_unified_vision"}},
    ),
    **dict.fromkeys(("glm4v", "glm46v", "glmga", "glm_ocr", "glm4v_moe"), GLM),
    "glm5_next": Override(
        "latent attention has as many keys as queries and no rotation",
        {
            "text_config": {
                "num_key_value_heads": 4,
                "qk_rope_head_dim": 0,
                "head_dim": 0,
                "layer_types": ["linear_attention", "indexed_attention"] * 2,
            }
        },
    ),
    **dict.fromkeys(
        ("got_ocr2", "pp_chart2table"),
        Override("the tower joins sixteen patches", {"vision_config": {"image_size": 64}}),
    ),
    "granite_docling": Override(
        "the tower joins sixteen patches; features enter behind the first two layers",
        {"vision_config": {"image_size": 64, "deepstack_visual_indexes": [0, 1]}},
    ),
    "granite4_vision": Override(
        "heads of 64 channels read the tower; features enter behind the first and the second layer",
        {
            "downsample_rate": "1/2",
            "text_config": {"attention_multiplier": 0.35},
            "deepstack_layer_map": [[-1, 0]],
            "spatial_target_layers": [1],
            "vision_config": {"hidden_size": 64},
            "qformer_config": {"hidden_size": 64},
        },
    ),
    "hunyuan_vl": Override(
        "time, height and width share a head of 8 channels",
        {"text_config": {"rope_parameters": {**IN_THREE, "xdrope_section": [2, 1, 1]}}},
    ),
    "hy_v4_vl": Override(
        "time, height and width share 8 rotated channels; as many keys as queries; where it looks up fewer tokens than"
        " there are, the model itself decodes other numbers with a cache than without",
        {
            "text_config": {
                "num_key_value_heads": 4,
                "qk_rope_head_dim": 8,
                "rope_parameters": IN_THREE,
                "index_topk": 512,
            }
        },
    ),
    **dict.fromkeys(
        ("internvl", "qianfan_ocr"),
        Override("sides stand in lists", {"vision_config": {"image_size": [32, 32], "patch_size": [4, 4]}}),
    ),
    "janus": Override("the tower's projection ends at the decoder's width", {"vision_config": {"projection_dim": 32}}),
    "kimi_k25": Override(
        "latent attention has as many keys as queries, of another width than values",
        {
            "projection_hidden_size": 16,
            "vision_config": {"hidden_size": 16},
            "text_config": {"head_dim": 4, "num_key_value_heads": 4},
        },
    ),
    "lfm2_vl": Override(
        "every other layer convolves", {"text_config": {"layer_types": ["conv", "full_attention"] * 2}}
    ),
    "llama4": Override(
        "chunks of 8 tokens in every other layer; the pixel shuffle joins four patches",
        {
            "text_config": {
                "layer_types": ["chunked_attention", "full_attention"] * 2,
                "attention_chunk_size": 8,
                "no_rope_layers": [1, 0, 1, 0],
            },
            "vision_config": {"intermediate_size": 64, "projector_input_dim": 32, "pixel_shuffle_ratio": 0.5},
        },
    ),
    **dict.fromkeys(("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), RECURRENT),
    "mistral_large4": Override(
        "latent attention has as many keys as queries", {"text_config": {"num_key_value_heads": 4}}
    ),
    "molmo2": Override(
        "its placeholder has another name; features of two layers of the tower",
        {
            "image_patch_id": IMAGE,
            "adapter_config": {"vision_feature_layer": [-1, -2], "hidden_size": 16, "head_dim": 8},
            "vision_config": {"num_position_embeddings": 16},
            "text_config": {"additional_vocab_size": 4, "rope_scaling_layers": [0, 1, 2, 3]},
        },
    ),
    "muse_glimmer": Override(
        "the tower joins four patches; three of four layers slide over 6 tokens",
        {"out_hidden_size": 64, "text_config": {"sliding_window": 6}},
    ),
    "muse_spark": Override(
        "the tower joins four patches; that for audio is a pyramid of four; three of four layers slide over 6 tokens",
        {
            "text_config": {"sliding_window": 6},
            "out_hidden_size": 64,
            "audio_config": {
                "num_hidden_layers": 4,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1] * 4,
                "out_hidden_size": WIDTH,
            },
        },
    ),
    "nemotron_h_omni": Override(
        "the tower's width stands twice, and of four layers one is recurrent and one attends",
        {
            "vision_hidden_size": 16,
            "image_token_id": IMAGE,
            "vision_config": {"patch_dim": 48, "video_patch_dim": 96},
            "text_config": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"]},
        },
    ),
    "ovis2": Override(
        "the tower's vocabulary is what the decoder embeds",
        {"hidden_size": WIDTH, "vision_config": {"hidden_size": WIDTH, "num_visual_indicator_tokens": 5}},
    ),
    "paddleocr_vl": THREE_ROTATIONS,
    "perception_lm": Override(
        "a small tower of timm",
        {
            "vision_config": {
                "architecture": "vit_pe_core_tiny_patch16_384",
                "model_args": {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": [16, 16], "patch_size": 4},
            }
        },
    ),
    "qwen2_5_omni_thinker": Override(
        "time, height and width share a head of 8 channels; its tokens that open and close an image have other names",
        {
            "text_config": {"rope_parameters": IN_THREE},
            "vision_config": {"fullatt_block_indexes": [0]},
            "vision_start_token_id": START,
            "vision_end_token_id": END,
        },
    ),
    "qwen2_5_vl": Override(
        "time, height and width share a head of 8 channels; windows in one of two layers of the tower",
        {"text_config": {"rope_parameters": IN_THREE}, "vision_config": {"fullatt_block_indexes": [0]}},
    ),
    "qwen2_vl": Override(
        "time, height and width share a head of 8 channels; the tower ends at the decoder's width",
        {"text_config": {"rope_parameters": IN_THREE}, "vision_config": {"hidden_size": WIDTH}},
    ),
    "qwen3_5": RECURRENT,
    "qwen3_5_moe": RECURRENT,
    "qwen3_omni_moe_thinker": Override(
        "features enter behind the first two layers; its tokens that open and close an image have other names",
        {
            "vision_config": {"deepstack_visual_indexes": [0, 1]},
            "vision_start_token_id": START,
            "vision_end_token_id": END,
        },
    ),
    "qwen3_vl": DEEPSTACK,
    "qwen3_vl_moe": DEEPSTACK,
    "qwen4_exp": Override(
        "every other layer is recurrent; the others attend to 4 of the pairs of tokens that they rate best",
        {
            "text_config": {
                "layer_types": ["linear_attention", "indexed_attention"] * 2,
                "indexer_n_heads": 2,
                "indexer_kv_heads": 1,
                "indexer_head_dim": 8,
                "indexer_budget": 8,
                "indexer_compress_ratio": 2,
                "hc_lowrank": 8,
            }
        },
    ),
    "shieldgemma2": WINDOWS,
    "step3p7": Override(
        "every other layer slides over 6 tokens; the tower joins sixteen patches",
        {
            "text_config": {**SLIDING, "num_sliding_attention_heads": 4},
            "vision_config": {"image_size": 32, "max_position_embeddings": 64},
        },
    ),
    "unlimited_ocr": Override(
        "the first tower ends at the width of the second; as many keys as queries",
        {"text_config": {"num_key_value_heads": 4}, "vision_config": {"sam_config": {"downsample_channels": [16, 16]}}},
    ),
    "vipllava": Override("features of the two last of two layers", {"vision_feature_layers": [-1, -2]}),
}
