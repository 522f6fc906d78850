"""Images in later turns: new tokens are chosen among, old ones stay as they are, every row equals the full model's."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import DynamicCache, StaticCache

from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.masks import hide_columns, take_rows_and_columns
from iwp_transformers.rows import kept_rows
from tests.integrations.dialogues import Dialogue, Heard, Turn, blind
from tests.integrations.oracle import assert_close
from tests.integrations.prompts import BOTH, greedy
from tests.integrations.test_attention_kernels import implementation
from tests.integrations.test_exactness import scattered
from tests.integrations.test_windows import windowed
from tests.integrations.tiny_models import CACHE, FACTORIES, Image, make_inputs
from tests.models.batches import make_batch
from tests.models.factory import decoder_of, tiny_model

__all__ = ["implementation"]

FIRST = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
TEXT = [(5,), (9,)]
SECOND = [(2, Image(16, 32), 3), (4, Image(24, 32), 1, Image(16, 16), 2)]
THIRD = [(6,), (1, Image(), 2)]
STAGES: Any = [(0, 0.3), ((1, 3), (0.5, 0.2))]


@pytest.fixture(autouse=True)
def unconcerned() -> Iterator[None]:
    """Leave alone what Transformers warns of its own configurations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def empty_cache(model: Any, kind: str = "dynamic") -> Any:
    """Return an empty cache."""
    config = decoder_of(model).config
    return DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=400)


def turns_of(model: Any, first: Any = FIRST) -> list[Turn]:
    """Return turns with images, decoded tokens between, and text behind; one sample brings no image in the last."""
    between = [torch.tensor([[21], [22]]), torch.tensor([[23, 24], [25, 26]])]
    images = [make_inputs(model, part) for part in (first, SECOND, THIRD)]
    return [images[0], *between, images[1], *between, images[2], *between]


def assert_turns_are_exact(model: Any, turns: list[Turn], kind: str = "dynamic", **options: Any) -> None:
    """Fail unless each turn, and other text in place of the last, gives the logits of the blind full model."""
    last = torch.tensor([[7, 8, 9], [9, 8, 7]])
    # A window that has forgotten takes nothing back.
    crops = kind == "dynamic" and "sliding_attention" not in (
        getattr(decoder_of(model).config, "layer_types", None) or ()
    )
    crops &= getattr(decoder_of(model).config, "sliding_window", None) is None

    def heard(session: Any) -> list[Heard]:
        dialogue = Dialogue(model, empty_cache(model, "dynamic" if session is None else kind))
        answers = [dialogue.say(turn) for turn in turns]
        if crops:
            dialogue.crop(2)
        return [*answers, dialogue.say(last)]

    with prune_visual_tokens(model, selector=scattered, **options) as session:
        mine = heard(session)
    with blind(model, session.records):
        truth = heard(None)

    assert len(session.records) == sum(isinstance(turn, dict) and "pixel_values" in turn for turn in turns)
    for answer, expected in zip(mine, truth, strict=True):
        rows = answer.rows(session.records)
        assert_close(answer.logits[rows], expected.logits[rows])


@pytest.mark.parametrize(("layer", "budget"), STAGES)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("first", [FIRST, TEXT], ids=["images first", "text first"])
@pytest.mark.parametrize("family", BOTH)
def test_later_images_equal_the_blind_full_model(family: str, first: Any, kind: str, layer: Any, budget: Any) -> None:
    """Ragged batches padded within the sequence, text between and behind, decoded tokens taken back."""
    model = FACTORIES[family]()

    assert_turns_are_exact(model, turns_of(model, first), kind, layer=layer, budget=budget)


@pytest.mark.parametrize("window", [5, 40])
@pytest.mark.parametrize("pattern", ["all", "full first", "sliding first"])
def test_windows_count_original_positions_over_turns(pattern: str, window: int) -> None:
    """What a window reaches is told by the conversation, whatever turns dropped within it."""
    model = windowed(pattern, window)

    assert_turns_are_exact(model, turns_of(model), layer=(1, 3), budget=(0.5, 0.2))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", BOTH)
def test_a_kernel_that_unpads_agrees(implementation: str, family: str, layer: int) -> None:
    """It is told padding and filling by lengths, and no square of queries and keys."""
    model = FACTORIES[family]()
    turns = turns_of(model)[:4]
    answers = []

    for name in ("eager", implementation):
        with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
            decoder_of(model).set_attn_implementation(name)
            dialogue = Dialogue(model, empty_cache(model))
            answers.append([dialogue.say(turn) for turn in turns])
    decoder_of(model).set_attn_implementation("eager")

    for expected, answer in zip(*answers, strict=True):
        rows = answer.rows(session.records)
        assert_close(answer.logits[rows], expected.logits[rows])


@pytest.mark.parametrize("model_type", ["gemma3", "qwen3_vl"])
def test_blocks_of_images_and_deep_features_are_exact(model_type: str) -> None:
    """Gemma 3 lets tokens of an image see each other; Qwen3-VL adds features behind the layer."""
    model: Any = tiny_model(model_type)
    first, second = (make_batch(model, model_type, images=(1, 1), padding=side) for side in ("left", "right"))
    texts = [torch.full((2, 3), token) for token in (11, 12)]

    assert_turns_are_exact(model, [first, texts[0], second, texts[1]], layer=1, budget=0.3)


@pytest.mark.parametrize("layer", [0, 1])
def test_attentions_and_states_of_a_later_turn_stand_where_the_full_model_has_them(layer: int) -> None:
    """Weights of kept rows equal the blind model's in all columns, those of earlier turns included."""
    model = FACTORIES["llava-onevision"]()
    model.set_attn_implementation("eager")
    turns = turns_of(model)[:4]
    asked = {"output_attentions": True, "output_hidden_states": True}

    def outputs() -> Any:
        dialogue = Dialogue(model, empty_cache(model))
        for turn in turns[:-1]:
            dialogue.say(turn)
        return dialogue.say(turns[-1], **asked)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        mine = outputs()
    with blind(model, session.records):
        truth = outputs()

    rows = mine.rows(session.records)
    for name in ("attentions", "hidden_states"):
        for part, expected in zip(mine.output[name], truth.output[name], strict=True):
            assert part.shape == expected.shape
            # Attention weights have their heads in front of the rows.
            pair = (part.movedim(-2, 1), expected.movedim(-2, 1)) if name == "attentions" else (part, expected)
            assert_close(pair[0][rows], pair[1][rows])


def test_a_copied_cache_takes_another_image_than_the_original() -> None:
    """The map of a copy is its own; neither loses tokens of its newest turn."""
    model = FACTORIES["llava-onevision"]()
    first, second, *_ = turns_of(model)
    images = [make_inputs(model, part) for part in (SECOND, THIRD)]
    step = torch.tensor([[33, 34], [43, 44]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        begun = Dialogue(model, empty_cache(model))
        begun.say(first)
        begun.say(second)
        others = [copy.deepcopy(begun.cache), begun.cache]
        twins = [begun.on(cache) for cache in others]
        for twin, image in zip(twins, images, strict=True):
            twin.say(image)
        steps = [twin.say(step) for twin in twins]
        for twin in twins:
            with pytest.raises(NotImplementedError, match="crop"):
                twin.cache.crop(-3)

    for record, image, mine in zip(list(session.records)[1:], images, steps, strict=True):
        with blind(model, [session.records[0], record]):
            dialogue = Dialogue(model, empty_cache(model))
            truth = [dialogue.say(turn) for turn in (first, second, image, step)]
        assert_close(mine.logits, truth[-1].logits)


def test_generate_goes_on_with_an_image() -> None:
    """Positions of the second record count the whole conversation; the rule sees the new turn alone."""
    model = FACTORIES["llava-onevision"]()
    first, second = (make_inputs(model, [prompt]) for prompt in ((3, Image(), 4), (2, Image(16, 32), 12)))
    shown: list[tuple[Tensor, Tensor]] = []

    def looking(view: LayerView) -> Tensor:
        shown.append((view.text.positions, view.question.positions))
        if len(shown) > 1:
            with pytest.raises(NotImplementedError, match="holds tokens"):
                view.last_attention()
        return scattered(view)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=looking) as session:
        cache = empty_cache(model)
        ids = greedy(model, first, **{CACHE: cache})
        whole = {**second, "input_ids": torch.cat((ids, second["input_ids"]), dim=1)}
        whole["attention_mask"] = torch.ones_like(whole["input_ids"])
        answer = greedy(model, whole, **{CACHE: cache})
    with blind(model, session.records):
        cache = empty_cache(model)
        greedy(model, first, **{CACHE: cache})
        assert torch.equal(answer, greedy(model, whole, **{CACHE: cache}))

    record, offset = session.records[-1], ids.shape[1]
    assert torch.equal(record.visual[0], torch.arange(offset + 2, whole["input_ids"].shape[1] - 12))
    assert torch.equal(record.visual[0][record.kept_indices[0]], record.kept[0])
    # The cache lacks the token that was decoded last.
    assert shown[1][0].tolist() == [offset - 1, offset, offset + 1, *shown[1][1].tolist()]
    assert shown[1][1].tolist() == list(range(int(record.visual[0][-1]) + 1, whole["input_ids"].shape[1]))
    summary = record.summary()
    assert record.cached_full == offset - 1
    assert summary.flops_pruned is not None
    assert summary.flops_full is not None
    assert summary.flops_pruned < summary.flops_full


def test_a_recurrence_takes_no_later_image() -> None:
    """Rows that only fill up a batch would enter it."""
    model: Any = tiny_model("qwen3_5")
    batch = make_batch(model, "qwen3_5")

    with prune_visual_tokens(model, budget=0.5, layer=1), torch.no_grad():
        cache = model(**batch, use_cache=True)[CACHE]
        mask = torch.cat((batch["attention_mask"], batch["attention_mask"]), dim=1)
        with pytest.raises(NotImplementedError, match="carry a recurrence"):
            model(**{**batch, "attention_mask": mask}, **{CACHE: cache})


def test_blocks_behind_a_cache_lose_what_written_masks_lose() -> None:
    """A mask of blocks and one of numbers allow the same pairs, hidden and shortened, filling included."""
    before, keep = 5, torch.tensor([[True, False, True, True], [False, False, True, False]])
    rows = kept_rows(keep, 3)
    causal = torch.ones(4, before + 4, dtype=torch.bool).tril(before)

    def allowed(_sample: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key <= query + before

    blocks: Any = create_block_mask(allowed, 2, None, 4, before + 4, device="cpu")
    for change, queries in (
        (lambda mask: hide_columns(mask, keep, before), 4),
        (lambda mask: take_rows_and_columns(mask, rows, before + 3, before), 3),
    ):
        written, blocked = change(causal[None, None]), change(blocks)
        place = torch.meshgrid(*map(torch.arange, (2, 1, queries, written.shape[-1])), indexing="ij")
        assert torch.equal(blocked.mask_mod(*place), written)
