"""What the default configuration with small numbers lacks, class by class, each with its reason."""

from dataclasses import dataclass
from typing import Any

from tests.models.sizes import END, IMAGE, START, WIDTH


@dataclass(frozen=True)
class Override:
    """Entries of a configuration, and why they are needed."""

    reason: str
    config: dict[str, Any]


ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
IN_THREE = {**ROTARY, "mrope_section": [2, 1, 1]}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 6}
LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}

_THREE_ROTATIONS = Override(
    "time, height and width share a head of 8 channels", {"text_config": {"rope_parameters": IN_THREE}}
)
_WINDOWS = Override("every other layer slides over 6 tokens, fewer than an image has", {"text_config": SLIDING})
_RECURRENT = Override("every other layer is recurrent; by default only one of four attends", {"text_config": LINEAR})
_GLM = Override(
    "the rotation fills the head, and the tower ends at the decoder's width",
    {
        "text_config": {"rope_parameters": {**IN_THREE, "partial_rotary_factor": 1.0}},
        "vision_config": {"out_hidden_size": WIDTH},
    },
)
_GEMMA_4 = Override(
    "sliding layers; no layer shares another's keys",
    {"text_config": {**SLIDING, "num_kv_shared_layers": 0, "per_layer_config": {}}},
)
_FOUR_LAYERS_DEEP = Override(
    "features enter the decoder behind its first two layers", {"vision_config": {"deepstack_visual_indexes": [0, 1]}}
)

OVERRIDES: dict[str, Override] = {
    "aria": Override("as many queries as an image has tokens", {"projector_patch_to_query_dict": {16: 4}}),
    "aya_vision": _WINDOWS,
    "cohere2_vision": _WINDOWS,
    "diffusion_gemma": Override("sliding layers", {"text_config": {**SLIDING, "per_layer_config": {}}}),
    "exaone4_5": _WINDOWS,
    "gemma3": _WINDOWS,
    "gemma3n": Override(
        "sliding layers; no layer shares another's keys",
        {
            "text_config": {
                **SLIDING,
                "num_kv_shared_layers": 0,
                "intermediate_size": 48,
                "activation_sparsity_pattern": [0.0] * 4,
            }
        },
    ),
    "gemma4": _GEMMA_4,
    "gemma4_unified": _GEMMA_4,
    **dict.fromkeys(("glm4v", "glm46v", "glmga", "glm_ocr", "glm4v_moe"), _GLM),
    "glm5_next": Override("latent attention has as many keys as queries", {"text_config": {"num_key_value_heads": 4}}),
    "got_ocr2": Override("the tower shrinks an image to a sixteenth", {"vision_config": {"image_size": 256}}),
    "hunyuan_vl": Override(
        "time, height and width share a head of 8 channels",
        {"text_config": {"rope_parameters": {**IN_THREE, "xdrope_section": [2, 1, 1]}}},
    ),
    "kimi_k25": Override(
        "latent attention has as many keys as queries, of another width than values",
        {
            "projection_hidden_size": 16,
            "vision_config": {"hidden_size": 16},
            "text_config": {"head_dim": 4, "num_key_value_heads": 4},
        },
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
    **dict.fromkeys(("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), _RECURRENT),
    "ovis2": Override(
        "the tower's vocabulary is what the decoder embeds",
        {"hidden_size": WIDTH, "vision_config": {"hidden_size": WIDTH, "num_visual_indicator_tokens": 5}},
    ),
    "paddleocr_vl": _THREE_ROTATIONS,
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
    "qwen3_5": _RECURRENT,
    "qwen3_5_moe": _RECURRENT,
    "qwen3_omni_moe_thinker": Override(
        "features enter behind the first two layers; its tokens that open and close an image have other names",
        {
            "vision_config": {"deepstack_visual_indexes": [0, 1]},
            "vision_start_token_id": START,
            "vision_end_token_id": END,
        },
    ),
    "qwen3_vl": _FOUR_LAYERS_DEEP,
    "qwen3_vl_moe": _FOUR_LAYERS_DEEP,
    "shieldgemma2": _WINDOWS,
    "step3p7": _WINDOWS,
    "vipllava": Override("features of the two last of two layers", {"vision_feature_layers": [-1, -2]}),
}
