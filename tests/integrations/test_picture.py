"""Pictures of kept tokens: pixels, panels, counts and refusals, on records made by hand and by real pruning."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)

from iwp_transformers import PruningRecord, prune_visual_tokens
from iwp_transformers.picture import dim_dropped, kept_mask, kept_tokens_figure
from iwp_transformers.regions import Box, Region
from tests.integrations.processors import (
    IDS,
    PillowOnevisionProcessor,
    PillowQwenProcessor,
    coordinate_picture,
    onevision_config,
    qwen2_5_vl_config,
)

QUESTION = "what is this ?"


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Tiny Qwen2.5-VL."""
    return Qwen2_5_VLForConditionalGeneration(qwen2_5_vl_config()).train(False)


@pytest.fixture(scope="module")
def onevision() -> Any:
    """Tiny LLaVA-OneVision."""
    return LlavaOnevisionForConditionalGeneration(onevision_config()).train(False)


def square(box: Box | None) -> Region:
    """Region of an image's only level."""
    return Region(medium="image", index=0, frame=0, box=box, level="grid")


def grid_inputs(frames: int, rows: int, columns: int, *, still: bool) -> dict[str, torch.Tensor]:
    """Make the inputs of a Qwen model that regions are read from, for one image or video of merged tokens."""
    name, token = ("image_grid_thw", "<|image_pad|>") if still else ("video_grid_thw", "<|video_pad|>")
    ids = [IDS["the"], *[IDS[token]] * (frames * rows * columns), IDS["what"]]
    return {"input_ids": torch.tensor([ids]), name: torch.tensor([[frames, 2 * rows, 2 * columns]])}


def record_of(inputs: Mapping[str, torch.Tensor], ordinals: list[int]) -> PruningRecord:
    """Record of a prefill that kept the visual tokens of these ordinals."""
    ids = inputs["input_ids"][0]
    visual = torch.nonzero((ids == IDS["<|image_pad|>"]) | (ids == IDS["<|video_pad|>"])).flatten()
    return cast(PruningRecord, SimpleNamespace(layer=4, visual=(visual,), kept=(visual[ordinals],), modalities={}))


def panels(figure: Figure) -> list[tuple[str, NDArray[np.uint8]]]:
    """Title and pixels of each panel."""
    return [(axes.get_title(), np.asarray(axes.images[0].get_array())) for axes in figure.axes]


def is_clear(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a picture is coloured: dimmed pixels are grey."""
    return np.asarray(np.ptp(pixels.astype(int), axis=2) > 0)


def test_kept_mask_covers_exactly_the_kept_boxes() -> None:
    """Pixels of kept regions are True, those of dropped ones and of no region False."""
    regions = [square((0.0, 0.0, 0.5, 0.5)), square((0.5, 0.0, 1.0, 0.5)), square(None)]

    mask = kept_mask(regions, [False, True, True], (4, 6))

    expected = np.zeros((4, 6), dtype=bool)
    expected[:2, 3:] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("size", [(7, 11), (50, 3), (101, 97)])
def test_kept_mask_has_no_seams(size: tuple[int, int]) -> None:
    """All cells of a grid together cover every pixel, and no two cells share one, at sizes that do not divide."""
    cells = [square((left / 3, top / 5, (left + 1) / 3, (top + 1) / 5)) for top in range(5) for left in range(3)]

    covered = sum(kept_mask([cell], [True], size).astype(int) for cell in cells)

    np.testing.assert_array_equal(covered, np.ones(size))


def test_kept_mask_refuses_flags_that_do_not_fit() -> None:
    """One flag a region, or a ValueError with both numbers."""
    with pytest.raises(ValueError, match=r"`kept` has shape \(2,\), expected one flag for each of the 1 `regions`"):
        kept_mask([square(None)], [True, False], (4, 4))


@pytest.mark.parametrize("form", ["Pillow", "bytes", "fractions"])
def test_dim_dropped_leaves_kept_pixels_alone(form: str) -> None:
    """Kept pixels stay as they are; dropped ones turn grey and darker than white, whatever holds the picture."""
    colours = np.full((4, 6, 3), (250, 120, 20), dtype=np.uint8)
    forms: dict[str, Any] = {"Pillow": Image.fromarray(colours), "bytes": colours, "fractions": colours / 255}

    painted = dim_dropped(forms[form], [square((0.0, 0.0, 0.5, 1.0)), square((0.5, 0.0, 1.0, 1.0))], [True, False])

    np.testing.assert_array_equal(painted[:, :3], colours[:, :3])
    assert not is_clear(painted[:, 3:]).any()
    assert painted[:, 3:].max() < 0.299 * 250 + 0.587 * 120 + 0.114 * 20


def test_dim_dropped_tells_kept_black_from_dropped_black() -> None:
    """A dropped black region is no longer black."""
    painted = dim_dropped(np.zeros((2, 2, 3), dtype=np.uint8), [square((0.0, 0.0, 0.5, 1.0))], [True])

    assert painted[:, 0].max() == 0
    assert painted[:, 1].min() > 0


def test_figure_shows_the_kept_quarter(qwen: PreTrainedModel) -> None:
    """With the tokens of the upper left quarter kept, that quarter of the panel is clear and nothing else."""
    inputs = grid_inputs(1, 4, 6, still=True)
    record = record_of(inputs, [0, 1, 2, 6, 7, 8])

    figure = kept_tokens_figure(record, inputs, [Image.new("RGB", (90, 60), (250, 120, 20))], model=qwen)

    ((title, pixels),) = panels(figure)
    height, width = pixels.shape[:2]
    expected = np.zeros((height, width), dtype=bool)
    expected[: height // 2, : width // 2] = True
    np.testing.assert_array_equal(is_clear(pixels), expected)
    assert title == "image 1\n6 of 24 (25.0 %)"
    assert "Layer 4: 6 of 24 (25.0 %) visual tokens kept" in [text.get_text() for text in figure.texts]


def test_figure_of_a_real_record_counts_each_level(onevision: PreTrainedModel) -> None:
    """Base view, crops and newlines of a pruned prefill add up to what the record kept."""
    processor, image = PillowOnevisionProcessor(onevision.config), coordinate_picture(70, 110)
    inputs = processor(text=[f"<image> {QUESTION}"], images=[[image]], return_tensors="pt")
    with torch.inference_mode(), prune_visual_tokens(onevision, budget=0.3, layer=1) as session:
        onevision(**inputs)

    figure = kept_tokens_figure(session.records[-1], inputs, [image], model=onevision, title="mine")

    heading, caption = [text.get_text() for text in figure.texts]
    titles = [title for title, _ in panels(figure)]
    shares = [*titles, caption.partition("newline tokens: ")[2]]
    kept, total = np.array([share.splitlines()[-1].split()[:3:2] for share in shares], dtype=int).sum(axis=0)
    assert heading == "mine"
    assert [title.splitlines()[0] for title in titles] == ["image 1, whole view", "image 1, crops"]
    assert (kept, total) == (len(session.records[-1].kept[0]), len(session.records[-1].visual[0]))


@pytest.mark.parametrize(
    ("frames", "shown", "note"),
    [(3, [1, 2, 3], False), (15, [1, 3, 5, 7, 9, 11, 13, 15], True)],
    ids=["all of them", "every other one"],
)
def test_figure_shows_a_video_frame_by_frame(qwen: PreTrainedModel, frames: int, shown: list[int], note: bool) -> None:
    """One panel a step of the token grid, at most eight, each over a frame of its own step."""
    inputs = grid_inputs(frames, 2, 3, still=False)
    record = record_of(inputs, [6 * (number - 1) for number in shown])
    video = np.zeros((2 * frames, 40, 60, 3), dtype=np.uint8)
    # The red of both frames of a step is its number.
    video[..., 0] = np.repeat(np.arange(frames) * 10 + 10, 2)[:, None, None]

    figure = kept_tokens_figure(record, inputs, model=qwen, videos=[video])

    found = panels(figure)
    assert [title for title, _ in found] == [f"video 1, step {number}/{frames}\n1 of 6 (16.7 %)" for number in shown]
    assert [int(pixels[0, 0, 0]) for _, pixels in found] == [10 * number for number in shown]
    assert all(is_clear(pixels).mean() == pytest.approx(1 / 6, abs=0.01) for _, pixels in found)
    assert ("8 steps shown of 15" in figure.texts[1].get_text()) is note


def test_figure_numbers_images_of_their_sample(qwen: PreTrainedModel) -> None:
    """The pictures of another sample of the batch are neither asked for nor counted."""
    processor = PillowQwenProcessor(qwen.config)
    images = [coordinate_picture(40, 40 + 16 * n) for n in range(3)]
    place = "<|vision_start|><|image_pad|><|vision_end|>"
    inputs = processor(
        text=[f"{place} {QUESTION}", f"{place} {place} {QUESTION}"],
        images=[images[:1], images[1:]],
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode(), prune_visual_tokens(qwen, budget=0.5, layer=1) as session:
        qwen(**inputs)

    figure = kept_tokens_figure(session.records[-1], inputs, images[1:], model=qwen, sample=1)

    titles = [title.splitlines() for title, _ in panels(figure)]
    assert [title[0] for title in titles] == ["image 1", "image 2"]
    assert sum(int(title[1].split()[0]) for title in titles) == len(session.records[-1].kept[1])


def test_figure_keeps_pictures_in_proportion_and_inside(qwen: PreTrainedModel) -> None:
    """Panels have the pictures' aspect, do not overlap and stay on the canvas."""
    ids = [IDS["<|image_pad|>"]] * 12
    grids = torch.tensor([[1, 2, 4], [1, 4, 2], [1, 2, 16]])
    inputs = {"input_ids": torch.tensor([ids]), "image_grid_thw": grids}
    images = [Image.new("RGB", size) for size in [(80, 40), (40, 80), (320, 40)]]

    figure = kept_tokens_figure(record_of(inputs, [0]), inputs, images, model=qwen)

    places = [axes.get_window_extent() for axes in figure.axes]
    assert [place.width / place.height for place in places] == pytest.approx([2.0, 0.5, 8.0])
    assert all(figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1 for place in places)
    assert all(figure.bbox.y0 <= place.y0 and place.y1 <= figure.bbox.y1 for place in places)
    pairs = [(a, b) for n, a in enumerate(places) for b in places[:n]]
    assert not any(a.overlaps(b) for a, b in pairs)


@pytest.mark.parametrize("form", ["Pillow", "colours", "grey", "one channel", "fractions", "tensor"])
def test_bare_image_is_drawn_as_a_list_of_one(qwen: PreTrainedModel, form: str) -> None:
    """Whatever holds it, as `model.generate` takes it."""
    inputs = grid_inputs(1, 2, 2, still=True)
    grey = np.full((8, 12), 200, dtype=np.uint8)
    colours = np.repeat(grey[..., None], 3, axis=2)
    forms: dict[str, Any] = {"Pillow": Image.fromarray(colours), "colours": colours, "grey": grey}
    forms |= {"one channel": grey[..., None], "fractions": colours / 255, "tensor": torch.from_numpy(colours)}

    bare = kept_tokens_figure(record_of(inputs, [0]), inputs, forms[form], model=qwen)

    listed = kept_tokens_figure(record_of(inputs, [0]), inputs, [Image.fromarray(colours)], model=qwen)
    ((title, pixels),), ((expected_title, expected),) = panels(bare), panels(listed)
    assert title == expected_title
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("form", ["array", "frames", "arrays"])
def test_bare_video_is_drawn_as_a_list_of_one(qwen: PreTrainedModel, form: str) -> None:
    """An array of frames, or a list of them."""
    inputs = grid_inputs(2, 2, 2, still=False)
    video = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.full((4, 8, 8, 3), 50, dtype=np.uint8)
    forms: dict[str, Any] = {
        "array": video,
        "frames": [Image.fromarray(frame) for frame in video],
        "arrays": list(video),
    }

    bare = kept_tokens_figure(record_of(inputs, [0, 5]), inputs, model=qwen, videos=forms[form])

    listed = kept_tokens_figure(record_of(inputs, [0, 5]), inputs, model=qwen, videos=[video])
    assert len(panels(bare)) == 2
    for (title, pixels), (expected_title, expected) in zip(panels(bare), panels(listed), strict=True):
        assert title == expected_title
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((8, 8), 40000, np.uint16),
            r"a picture holds uint16 from 40000 to 40000, expected integers from 0 to 255",
        ),
        (
            np.full((8, 8, 3), 200.0),
            r"a picture holds float64 from 200\.0 to 200\.0, expected .* fractions from 0 to 1",
        ),
        (np.full((8, 8), np.nan), r"a picture holds float64 from nan to nan"),
        (np.full((8, 8), -1), r"a picture holds int64 from -1 to -1"),
    ],
    ids=["16 bits", "bytes as floats", "no numbers", "negative"],
)
def test_figure_refuses_an_array_of_another_range(qwen: PreTrainedModel, array: Any, message: str) -> None:
    """Which would be drawn white or wrapped around."""
    inputs = grid_inputs(1, 2, 2, still=True)

    with pytest.raises(ValueError, match=message):
        kept_tokens_figure(record_of(inputs, [0]), inputs, array, model=qwen)


def test_figure_refuses_a_video_without_frames(qwen: PreTrainedModel) -> None:
    """There is nothing to draw its tokens on."""
    inputs = grid_inputs(2, 2, 2, still=False)

    with pytest.raises(ValueError, match="`videos` has no frames in video 1"):
        kept_tokens_figure(record_of(inputs, [0]), inputs, model=qwen, videos=[[]])


def test_figure_registers_nothing_with_pyplot(qwen: PreTrainedModel) -> None:
    """The figure belongs to no window manager, so that a server can make any number of them."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    inputs = grid_inputs(1, 2, 2, still=True)

    figure = kept_tokens_figure(record_of(inputs, [0]), inputs, [Image.new("RGB", (8, 8))], model=qwen)

    assert pyplot.get_fignums() == before
    assert figure.canvas.manager is None


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({}, r"`images` has 0 entries, expected 1"),
        ({"images": [Image.new("RGB", (8, 8))] * 2}, r"`images` has 2 entries, expected 1"),
        ({"images": [Image.new("RGB", (8, 8))], "videos": [[]]}, r"`videos` has 1 entries, expected 0"),
    ],
    ids=["none", "too many", "a video of nothing"],
)
def test_figure_refuses_other_pictures(qwen: PreTrainedModel, pictures: dict[str, Any], message: str) -> None:
    """As many pictures as the sample has, or a ValueError with both numbers."""
    inputs = grid_inputs(1, 2, 2, still=True)

    with pytest.raises(ValueError, match=message):
        kept_tokens_figure(record_of(inputs, [0]), inputs, model=qwen, **pictures)


def test_figure_refuses_inputs_of_another_prefill(qwen: PreTrainedModel) -> None:
    """A record with another number of visual tokens is a ValueError."""
    record = record_of(grid_inputs(1, 3, 3, still=True), [0])

    with pytest.raises(ValueError, match=r"`inputs` has 4 visual tokens in sample 0, `record` 9"):
        kept_tokens_figure(record, grid_inputs(1, 2, 2, still=True), model=qwen)


def test_figure_refuses_a_sample_without_pictures(qwen: PreTrainedModel) -> None:
    """There is nothing to draw for text alone."""
    inputs = {"input_ids": torch.tensor([[IDS["what"]]])}

    with pytest.raises(ValueError, match=r"`sample` is 0, which has no visual tokens"):
        kept_tokens_figure(record_of(inputs, []), inputs, model=qwen)


def test_figure_without_matplotlib_says_what_to_install(qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one optional dependency is named with its extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    inputs = grid_inputs(1, 2, 2, still=True)

    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        kept_tokens_figure(record_of(inputs, [0]), inputs, [Image.new("RGB", (8, 8))], model=qwen)
