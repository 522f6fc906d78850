"""A budget that names modalities: each keeps its own share or count, and what is left out is not pruned."""

from collections.abc import Mapping
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor

from iwp_core.budget import tokens_to_keep
from iwp_transformers import LayerView, family_of, kept_tokens_figure, prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, text_rows, true_generation, true_logits
from tests.integrations.prompts import logits_of
from tests.integrations.test_audio import AUDIO, FEATURES, MEL, qwen2_audio, voxtral
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import IMAGE_ID, VIDEO_ID, Image, Video, make_inputs, qwen2_5_vl
from tests.models.factory import tiny_model, weighted
from tests.models.media import media_for
from tests.models.oracle import steps, true_steps
from tests.models.sizes import AUDIO_END, AUDIO_START, END, IMAGE, START

LAYER = 2
PROMPTS = [(3, Image(), 4, Video(4), 5, Image(16, 16), 2), (2, Video(), 3, Image(32, 16), 6), (7,)]
"""Samples of both modalities in both orders, and one of text alone."""


@pytest.fixture(scope="module")
def model() -> Any:
    """Tiny Qwen2.5-VL."""
    return qwen2_5_vl()


def of_modality(inputs: Mapping[str, Any], token: int) -> list[Tensor]:
    """Return, for each sample, where the tokens of a modality stand."""
    return [row.nonzero().squeeze(1) for row in inputs["input_ids"] == token]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "budget",
    [
        {"image": 0.3, "video": 5},
        {"video": 0.5, "image": 1},
        {"image": 0.25},
        {"video": 2},
        {"image": 1.0, "video": 0.4},
    ],
    ids=str,
)
@pytest.mark.parametrize("layer", [0, LAYER])
def test_each_modality_keeps_its_own_count_and_text_rows_are_exact(
    model: Any, budget: dict[str, float], layer: int, side: str
) -> None:
    """Of each sample; a modality that is left out keeps everything."""
    inputs = make_inputs(model, PROMPTS, side)
    with prune_visual_tokens(model, budget=budget, layer=layer) as session:
        logits = logits_of(model, inputs)

    record = session.records[-1]
    for name, token in (("image", IMAGE_ID), ("video", VIDEO_ID)):
        for sample, positions in enumerate(of_modality(inputs, token)):
            kept = record.kept[sample][torch.isin(record.kept[sample], positions)]
            total = len(positions)
            expected = tokens_to_keep(budget[name], total) if total and name in budget else total
            assert len(kept) == expected
            assert record.modalities[name][sample].equal(positions)
            assert record.kept_by_modality[name][sample].equal(kept)
    dropped = dropped_tokens(record, inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert_close(logits[rows], true_logits(model, inputs, layer, dropped)[rows])


def test_decoding_after_a_budget_by_modality_is_exact(model: Any) -> None:
    """Each decoded token's logits."""
    inputs = make_inputs(model, PROMPTS[:2])
    options = {"max_new_tokens": 4, "do_sample": False}
    with prune_visual_tokens(model, budget={"image": 2, "video": 0.3}, layer=LAYER) as session:
        output = model.generate(**inputs, return_dict_in_generate=True, output_logits=True, **options)

    dropped = dropped_tokens(session.records[0], inputs["input_ids"].shape)
    truth = true_generation(model, inputs, LAYER, dropped, **options)
    assert_close(torch.stack(output.logits), torch.stack(truth.logits))


def test_the_rule_chooses_among_one_modality_at_a_time(model: Any) -> None:
    """A selector is asked once for each that is named, with its count; text is what is of no modality."""
    inputs = make_inputs(model, PROMPTS[:1])
    seen: list[tuple[list[int], list[int], int]] = []

    def look(view: LayerView) -> Tensor:
        seen.append((view.visual.positions.tolist(), view.text.positions.tolist(), view.budget))
        return torch.arange(view.budget)

    with prune_visual_tokens(model, budget={"video": 3, "image": 0.5}, layer=LAYER, selector=look):
        logits_of(model, inputs)

    (images,), (videos,) = of_modality(inputs, IMAGE_ID), of_modality(inputs, VIDEO_ID)
    text = [place for place in range(inputs["input_ids"].shape[1]) if place not in {*images.tolist(), *videos.tolist()}]
    assert seen == [(images.tolist(), text, len(images) // 2), (videos.tolist(), text, 3)]


def test_a_number_and_the_same_number_for_each_modality_differ(model: Any) -> None:
    """A count is of each modality where modalities are named, and of all visual tokens where they are not."""
    inputs = make_inputs(model, PROMPTS[:1])
    counts = []
    for budget in (4, {"image": 4, "video": 4}):
        with prune_visual_tokens(model, budget=budget, layer=LAYER) as session:
            logits_of(model, inputs)
        counts.append(len(session.records[-1].kept[0]))

    assert counts == [4, 8]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("build", [voxtral, qwen2_audio])
def test_audio_can_be_named(build: Any) -> None:
    """A model that hears and does not see."""
    torch.manual_seed(0)
    heard: Any = weighted(build())
    tokens = torch.tensor([[5, 6, 7, *[AUDIO] * FEATURES, 8, 9, 10, 11]])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "input_features": torch.randn(1, MEL, 32)}
    if build is qwen2_audio:
        batch["feature_attention_mask"] = torch.ones(1, 32, dtype=torch.long)

    with prune_visual_tokens(heard, budget={"audio": 3}, layer=1, selector=scattered) as session:
        decoded = steps(heard, batch, 3)

    record = session.records[0]
    dropped = tokens == AUDIO
    dropped[0, record.kept[0]] = False
    assert len(record.kept_by_modality["audio"][0]) == 3
    assert_close(decoded, true_steps(heard, batch, 1, dropped, 3))


@pytest.mark.parametrize(
    ("budget", "layer", "error", "message"),
    [
        (
            {"audio": 0.5},
            1,
            ValueError,
            r"is \{'audio': 0.5\}, expected a number for one or more of the model's image, video",
        ),
        ({"image": 0.5, "smell": 1}, 1, ValueError, "'smell': 1.*image, video"),
        ({}, 1, ValueError, r"`budget` is \{\}, expected a number for one or more of"),
        ({"image": 0}, 1, ValueError, "`budget` is 0, expected"),
        ({"image": 1.5}, 1, ValueError, r"`budget` is 1.5, expected"),
        ({"image": "much"}, 1, TypeError, "`budget` is 'much' of type str"),
        ({"image": {"video": 1}}, 1, TypeError, "of type dict"),
        ({"image": 0.5}, (1, 2), ValueError, "a budget that names modalities is for one layer"),
        (({"image": 0.5}, 0.1), (1, 2), ValueError, "a budget that names modalities is for one layer"),
    ],
    ids=str,
)
def test_a_budget_that_cannot_be_is_refused_at_the_call(
    model: Any, budget: Any, layer: Any, error: type[Exception], message: str
) -> None:
    """With what the model has; no hook stays."""
    with pytest.raises(error, match=message):
        prune_visual_tokens(model, budget=budget, layer=layer)
    prune_visual_tokens(model, budget=0.5, layer=1).close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("budget", [{"audio": 0.4}, {"audio": 2, "image": 0.5}, 0.5], ids=str)
def test_audio_beside_an_image_is_pruned_where_it_is_named_only(budget: Any) -> None:
    """An Omni thinker: a number is of what it sees, and then its audio stays."""
    name = "qwen2_5_omni_thinker"
    omni: Any = tiny_model(name)
    media = media_for(omni, name, (1,))
    sound = {"input_features": torch.randn(1, omni.config.audio_config.num_mel_bins, 40)}
    sound["feature_attention_mask"] = torch.ones(1, 40, dtype=torch.long)
    image, heard = (omni.config.image_token_id, omni.config.audio_token_id)
    row = [5, 6, START, *[image] * 16, END, 7, AUDIO_START, *[heard] * 10, AUDIO_END, 8, 9, 10]
    tokens = torch.tensor([row])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **media, **sound}

    with prune_visual_tokens(omni, budget=budget, layer=1, selector=scattered) as session:
        decoded = steps(omni, batch, 3)

    record = session.records[0]
    dropped = torch.isin(tokens, torch.tensor((image, heard)))
    dropped[0, record.kept[0]] = False
    if not isinstance(budget, dict):
        dropped &= tokens == image
    counts = {"image": int((dropped & (tokens == image)).sum()), "audio": int((dropped & (tokens == heard)).sum())}
    asked = budget if isinstance(budget, dict) else {"image": budget}
    for modality, total in (("image", 16), ("audio", 10)):
        expected = total - tokens_to_keep(asked[modality], total) if modality in asked else 0
        assert counts[modality] == expected
    assert_close(decoded, true_steps(omni, batch, 1, dropped, 3))
    figure = kept_tokens_figure(record, batch, PIL.Image.new("RGB", (8, 8)), model=omni)
    assert f"{16 - counts['image']} of 16 " in figure.axes[0].get_title()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("budget", [0.4, {"video": 3}], ids=str)
def test_videos_that_stand_at_placeholders_of_images_are_pruned(budget: Any) -> None:
    """GLM-4V writes each frame as an image; its picture has both frames."""
    glm: Any = tiny_model("glm4v")
    tower = glm.config.vision_config
    width = 3 * tower.temporal_patch_size * tower.patch_size**2
    tokens = torch.tensor([[5, 6, 7, START, *[IMAGE] * 4, END, 30, START, *[IMAGE] * 4, END, 31, 8, 9, 10]])
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "mm_token_type_ids": 2 * (tokens == IMAGE)}
    batch |= {"pixel_values_videos": torch.randn(32, width), "video_grid_thw": torch.tensor([[2, 4, 4]])}

    with prune_visual_tokens(glm, budget=budget, layer=LAYER, selector=scattered) as session:
        decoded = steps(glm, batch, 3)

    record = session.records[0]
    dropped = tokens == IMAGE
    dropped[0, record.kept[0]] = False
    assert [len(part[0]) for part in record.kept_by_modality.values()] == [3]
    assert_close(decoded, true_steps(glm, batch, LAYER, dropped, 3))
    regions = family_of(glm).regions(glm.config, batch, 0)
    assert [(region.medium, region.frame) for region in regions] == [("video", 0)] * 4 + [("video", 1)] * 4
    with pytest.raises(NotImplementedError, match="stand at the same placeholders"):
        family_of(glm).regions(glm.config, {**batch, "image_grid_thw": torch.tensor([[1, 4, 4]])}, 0)


def test_a_budget_of_modalities_is_refused_by_rules_that_cannot_share_it_out(model: Any) -> None:
    """A method of several stages at the call, one that merges when it answers."""
    inputs = make_inputs(model, PROMPTS[:1])

    with pytest.raises(ValueError, match="names modalities: pyramiddrop has several stages"):
        prune_visual_tokens(model, budget={"image": 0.5}, method="pyramiddrop")
    with (
        prune_visual_tokens(model, budget={"image": 0.5}, layer=1, method="tome"),
        pytest.raises(NotImplementedError, match="names modalities is for methods that drop"),
    ):
        logits_of(model, inputs)
