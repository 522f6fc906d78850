"""Videos as the processors of some models hand them over, random and small: two of two frames each."""

from collections.abc import Callable
from typing import Any

import torch

from tests.models.media import Media, tower_of

VIDEOS, FRAMES = 2, 2


def videos_for(model: Any, model_type: str) -> Media:
    """Return the pixels of two videos, and what says how they are laid out."""
    return VIDEO_MAKERS[model_type](model.config, torch.Generator().manual_seed(13))


def frames(config: Any, generator: torch.Generator, count: int = FRAMES) -> Media:
    """Frames of one size (LLaVA)."""
    side = tower_of(config).image_size
    return {"pixel_values_videos": torch.randn(VIDEOS, count, 3, side, side, generator=generator)}


def eight_frames(config: Any, generator: torch.Generator) -> Media:
    """As many frames as Video-LLaVA always takes."""
    return frames(config, generator, count=8)


def patches_in_time(config: Any, generator: torch.Generator) -> Media:
    """Flattened patches of pairs of frames, with the grid of each video (Qwen2-VL)."""
    tower, grids = tower_of(config), torch.tensor([[2, 4, 4], [1, 4, 8]])
    width = tower.in_channels * tower.temporal_patch_size * tower.patch_size**2
    pixels = torch.randn(int(grids.prod(1).sum()), width, generator=generator)
    return {"pixel_values_videos": pixels, "video_grid_thw": grids}


VIDEO_MAKERS: dict[str, Callable[[Any, torch.Generator], Media]] = {
    "llava_next_video": frames,
    "video_llava": eight_frames,
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), patches_in_time),
}
"""How videos are laid out, for the classes whose videos are tested; LLaVA-OneVision's are in `tests/integrations`."""
