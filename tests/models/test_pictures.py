"""The token that a picture says covers a spot is the one whose features the spot moves most, in the model's own tower.

Nothing of the geometry's own arithmetic is used: a spot of the pixels is painted, the tower and its projector are run,
and the regions are asked which token lies there. Attention within the tower is made faint, or it would spread the spot.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from iwp_transformers import family_of, inspect_model, kept_tokens_figure, prune_visual_tokens
from iwp_transformers.families._layouts import READERS
from iwp_transformers.grids import frame_regions, grid_regions, sized_regions
from iwp_transformers.regions import Region
from iwp_transformers.split_pictures import split_regions
from iwp_transformers.tiles import next_video_regions, tile_regions
from iwp_transformers.token_grids import grids_of
from tests.models.batches import make_batch
from tests.models.checks import scattered
from tests.models.factory import CLASSES, tiny_config, tiny_model
from tests.models.media import media_for, taker_of
from tests.models.outside import ON_OLDER_VERSIONS
from tests.models.sizes import IMAGE, VIDEO
from tests.models.table import is_older_than_the_page
from tests.models.videos import frames

ROWS, COLUMNS = 3, 4
PROCESSORS = {
    "cohere_compass": "CohereCompassImageProcessorPil",
    "cosmos3_edge": "Cosmos3EdgeImageProcessorPil",
    "ernie4_5_vl_moe": "Ernie4_5_VLMoeImageProcessorPil",
    "glm46v": "Glm46VImageProcessorPil",
    "glm4v": "Glm4vImageProcessorPil",
    "glm4v_moe": "Glm4vImageProcessorPil",
    "glmga": "GlmgaImageProcessorPil",
    "paddleocr_vl": "PaddleOCRVLImageProcessorPil",
    "video_llama_3": "VideoLlama3ImageProcessorPil",
}
"""Image processors by model type; the others have Qwen2-VL's."""

pytestmark = pytest.mark.filterwarnings("ignore")


def types_of(reader: object) -> list[str]:
    """Return the model types whose regions are read so, as far as this version of Transformers is tested with them."""
    known = ON_OLDER_VERSIONS if is_older_than_the_page() else CLASSES
    return sorted(name for name, read in READERS.items() if read is reader and name in known and name in CLASSES)


def calm_model(name: str) -> Any:
    """Return a tiny model whose tower hardly looks beyond each patch."""
    model = tiny_model(name)
    for place, parameter in taker_of(model).named_parameters():
        attends = "attn" in place or "attention" in place
        ends = any(part in place for part in ("v_proj", "out", "o_proj", "attn.proj", "dense", "projection_layer"))
        if attends and ends and "language_model" not in place:
            parameter.data *= 1e-3
    return model


def features_of(model: Any, media: Mapping[str, Any], kind: str = "image") -> Tensor:
    """Return what stands in the tokens' place, shape (N, E), by the model's own method."""
    ask = getattr(taker_of(model), f"get_{kind}_features")
    names = inspect.signature(ask).parameters
    anything = any(each.kind is each.VAR_KEYWORD for each in names.values())
    pixels, *others = media.items()
    wanted = {name: part for name, part in others if name in names or anything}
    with torch.no_grad():
        answer = ask(pixels[1], **wanted, **({"return_dict": True} if anything or "return_dict" in names else {}))
    found = getattr(answer, "pooler_output", answer)
    parts = found if isinstance(found, (list, tuple)) else [found]
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def covering(regions: tuple[Region, ...], x: float, y: float, tile: int | None = None) -> list[int]:
    """Return which tokens cover a point of the picture, or of a tile."""
    return [
        number
        for number, region in enumerate(regions)
        if region.tile == tile and region.box is not None
        if region.box[0] <= x < region.box[2] and region.box[1] <= y < region.box[3]
    ]


@pytest.mark.parametrize("name", types_of(tile_regions))
def test_a_spot_of_a_tile_moves_the_token_that_covers_it(name: str) -> None:
    """Every token of two tiles of noise, for each family that sees squares."""
    model = calm_model(name)
    media = media_for(model, name, (2,))
    pixels, before = media["pixel_values"], features_of(model, media)
    inputs = {**media, "input_ids": torch.tensor([[5, *[IMAGE] * len(before), 6]])}

    regions = family_of(model).regions(model.config, inputs, 0)

    assert len(regions) == len(before)
    tiles, side = pixels.reshape(-1, *pixels.shape[-3:]), pixels.shape[-1]
    seed = torch.Generator().manual_seed(2)
    for number, region in enumerate(regions):
        assert region.box is not None
        assert region.tile is not None
        left, top, right, bottom = (round(edge * side) for edge in region.box)
        painted = tiles.clone()
        spot = painted[region.tile, :, top:bottom, left:right]
        spot[:] = 3 * torch.randn(spot.shape, generator=seed)
        moved = features_of(model, {**media, "pixel_values": painted.view(pixels.shape)}) - before
        assert int(moved.norm(dim=1).argmax()) == number
        middle = (left + right) / 2 / side, (top + bottom) / 2 / side
        assert covering(regions, *middle, region.tile) == [number]


@pytest.mark.parametrize("name", [*types_of(grid_regions), *types_of(frame_regions), *types_of(sized_regions)])
def test_a_spot_of_a_picture_moves_the_token_that_covers_it(name: str) -> None:
    """A picture of 3 x 4 tokens goes through the library's own processor, painted at one token after another."""
    model: Any = calm_model(name)
    tower = model.config.vision_config
    sized = READERS[name] is sized_regions
    merge = model.config.spatial_merge_size if sized else getattr(tower, "spatial_merge_size", 2)
    side = merge * tower.patch_size
    if sized:
        kind, options = "PixtralImageProcessorPil", {"patch_size": side, "size": {"longest_edge": COLUMNS * side}}
    else:
        kind = PROCESSORS.get(name, "Qwen2VLImageProcessorPil")
        options = {"patch_size": tower.patch_size, "merge_size": merge, "do_resize": False}
        if hasattr(tower, "temporal_patch_size"):
            options["temporal_patch_size"] = tower.temporal_patch_size
    processor = getattr(transformers, kind)(**options)

    def encoded(picture: Any) -> dict[str, Any]:
        return dict(processor(images=[Image.fromarray(picture)], return_tensors="pt"))

    picture = np.random.default_rng(0).integers(0, 255, (ROWS * side, COLUMNS * side, 3), dtype=np.uint8)
    media = encoded(picture)
    before = features_of(model, media)
    inputs = {**media, "input_ids": torch.tensor([[5, *[IMAGE] * len(before), 6]])}
    regions = family_of(model).regions(model.config, inputs, 0)

    assert len(regions) == len(before) == ROWS * COLUMNS
    for row in range(ROWS):
        for column in range(COLUMNS):
            painted = picture.copy()
            spot = painted[row * side : (row + 1) * side, column * side : (column + 1) * side]
            spot[:] = 255 - spot
            moved = (features_of(model, encoded(painted)) - before).norm(dim=1)
            assert covering(regions, (column + 0.5) / COLUMNS, (row + 0.5) / ROWS) == [int(moved.argmax())]


@pytest.mark.parametrize("name", types_of(split_regions))
def test_a_spot_of_a_picture_that_is_cut_moves_the_tokens_that_cover_it(name: str) -> None:
    """One crop of 2 x 3, and the whole of it; the text is written as the library's processor writes it."""
    model: Any = calm_model(name)
    side = model.config.vision_config.image_size
    processor = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 3 * side}, max_image_size={"longest_edge": side}
    )

    def encoded(picture: Any) -> dict[str, Any]:
        return dict(processor(images=[[Image.fromarray(picture)]], return_tensors="pt"))

    picture = np.random.default_rng(0).integers(0, 255, (2 * side, 3 * side, 3), dtype=np.uint8)
    media = encoded(picture)
    before = features_of(model, media)
    each = len(before) // 7
    opening, ending, text = 6, 7, [5]
    for row in range(2):
        for column in range(3):
            text += [opening, 10 + 3 * row + column, *[IMAGE] * each]
        text += [ending]
    inputs = {**media, "input_ids": torch.tensor([[*text, ending, opening, 9, *[IMAGE] * each, opening, 8]])}
    regions = family_of(model).regions(model.config, inputs, 0)

    assert [region.level for region in regions] == ["crop"] * 6 * each + ["base"] * each
    small = round(each**0.5)
    assert [tuple(grid.shape) for grid in grids_of(regions)] == [(2 * small, 3 * small), (small, small)]
    for number, place in enumerate(grids_of(regions)[0].flatten().tolist()):
        row, column = divmod(number, 3 * small)
        cell = side // small
        painted = picture.copy()
        spot = painted[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        spot[:] = 255 - spot
        moved = (features_of(model, encoded(painted)) - before).norm(dim=1)
        moving = [int(moved[: 6 * each].argmax()), 6 * each + int(moved[6 * each :].argmax())]
        assert covering(regions, (column + 0.5) / 3 / small, (row + 0.5) / 2 / small) == moving
        assert moving[0] == place


@pytest.mark.parametrize("name", types_of(split_regions))
def test_two_pictures_that_are_cut_and_one_that_is_not_are_told_apart(name: str) -> None:
    """By the token that opens tiles and ends pictures; where the text is another, tokens are drawn on tiles."""
    model: Any = tiny_model(name)
    tile, opening, ending = [IMAGE] * 4, 6, 7
    cut = [opening, 10, *tile, ending, opening, 11, *tile, ending, ending, opening, 9, *tile, opening]
    single = [opening, 9, *tile, opening]
    pixels = {"pixel_values": torch.randn(1, 7, 3, 16, 16)}

    def read(text: list[int]) -> tuple[Region, ...]:
        return family_of(model).regions(model.config, {**pixels, "input_ids": torch.tensor([text])}, 0)

    regions = read([5, *cut, *single, 30, 31, *cut, 8])
    levels = [("crop", 0)] * 8 + [("base", 0)] * 4 + [("base", 1)] * 4 + [("crop", 2)] * 8 + [("base", 2)] * 4
    assert [(region.level, region.index) for region in regions] == levels
    assert {region.box[1::2] for region in regions[:4] if region.box} == {(0.0, 0.25), (0.25, 0.5)}
    assert [region.tile for region in read([5, *([opening, *tile] * 7)])] == [
        tile for tile in range(7) for _ in range(4)
    ]


def test_a_spot_of_a_frame_moves_the_token_that_covers_it() -> None:
    """LLaVA-NeXT-Video pools each frame's features; two videos of two frames, of which the second is asked for."""
    model = calm_model("llava_next_video")
    media = frames(model.config, torch.Generator().manual_seed(13))
    pixels, before = media["pixel_values_videos"], features_of(model, media, "video")
    row = [5, *[VIDEO] * (len(before) // 2), 6]
    inputs = {**media, "input_ids": torch.tensor([row, row])}

    regions = next_video_regions(model.config, inputs, 1)

    assert {region.frame for region in regions} == {0, 1}
    flat, side = pixels.reshape(-1, *pixels.shape[-3:]), pixels.shape[-1]
    for number, region in enumerate(regions):
        assert region.box is not None
        assert region.tile is not None
        left, top, right, bottom = (round(edge * side) for edge in region.box)
        painted = flat.clone()
        painted[region.tile, :, top:bottom, left:right] *= -3
        moved = features_of(model, {"pixel_values_videos": painted.view(pixels.shape)}, "video") - before
        assert int(moved.norm(dim=1).argmax()) - len(regions) == number


@pytest.mark.parametrize("name", ["llava", "idefics3", "gemma3"])
def test_each_sample_has_its_own_tiles(name: str) -> None:
    """Of two samples, the second one's regions lie in the second tile."""
    model = tiny_model(name)
    batch = make_batch(model, name)

    regions = family_of(model).regions(model.config, batch, 1)

    assert {region.tile for region in regions} == {1}
    assert {region.index for region in regions} == {0}


def test_tiles_that_pad_a_sample_are_passed_over() -> None:
    """Idefics lists tiles by sample, and pads with black ones, which the model leaves out."""
    model = tiny_model("idefics3")
    pixels = torch.randn(2, 2, 3, 16, 16)
    pixels[0, 1] = 0
    ids = torch.tensor([[5, *[IMAGE] * 4, 6, 6, 6, 6], [5, *[IMAGE] * 8]])

    regions = family_of(model).regions(model.config, {"pixel_values": pixels, "input_ids": ids}, 1)

    assert [region.tile for region in regions] == [2] * 4 + [3] * 4


@pytest.mark.parametrize("tokens", [7, 30, 32])
def test_tokens_that_are_no_grid_cannot_be_drawn(tokens: int) -> None:
    """What cannot be told is refused in one line, with the numbers."""
    model = tiny_model("llava")
    ids = torch.tensor([[5, *[IMAGE] * tokens]])
    inputs = {"pixel_values": torch.ones(1, 3, 16, 16), "input_ids": ids}

    with pytest.raises(ValueError, match=rf"has {tokens} image tokens for 1 tiles of 16 x 16 pixels .* cannot be told"):
        family_of(model).regions(model.config, inputs, 0)


def test_the_class_token_covers_nothing() -> None:
    """LLaVA that selects all features of its tower keeps it, in front of the patches."""
    model: Any = tiny_model("llava")
    model.config.vision_feature_select_strategy = "full"
    inputs = {"pixel_values": torch.ones(2, 3, 16, 16), "input_ids": torch.tensor([[5, *[IMAGE] * 34]])}

    regions = family_of(model).regions(model.config, inputs, 0)

    assert [number for number, region in enumerate(regions) if region.box is None] == [0, 17]


@pytest.mark.parametrize(("name", "panels"), [("llava", 1), ("idefics3", 1), ("mistral3", 1), ("qwen3_vl", 1)])
def test_a_figure_of_an_inferred_family_is_drawn(name: str, panels: int) -> None:
    """From the record of a real prefill; the kept count of the panel is the record's."""
    model: Any = tiny_model(name)
    batch = make_batch(model, name)
    with prune_visual_tokens(model, budget=0.5, layer=1, selector=scattered) as session, torch.no_grad():
        model(**batch)

    figure = kept_tokens_figure(session.records[-1], batch, Image.new("RGB", (40, 30)), model=model, sample=1)

    kept, visual = len(session.records[-1].kept[1]), len(session.records[-1].visual[1])
    assert len(figure.axes) == panels
    assert f"{kept} of {visual} " in figure.axes[0].get_title()


def test_a_figure_shows_the_pixels_of_the_tile_and_the_kept_part_clear() -> None:
    """White over black, whatever the normalisation; the quarter that is kept has its colours."""
    model: Any = tiny_model("llava")
    pixels = torch.full((1, 3, 16, 16), -1.7)
    pixels[:, 0, :8] = 2.1
    inputs = {"pixel_values": pixels, "input_ids": torch.tensor([[5, *[IMAGE] * 16, 6]])}
    with (
        prune_visual_tokens(model, budget=4, layer=1, selector=lambda view: torch.tensor([0, 1, 4, 5])) as session,
        torch.no_grad(),
    ):
        model(**inputs)

    figure = kept_tokens_figure(session.records[-1], inputs, model=model)

    shown = np.asarray(figure.axes[0].images[0].get_array()).astype(int)
    before, behind = slice(None, shown.shape[0] // 2 - 150), slice(shown.shape[0] // 2 + 150, None)
    assert (shown[before, before] == [255, 0, 0]).all()
    assert (np.ptp(shown[behind], axis=2) == 0).all()
    assert (np.ptp(shown[before, behind], axis=2) == 0).all()
    assert "tile 1/1, as the model saw it" in figure.axes[0].get_title()


@pytest.mark.parametrize("name", sorted(READERS))
def test_an_inspected_model_says_that_it_has_pictures(name: str) -> None:
    """By its type alone."""
    if name not in CLASSES:
        pytest.skip("this version of Transformers has no such model")
    assert inspect_model(tiny_config(name)).pictures
