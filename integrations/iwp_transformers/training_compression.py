"""How many patches a model was trained to see as one visual token, by what its configuration says."""

from typing import Any

from transformers import PreTrainedConfig

__all__ = ["training_compression"]

# Models whose connector leaves the patches of an image as many as they are.
UNMERGED = ("llava", "llava_next", "llava_onevision", "vipllava")


def training_compression(config: PreTrainedConfig) -> float | None:
    """Return the training-aware compression ratio of a model: patches of its vision tower for each visual token.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the multimodal model.

    Returns
    -------
    float or None
        None where the configuration does not tell. Of images: what a family pools beyond that in videos, or where a
        picture has too many crops, is not counted.

    References
    ----------
    Wen et al.: Token Pruning in Multimodal Large Language Models: Are We Solving the Right Problem? arXiv 2502.11501.

    Examples
    --------
    >>> from transformers import Qwen2VLConfig
    >>> training_compression(Qwen2VLConfig())
    4.0
    """
    if config.model_type in UNMERGED:
        return 1.0
    vision: Any = getattr(config, "vision_config", None)
    for part in (config, vision):
        side = getattr(part, "spatial_merge_size", None) or getattr(part, "scale_factor", None)
        if side is not None:
            return float(side) ** 2
        ratio = getattr(part, "downsample_ratio", None) or getattr(part, "pixel_shuffle_ratio", None)
        if ratio is not None:
            return 1 / float(ratio) ** 2
    tokens = getattr(config, "mm_tokens_per_image", None)
    if tokens and vision is not None:
        return float((vision.image_size // vision.patch_size) ** 2 / tokens)
    return None
