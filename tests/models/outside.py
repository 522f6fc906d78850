"""Classes of the mapping of which no pruned forward can be judged, and why."""

NO_TOKENS = {
    "blip": "the decoder reads the image by cross-attention: no token of its sequence is visual",
    "diffusion_gemma": "it refines a canvas of tokens instead of decoding one after another",
    "evolla": "it reads proteins, by cross-attention",
    "florence2": "an encoder reads image and text, and the decoder reads the encoder by cross-attention",
    "git": "the image stands in front of the text without a placeholder",
    "idefics": "the decoder reads images by cross-attention: no token of its sequence is visual",
    "instructblipvideo": "its videos are named like images, and are read by a Q-Former before the decoder",
    "kosmos-2": "a mask given with the image says where it goes: the configuration names no placeholder",
    "kosmos-2.5": "a mask given with the image says where it goes: the configuration names no placeholder",
    "mistral4": "it takes text only",
    "mllama": "the decoder reads images by cross-attention: no token of its sequence is visual",
    "pi0": "it answers with the motions of a robot, not with text",
    "pix2struct": "an encoder reads the image, and the decoder reads the encoder by cross-attention",
    "pp_formulanet": "an encoder reads the image, and the decoder reads the encoder by cross-attention",
    "t5gemma2": "an encoder reads image and text, and the decoder reads the encoder by cross-attention",
    "udop": "an encoder reads image and text, and the decoder reads the encoder by cross-attention",
    "vision-encoder-decoder": "an encoder reads the image, and the decoder reads the encoder by cross-attention",
}
"""No token of the decoder's sequence is visual, or nobody can tell which: there is nothing to prune."""

NO_TRUTH = dict.fromkeys(
    ("inkling_mm_model", "inkling2", "inkling2_loop"),
    "each layer attends and convolves at once, over distances counted in rows: what a dropped token leaves behind in"
    " rows of others has no definition",
)
"""Whatever is served here could be compared with nothing: it has to be refused."""

UNRUNNABLE = {
    "llama4": "Transformers 5.24.0 fails in its own forward: it reads `image_outputs` off an output that has none",
}
"""The class fails by itself, unpruned; where it does not, in another version, it is judged like all others."""

ON_OLDER_VERSIONS = (
    "aya_vision",
    "cohere2_vision",
    "deepseek_vl",
    "gemma3",
    "glm4v",
    "idefics3",
    "internvl",
    "llama4",
    "llava",
    "llava_next",
    "llava_next_video",
    "llava_onevision",
    "mistral3",
    "ovis2",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_5",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
)
"""Classes that are tested on any version; the others only on that of `docs/models.md` and newer ones.

The sizes and inputs of the tests are those of the page's version. Older ones name some of them otherwise, and 5.17
decodes PaliGemma's answer as if it belonged to the prefix.
"""

NEED_TIMM = ("fast_vlm", "gemma3n", "perception_lm")
"""Their towers come from timm."""

NO_UNCACHED_DECODING = {
    **dict.fromkeys(
        ("blip-2", "instructblip"),
        "`generate` hands embeddings to the decoder, whose mask then does not fit without a cache",
    ),
}
"""What the unpruned model decodes with a cache cannot be compared with what it decodes without."""
