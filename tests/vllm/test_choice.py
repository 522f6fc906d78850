"""What the engine keeps and answers, against Transformers."""

from __future__ import annotations

from typing import Any

import pytest

from iwp_transformers.presets import ABOVE_CHANCE

# A question about each picture, and another picture for prompts of two.
FEW = 6


def test_with_all_tokens_answers_are_those_of_transformers(trained: Any, engine: Any) -> None:
    """A budget of 1.0 is vLLM as it is, token by token."""
    requests = [trained.request(example, iwp_budget=1.0) for example in trained.examples]

    assert engine.ask(requests) == [trained.answer(example) for example in trained.examples]
    assert engine.kept == []


def test_the_question_keeps_the_tokens_of_a_session_in_transformers(trained: Any, engine: Any) -> None:
    """Layers 0 and 1 run in full, layer 2 chooses: the same tokens, for every question."""
    engine.ask([trained.request(example) for example in trained.examples])

    wanted = [trained.kept(each.scene.image, each.question.text, layer=2) for each in trained.examples]
    assert [kept.tolist() for kept in engine.kept] == wanted


def test_answers_are_those_of_transformers_on_the_same_rows(trained: Any, engine: Any) -> None:
    """What was dropped is gone from the first layer on; positions are those of the whole prompt."""
    answers = engine.ask([trained.request(example) for example in trained.examples])

    assert answers == [
        trained.answer_of_rows(example, kept) for example, kept in zip(trained.examples, engine.kept, strict=True)
    ]


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ({"query": "image"}, {"layer": 0, "query": "image"}),
        ({"query": "image", "magnitude": "key_norm"}, {"layer": 0, "query": "image", "magnitude": "key_norm"}),
        ({"layer": 2, "preset": "above-chance"}, {"layer": 2, **ABOVE_CHANCE}),
        ({"method": "divprune"}, {"layer": 0, "method": "divprune"}),
        ({"method": "uniform"}, {"layer": 0, "method": "uniform"}),
        ({"method": "fastv"}, {"layer": 2, "method": "fastv"}),
        ({"method": "trimtokenator"}, {"layer": 0, "method": "trimtokenator"}),
    ],
    ids=str,
)
def test_other_rules_keep_what_they_keep_in_transformers(
    trained: Any, engine: Any, rule: dict[str, Any], options: dict[str, Any]
) -> None:
    """By the image alone at the embeddings, or by the text."""
    engine.use({"budget": 20, **rule})

    answers = engine.ask([trained.request(example) for example in trained.examples[:FEW]])

    examples = trained.examples[:FEW]
    wanted = [trained.kept(each.scene.image, each.question.text, 20, **options) for each in examples]
    assert [kept.tolist() for kept in engine.kept] == wanted
    assert answers == [trained.answer_of_rows(*pair) for pair in zip(examples, engine.kept, strict=True)]


def test_rules_of_the_image_alone_choose_once_for_all_questions(trained: Any, engine: Any) -> None:
    """The second question finds the image in vLLM's cache."""
    engine.use({"budget": 0.3, "method": "divprune"})
    first, second = trained.examples[:2]
    request = trained.request(first)

    engine.ask(request)
    engine.ask(request | {"prompt": trained.prompt(second.question.text)})

    assert len(engine.kept) == 1


def test_each_question_about_one_image_has_its_own_tokens_and_the_tower_runs_once(trained: Any, engine: Any) -> None:
    """Nobody is pruned for another question, and no image is encoded twice."""
    image = trained.examples[3].scene.image
    questions = [example.question.text for example in trained.examples[:3]]
    runs = engine.model.iwp_outputs.runs

    for question in questions:
        engine.ask({"prompt": trained.prompt(question), "multi_modal_data": {"image": image}})

    assert [kept.tolist() for kept in engine.kept] == [trained.kept(image, each, layer=2) for each in questions]
    assert len({tuple(kept.tolist()) for kept in engine.kept}) > 1
    assert engine.model.iwp_outputs.runs - runs <= 1


def test_each_of_two_images_is_chosen_by_the_text_around_it(trained: Any, engine: Any) -> None:
    """As if it were the only one: the other's tokens are not read."""
    first, second = trained.examples[4:6]
    engine.ask({
        "prompt": trained.prompt(first.question.text, pictures=2),
        "multi_modal_data": {"image": [first.scene.image, second.scene.image]},
    })

    if trained.name == "llava-onevision":  # its placeholders stand alone, so the text around both is that of one
        wanted = [trained.kept(each.scene.image, first.question.text, layer=2) for each in (first, second)]
        assert [kept.tolist() for kept in engine.kept] == wanted
    assert len(engine.kept) == 2


def test_a_prompt_of_the_requests_own_overrides_what_is_asked(trained: Any, engine: Any) -> None:
    """A whole prompt with placeholder, or another question alone."""
    example, other = trained.examples[6:8]
    whole = trained.request(example, iwp_prompt=trained.prompt(other.question.text))
    alone = trained.request(example, iwp_prompt=other.question.text)

    engine.ask(whole)
    engine.ask(alone)

    wanted = trained.kept(example.scene.image, other.question.text, layer=2)
    # The second may be answered from the cache of the first: it asks for the same.
    assert [kept.tolist() for kept in engine.kept] in ([wanted], [wanted, wanted])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iwp_budget": 0}, "`budget` is 0"),
        ({"iwp_budgets": 0.5}, "iwp_budgets"),
        ({"iwp_prompt": 7}, "`iwp_prompt` is 7"),
        ({"iwp_prompt": "<image> <image> which ?"}, "holds 2 placeholders"),
    ],
    ids=str,
)
def test_wrong_options_fail_their_request_alone(trained: Any, engine: Any, options: dict[str, Any], words: str) -> None:
    """The engine goes on."""
    with pytest.raises((TypeError, ValueError), match=words):
        engine.ask(trained.request(trained.examples[0], **options))

    assert engine.ask(trained.request(trained.examples[0], iwp_budget=1.0)) == [trained.answer(trained.examples[0])]


def test_text_alone_is_answered_as_ever(trained: Any, engine: Any) -> None:
    """Nothing is chosen where there is no image."""
    question = trained.examples[0].question.text
    text = "".join(trained.miniature.architecture.prompt("")) + " " + question
    wanted = trained.miniature.model(**trained.miniature.encode_text([question])).logits[0, -1:].argmax(-1)

    assert engine.ask(text, tokens=1) == [wanted.tolist()]
    assert engine.kept == []


def test_videos_keep_their_share_at_their_frames(trained: Any, engine: Any) -> None:
    """The tokens of a session in Transformers on the same pixels."""
    import numpy as np

    frames = np.stack([np.asarray(example.scene.image.resize((96, 96))) for example in trained.examples[:4]])
    seen: list[dict[str, Any]] = []
    begin, *picture = trained.miniature.architecture.prompt("<video>")
    question = "which digit is at row1 column1 ?"
    given = {"prompt": begin + "".join(picture) + " " + question, "multi_modal_data": {"video": video(trained, frames)}}
    with watched(engine.model, seen):
        answers = engine.ask(given)

    inputs = inputs_of_video(trained, seen[0], question)
    assert [engine.kept[0].tolist()] == [kept_of_video(trained, inputs)]
    assert len(answers[0]) >= 1


def video(trained: Any, frames: Any) -> Any:
    """Return frames as a request brings them: Qwen's wants to know when they were taken."""
    if trained.name == "llava-onevision":
        return frames
    count = len(frames)
    told = {"fps": 1.0, "duration": float(count), "total_num_frames": count, "frames_indices": list(range(count))}
    return frames, told | {"video_backend": "none", "do_sample_frames": False}


def watched(model: Any, seen: list[dict[str, Any]]) -> Any:
    """Note what the tower is called with."""
    from unittest.mock import patch

    original = model.embed_multimodal

    def noting(**named: Any) -> Any:
        seen.append(dict(named))
        return original(**named)

    return patch.object(model, "embed_multimodal", noting)


def inputs_of_video(trained: Any, pixels: dict[str, Any], question: str) -> dict[str, Any]:
    """Return the inputs of Transformers for the pixels that the tower saw."""
    import torch

    config = trained.miniature.model.config
    if trained.name == "llava-onevision":
        stacked = torch.stack(list(pixels["pixel_values_videos"]))
        side = config.vision_config.image_size // config.vision_config.patch_size
        count = stacked.shape[1] * (-(-side // 2)) ** 2 + 1
        media = {"pixel_values_videos": stacked}
    else:
        grid = pixels["video_grid_thw"]
        count = int(grid.prod()) // config.vision_config.spatial_merge_size**2
        media = {name: pixels[name] for name in ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")}
        if media["pixel_values_videos"].dtype == torch.uint8:  # vLLM normalises in the tower
            media["pixel_values_videos"] = media["pixel_values_videos"].float() / 127.5 - 1
    begin, *picture = trained.miniature.architecture.prompt("<video>" * count)
    ids = trained.miniature.tokenizer(begin + "".join(picture) + " " + question, return_tensors="pt")["input_ids"]
    if trained.name != "llava-onevision":
        media["mm_token_type_ids"] = 2 * (ids == config.video_token_id).int()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **media}


def kept_of_video(trained: Any, inputs: dict[str, Any]) -> list[int]:
    """Return what a session in Transformers keeps."""
    import torch

    from iwp_transformers import prune_visual_tokens

    with torch.no_grad(), prune_visual_tokens(trained.miniature.model, budget=0.222, layer=2) as session:
        trained.miniature.model(**inputs)
    kept: list[int] = session.records[-1].kept_indices[0].tolist()
    return kept
