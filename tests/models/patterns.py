"""How an override is written, and the patterns of layers that several classes share."""

from dataclasses import dataclass
from typing import Any

from tests.models.sizes import WIDTH


@dataclass(frozen=True)
class Override:
    """Entries of a configuration, and why they are needed."""

    reason: str
    config: dict[str, Any]


ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
IN_THREE = {**ROTARY, "mrope_section": [2, 1, 1]}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 6}
LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}

THREE_ROTATIONS = Override(
    "time, height and width share a head of 8 channels", {"text_config": {"rope_parameters": IN_THREE}}
)
WINDOWS = Override("every other layer slides over 6 tokens, fewer than an image has", {"text_config": SLIDING})
RECURRENT = Override("every other layer is recurrent; by default only one of four attends", {"text_config": LINEAR})
GLM = Override(
    "the rotation fills the head, and the tower ends at the decoder's width",
    {
        "text_config": {"rope_parameters": {**IN_THREE, "partial_rotary_factor": 1.0}},
        "vision_config": {"out_hidden_size": WIDTH},
    },
)
GEMMA_4 = Override(
    "sliding layers; no layer shares another's keys",
    {
        "text_config": {**SLIDING, "num_kv_shared_layers": 0, "per_layer_config": {}},
        "vision_config": {"model_type": "gemma4_vision"},
    },
)
DEEPSTACK = Override(
    "features enter the decoder behind its first two layers", {"vision_config": {"deepstack_visual_indexes": [0, 1]}}
)
