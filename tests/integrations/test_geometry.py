"""Regions of visual tokens, held against pictures whose colours are their own coordinates.

The models' own cutting, unpadding, pooling and ordering run on mean colours instead of learned features, so each
feature says where its pixels lay and to which picture they belong. Nothing of the geometry's own arithmetic is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import (
    BatchFeature,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from iwp_transformers.geometry import anyres_regions_next, anyres_regions_onevision
from iwp_transformers.grids import grid_regions
from iwp_transformers.regions import Region
from tests.integrations.processors import (
    IDS,
    NEWLINE,
    colour_features,
    coordinate_picture,
    image_processor,
    next_config,
    onevision_config,
    padded,
    qwen2_5_vl_config,
    qwen2_vl_config,
    qwen_video,
    sentence,
    show_colours,
    square_video,
)

# Two steps of an eight-bit channel: what rounding a colour, and then rounding its resized copy, can add up to.
ROUNDING = 2 / 255
SIDES = st.integers(min_value=24, max_value=400)


@pytest.fixture(scope="module")
def onevision() -> PreTrainedModel:
    """LLaVA-OneVision that shows colours."""
    return show_colours(LlavaOnevisionForConditionalGeneration(onevision_config()))


@pytest.fixture(scope="module")
def llava_next() -> PreTrainedModel:
    """LLaVA-NeXT that shows colours."""
    return show_colours(LlavaNextForConditionalGeneration(next_config()))


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def qwen(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Both generations of Qwen's vision tower, showing colours."""
    if request.param == "qwen2_vl":
        return show_colours(Qwen2VLForConditionalGeneration(qwen2_vl_config()))
    return show_colours(Qwen2_5_VLForConditionalGeneration(qwen2_5_vl_config()))


def assert_looked_at(features: NDArray[np.float64], regions: Sequence[Region], marks: Sequence[float]) -> None:
    """Check that every region lies where its feature's colours say, in a picture of the given blue `marks`."""
    assert len(regions) == len(features)
    for (x, y, mark), region, expected in zip(features, regions, marks, strict=True):
        if x == NEWLINE:
            assert (region.level, region.box) == ("newline", None)
        elif region.box is None:
            assert region.level != "newline"
            assert mark < expected - ROUNDING
        elif mark < expected - ROUNDING:
            # Black padding has a share in this token, so its region has to reach the picture's border.
            assert region.box[0] == 0 or region.box[1] == 0 or region.box[2] == 1 or region.box[3] == 1
        else:
            left, top, right, bottom = region.box
            assert abs(mark - expected) <= ROUNDING
            assert abs(x - (left + right) / 2) <= (right - left) / 2 + ROUNDING
            assert abs(y - (top + bottom) / 2) <= (bottom - top) / 2 + ROUNDING


def image_features(model: PreTrainedModel, encoded: BatchFeature) -> list[NDArray[np.float64]]:
    """Colours of each image of the batch, by the model's own front end."""
    names = ("pixel_values", "image_sizes", "batch_num_images", "image_grid_thw")
    given_names = {name: encoded[name] for name in names if name in encoded}
    return [colour_features(image) for image in model.model.get_image_features(**given_names).pooler_output]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(height=SIDES, width=SIDES)
@example(height=400, width=400)
@example(height=24, width=400)
@example(height=400, width=31)
def test_onevision_regions_lie_where_the_features_looked(onevision: PreTrainedModel, height: int, width: int) -> None:
    """One image of any size: base view, unpadded and possibly shrunk crops, newlines."""
    encoded = image_processor(onevision.config)(images=[coordinate_picture(height, width)], return_tensors="pt")
    (features,) = image_features(onevision, encoded)
    inputs = {**encoded, "input_ids": padded([sentence((IDS["<image>"], len(features)))])}

    regions = anyres_regions_onevision(onevision.config, inputs, 0)

    assert_looked_at(features, regions, [1.0] * len(regions))


@pytest.mark.parametrize("side", [30, 32], ids=["odd grid", "even grid"])
@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (400, 2), (3, 1000), (1, 1), (1, 2)], ids=str)
def test_onevision_regions_of_a_thread_are_those_of_its_features(size: tuple[int, int], side: int) -> None:
    """Unpadding may leave no column, so that newlines stand alone, or no row, so that nothing does."""
    model = show_colours(LlavaOnevisionForConditionalGeneration(onevision_config(side)))
    encoded = image_processor(model.config)(images=[coordinate_picture(*size)], return_tensors="pt")
    (features,) = image_features(model, encoded)
    inputs = {**encoded, "input_ids": padded([sentence((IDS["<image>"], len(features)))])}

    regions = anyres_regions_onevision(model.config, inputs, 0)

    newlines = [region.level == "newline" for region in regions]
    assert newlines == (features[:, 0] == NEWLINE).tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(height=SIDES, width=SIDES)
def test_next_regions_lie_where_the_features_looked(llava_next: PreTrainedModel, height: int, width: int) -> None:
    """One image of any size, with a class token that is dropped and crops that are never shrunk."""
    encoded = image_processor(llava_next.config)(images=[coordinate_picture(height, width)], return_tensors="pt")
    (features,) = image_features(llava_next, encoded)
    inputs = {**encoded, "input_ids": padded([sentence((IDS["<image>"], len(features)))])}

    regions = anyres_regions_next(llava_next.config, inputs, 0)

    assert_looked_at(features, regions, [1.0] * len(regions))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(height=SIDES, width=SIDES)
def test_grid_regions_lie_where_the_features_looked(qwen: PreTrainedModel, height: int, width: int) -> None:
    """One image of any size on a merged grid, also where windows shuffle the patches in between."""
    encoded = image_processor(qwen.config)(images=[coordinate_picture(height, width)], return_tensors="pt")
    (features,) = image_features(qwen, encoded)
    inputs = {**encoded, "input_ids": padded([sentence((IDS["<|image_pad|>"], len(features)))])}

    regions = grid_regions(qwen.config, inputs, 0)

    assert_looked_at(features, regions, [1.0] * len(regions))


def test_onevision_gives_every_sample_its_own_pictures(onevision: PreTrainedModel) -> None:
    """A ragged batch: two images together (square views), none, one with crops, and a video before an image."""
    marks = [0.3, 0.5, 0.7, 0.9]
    first, second, alone, last = [coordinate_picture(70, 50 + 40 * n, mark) for n, mark in enumerate(marks)]
    encoded = image_processor(onevision.config)(images=[[first, second], [alone], [last]], return_tensors="pt")
    video = square_video(30, [coordinate_picture(60, 90, mark) for mark in (0.2, 0.4, 0.6)])
    images = image_features(onevision, encoded)
    film = colour_features(onevision.model.get_video_features(video).pooler_output)
    if film[-1, 0] != NEWLINE:
        # Transformers 5.17 appends the newline of a video later, in its forward.
        film = np.vstack([film, np.full(3, NEWLINE)])
    image, frames, lengths = IDS["<image>"], IDS["<video>"], [len(features) for features in images]
    ids = padded([
        sentence((image, lengths[0]), (image, lengths[1])),
        sentence(),
        sentence((image, lengths[2])),
        sentence((frames, len(film)), (image, lengths[3])),
    ])
    inputs = {**encoded, "pixel_values_videos": video, "input_ids": ids}

    samples = [anyres_regions_onevision(onevision.config, inputs, sample) for sample in range(4)]

    by_image = {("image", n, 0): mark for n, mark in enumerate(marks[:2])}
    by_frame = {("video", 0, n): mark for n, mark in enumerate((0.2, 0.4, 0.6))}
    tables = [by_image, {}, {("image", 0, 0): 0.7}, {("image", 0, 0): 0.9, **by_frame}]
    features = [np.concatenate(images[:2]), np.empty((0, 3)), images[2], np.concatenate([film, images[3]])]
    for regions, colours, table in zip(samples, features, tables, strict=True):
        assert_looked_at(colours, regions, [table[region.medium, region.index, region.frame] for region in regions])
    assert {region.level for region in samples[0]} == {"base", "newline"}
    assert {region.level for region in samples[2]} == {"base", "crop", "newline"}


def test_grid_gives_every_sample_its_own_pictures(qwen: PreTrainedModel) -> None:
    """An image, a video of three temporal patches and another image in one sample, a last image in the next."""
    processor, marks = image_processor(qwen.config), [0.3, 0.5, 0.7]
    pictures = [coordinate_picture(60 + 20 * n, 90, mark) for n, mark in enumerate(marks)]
    encoded = processor(images=pictures, return_tensors="pt")
    video = qwen_video(processor, [coordinate_picture(48, 64, mark) for mark in (0.2, 0.2, 0.4, 0.4, 0.6, 0.6)])
    images = image_features(qwen, encoded)
    film = colour_features(qwen.model.get_video_features(**video).pooler_output[0])
    image, frames, lengths = IDS["<|image_pad|>"], IDS["<|video_pad|>"], [len(features) for features in images]
    ids = padded([
        sentence((image, lengths[0]), (frames, len(film)), (image, lengths[1])),
        sentence((image, lengths[2])),
    ])

    samples = [grid_regions(qwen.config, {**encoded, **video, "input_ids": ids}, sample) for sample in range(2)]

    table = {("image", n, 0): mark for n, mark in enumerate(marks[:2])}
    table |= {("video", 0, n): mark for n, mark in enumerate((0.2, 0.4, 0.6))}
    expected = [table[region.medium, region.index, region.frame] for region in samples[0]]
    assert_looked_at(np.concatenate([images[0], film, images[1]]), samples[0], expected)
    assert_looked_at(images[2], samples[1], [0.7] * len(samples[1]))


@pytest.mark.parametrize(
    ("size", "unseen"),
    [((150, 90), 0.0), ((400, 400), 0.0), ((40, 200), 2 / 36)],
    ids=["upright", "shrunk", "unpadding cuts a sliver"],
)
def test_onevision_base_and_crops_each_tile_the_picture(
    onevision: PreTrainedModel, size: tuple[int, int], unseen: float
) -> None:
    """The regions of a level cover the picture once; 40 x 200 fits into 36 rows of pixels, of which 34 survive."""
    encoded = image_processor(onevision.config)(images=[coordinate_picture(*size)], return_tensors="pt")
    (features,) = image_features(onevision, encoded)
    inputs = {**encoded, "input_ids": padded([sentence((IDS["<image>"], len(features)))])}

    regions = anyres_regions_onevision(onevision.config, inputs, 0)

    for level, area in (("base", 1.0), ("crop", 1.0 - unseen)):
        boxes = [region.box for region in regions if region.level == level and region.box]
        assert sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes) == pytest.approx(area)


def test_unsupported_sample_is_named() -> None:
    """A sample outside the batch is a ValueError that tells the range."""
    inputs = {"input_ids": padded([sentence(), sentence()])}

    with pytest.raises(ValueError, match=r"`sample` is 2, expected 0 to 1"):
        grid_regions(qwen2_vl_config(), inputs, 2)


@pytest.mark.parametrize("missing", ["no grid", "one token too many"])
def test_tokens_without_their_picture_are_an_error(missing: str) -> None:
    """Inputs whose placeholders and pictures disagree are refused, never misdrawn."""
    grids = {} if missing == "no grid" else {"image_grid_thw": torch.tensor([[1, 4, 4]])}
    inputs = {**grids, "input_ids": padded([sentence((IDS["<|image_pad|>"], 5))])}

    with pytest.raises(ValueError, match=r"has 5 image tokens in sample 0, but its images make \d"):
        grid_regions(qwen2_vl_config(), inputs, 0)
