"""Where pictures stand in a prompt, and what the model's processor refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from iwp_transformers.media.encoding import Media, encode
from iwp_transformers.media.errors import MediaError
from tests.integrations.processors import (
    IDS,
    PillowOnevisionProcessor,
    PillowQwenProcessor,
    coordinate_picture,
    onevision_config,
    qwen2_5_vl_config,
)

START, PLACE, END = IDS["<|vision_start|>"], IDS["<|image_pad|>"], IDS["<|vision_end|>"]


def pictures(count: int) -> Media:
    """Images of 16 x 16 pixels, four tokens each."""
    return Media(images=[(Path(f"{n}.png"), coordinate_picture(16, 16)) for n in range(count)], videos=[])


def runs(ids: list[int]) -> list[int]:
    """Return the ids, each run of a picture's tokens told once."""
    many = {PLACE, IDS["<image>"]}
    return [token for place, token in enumerate(ids) if token not in many or place == 0 or ids[place - 1] != token]


def qwen_ids(prompt: str, count: int) -> list[int]:
    """Token ids that Qwen2.5-VL gets, runs told once."""
    config = qwen2_5_vl_config()
    inputs = encode(PillowQwenProcessor(config), config, prompt, pictures(count))
    return runs(inputs["input_ids"][0].tolist())


PICTURE = [START, PLACE, END]


@pytest.mark.parametrize(
    ("prompt", "count", "expected"),
    [
        ("what is this ?", 1, [*PICTURE, *(IDS[word] for word in ["what", "is", "this", "?"])]),
        ("what is this ?", 2, [*PICTURE, *PICTURE, *(IDS[word] for word in ["what", "is", "this", "?"])]),
        ("the <|image_pad|> house", 1, [IDS["the"], *PICTURE, IDS["house"]]),
        ("the <|vision_start|><|image_pad|><|vision_end|> house", 1, [IDS["the"], *PICTURE, IDS["house"]]),
        ("<|image_pad|> a <|image_pad|>", 2, [*PICTURE, IDS["a"], *PICTURE]),
        ("", 1, PICTURE),
    ],
    ids=["none", "none, two images", "in the middle", "with its marks", "two", "nothing but the image"],
)
def test_placeholders_of_the_prompt_say_where_pictures_stand(prompt: str, count: int, expected: list[int]) -> None:
    """Without any, pictures come first; with or without the marks around them, they are put there once."""
    assert qwen_ids(prompt, count) == expected


@pytest.mark.parametrize("prompt", ["<image> what is this ?", "what is <image> this ?"])
def test_model_without_marks_takes_its_placeholder_too(prompt: str) -> None:
    """LLaVA-OneVision's is a lone token."""
    config = onevision_config()

    inputs = encode(PillowOnevisionProcessor(config), config, prompt, pictures(1))

    words = [IDS[word] for word in prompt.split()]
    assert runs(inputs["input_ids"][0].tolist()) == words


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<|image_pad|> and <|image_pad|>", r"the prompt holds <\|image_pad\|> 2 times, expected none, or 1: one for"),
        (
            "what is <|video_pad|> ?",
            r"the prompt holds <\|video_pad\|> 1 times, expected none: there is no video",
        ),
    ],
)
def test_more_placeholders_than_pictures_are_refused(prompt: str, message: str) -> None:
    """Both numbers are told."""
    with pytest.raises(MediaError, match=message):
        qwen_ids(prompt, 1)


def test_chat_template_gets_the_pictures_where_the_prompt_has_them() -> None:
    """As parts of one turn, in their order."""
    config, seen = qwen2_5_vl_config(), []
    processor: Any = PillowQwenProcessor(config)
    processor.chat_template = "there is one"

    def render(turns: Any, **_: object) -> str:
        seen.extend(turns[0]["content"])
        return "<|vision_start|><|image_pad|><|vision_end|>"

    processor.apply_chat_template = render

    encode(processor, config, "the <|image_pad|> house", pictures(1))

    assert seen == [{"type": "text", "text": "the "}, {"type": "image"}, {"type": "text", "text": " house"}]


def test_image_that_the_processor_refuses_is_named() -> None:
    """The one among several, its size, and the limit in the processor's words."""
    config = qwen2_5_vl_config()
    media = Media(
        images=[(Path("fine.png"), coordinate_picture(16, 16)), (Path("thin.png"), Image.new("RGB", (1000, 1)))],
        videos=[],
    )

    with pytest.raises(MediaError, match=r"'thin\.png' has 1000 x 1 pixels, .* refuses: .*aspect ratio .* 200"):
        encode(PillowQwenProcessor(config), config, "this", media)


def test_processor_without_videos_refuses_them() -> None:
    """The file is named."""
    video: Any = SimpleNamespace()
    processor: Any = SimpleNamespace(image_token="<image>")

    with pytest.raises(MediaError, match=r"'clip\.mp4' is a video, and the model's SimpleNamespace takes images only"):
        encode(processor, onevision_config(), "this", Media(images=[], videos=[(Path("clip.mp4"), video)]))
