"""What is known of a pruned cache travels with it: copied, cropped, reordered, reset, or left behind by its session."""

import copy
import pickle
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

from iwp_transformers import prune_visual_tokens
from tests.integrations.oracle import assert_close, dropped_tokens, positioned, sample_of, true_generation
from tests.integrations.prompts import BOTH, PAIR, greedy, logits_of, right_or_refused, true_step
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import CACHE, FACTORIES, Image, make_inputs, pad

TOKENS = torch.tensor([[33, 34, 35], [43, 44, 45]])
# The row of text alone is longer than the other, so every layer holds the same number of rows, pruned or not.
HIDDEN_BY_TEXT = [(3, Image(), 4), (120,)]
layers = pytest.mark.parametrize("layer", [0, 1, 2])
kinds = pytest.mark.parametrize("kind", ["dynamic", "static"])


@pytest.fixture
def model() -> nn.Module:
    """Give LLaVA-OneVision."""
    return FACTORIES["llava-onevision"]()


def new_cache(model: Any, kind: str) -> Any:
    """Return an empty cache."""
    config = model.config.get_text_config()
    return DynamicCache(config=config) if kind == "dynamic" else StaticCache(config=config, max_cache_len=160)


@dataclass
class Conversation:
    """A cache after its prefill, and what a caller has to know to go on: `mask` of the prompt, `offsets` of M-RoPE."""

    model: Any
    cache: Any
    mask: Tensor
    offsets: Tensor

    @classmethod
    def begun(cls, model: Any, inputs: dict[str, Any], kind: str = "dynamic") -> Self:
        """Run the prompt."""
        cache, mask = new_cache(model, kind), inputs["attention_mask"]
        with torch.no_grad():
            model(**positioned(model, inputs), **{CACHE: cache}, use_cache=True)
        qwen = "Qwen" in type(model).__name__
        return cls(model, cache, mask, model.model.rope_deltas if qwen else mask.new_zeros(len(mask), 1))

    def step(self, tokens: Tensor) -> Tensor:
        """Return the logits of new tokens, shape (B, Q), one forward for all, with the positions of `generate`."""
        seen = int(self.cache.get_seq_length())
        more = self.mask.new_ones(len(self.mask), seen - self.mask.shape[1] + tokens.shape[1])
        mask = torch.cat((self.mask, more), dim=1)
        positions = (mask.cumsum(1) - 1)[:, -tokens.shape[1] :] + self.offsets
        if "Qwen" in type(self.model).__name__:
            positions = positions.expand(3, -1, -1)
        options = {"attention_mask": mask, "position_ids": positions, CACHE: self.cache}
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=tokens, **options).logits
        return logits

    def on(self, duplicate: Callable[[Any], Any]) -> "Conversation":
        """Return the same on another cache."""
        return replace(self, cache=duplicate(self.cache))

    def cropped(self, count: int) -> "Conversation":
        """Take back the last tokens, some of them the prompt's."""
        self.cache.crop(-count)
        return replace(self, mask=self.mask[:, : int(self.cache.get_seq_length())])

    def moved(self, samples: list[int]) -> "Conversation":
        """Return the same for samples that were repeated, selected or reordered in the cache."""
        return replace(self, mask=self.mask[samples], offsets=self.offsets[samples])


@layers
@kinds
@pytest.mark.parametrize("family", BOTH)
def test_a_deep_copy_decodes_as_the_original(family: str, kind: str, layer: int) -> None:
    """Also after another prompt was pruned, and when the original has gone on."""
    model = FACTORIES[family]()
    inputs, other = make_inputs(model, PAIR), make_inputs(model, [(4, Image(32, 32), 3)])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        Conversation.begun(model, other, kind)
        begun = Conversation.begun(model, inputs, kind)
        record = session.records[-1]
        copied = begun.on(copy.deepcopy)
        original = begun.step(TOKENS)
        again = copied.step(TOKENS)

    expected = true_step(model, inputs, record, TOKENS, layer)
    assert_close(original, expected)
    assert_close(again, expected)


@layers
@kinds
def test_a_copied_prefix_serves_several_questions(model: nn.Module, kind: str, layer: int) -> None:
    """Prefix caching: one prefill, a copy for each question, other prompts in between."""
    inputs, other = make_inputs(model, PAIR), make_inputs(model, [(4, Image(32, 32), 3)])
    questions = [TOKENS, TOKENS[:, :1] + 7, TOKENS.flip(0)]

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        prefix = Conversation.begun(model, inputs, kind)
        record = session.records[-1]
        answers = []
        for question in questions:
            Conversation.begun(model, other, kind)
            answers.append(prefix.on(copy.deepcopy).step(question))

    for question, logits in zip(questions, answers, strict=True):
        assert_close(logits, true_step(model, inputs, record, question, layer))


@pytest.mark.parametrize(
    "duplicate", [copy.copy, lambda cache: pickle.loads(pickle.dumps(cache))], ids=["copy", "pickle"]
)
@kinds
def test_other_duplicates_of_a_cache_decode_as_the_original_or_are_refused(
    model: nn.Module, kind: str, duplicate: Callable[[Any], Any]
) -> None:
    """A shallow copy and a pickled one are never decoded wrongly."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        begun = Conversation.begun(model, inputs, kind)
    expected = true_step(model, inputs, session.records[-1], TOKENS, 1)

    with session:
        right_or_refused(lambda: begun.on(duplicate).step(TOKENS), expected, "cache")


@layers
@pytest.mark.parametrize("way", ["a deep copy", "another session", "after closing"])
@pytest.mark.parametrize("family", BOTH)
def test_a_cache_whose_layers_hold_equally_many_rows_is_no_unpruned_one(family: str, way: str, layer: int) -> None:
    """Beside a long row of text alone no length tells that a row was pruned; it is right, or refused."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, HIDDEN_BY_TEXT)

    session = prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered)
    begun = Conversation.begun(model, inputs)
    assert len({part.keys.shape[-2] for part in begun.cache.layers}) == 1
    session.close()
    expected = true_step(model, inputs, session.records[-1], TOKENS, layer)
    if way == "another session":
        session = prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered)
    if way == "a deep copy":
        session.__enter__()
    try:
        if way == "a deep copy":
            assert_close(begun.on(copy.deepcopy).step(TOKENS), expected)
        else:
            right_or_refused(lambda: begun.step(TOKENS), expected, "session")
    finally:
        session.close()


@layers
@kinds
@pytest.mark.parametrize("copied", [False, True], ids=["itself", "a copy"])
def test_the_cache_of_a_closed_session_is_refused(model: nn.Module, copied: bool, kind: str, layer: int) -> None:
    """Nobody shortens masks and lengths any more, so the cache itself says that its session is closed."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered):
        begun = [Conversation.begun(model, inputs, kind) for _ in range(2)]
        begun = [each.on(copy.deepcopy) if copied else each for each in begun]

    with pytest.raises(NotImplementedError, match="session"):
        begun[0].step(TOKENS)
    with pytest.raises(NotImplementedError, match="session"):
        greedy(model, {"input_ids": torch.cat((inputs["input_ids"], TOKENS), dim=1)}, **{CACHE: begun[1].cache})


@layers
@kinds
def test_a_closed_sessions_cache_is_right_or_refused_in_the_next_session(
    model: nn.Module, kind: str, layer: int
) -> None:
    """Whatever the next session prunes, at another layer too."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        begun = Conversation.begun(model, inputs, kind)
    expected = true_step(model, inputs, session.records[-1], TOKENS, layer)

    with prune_visual_tokens(model, budget=0.5, layer=(layer + 1) % 3):
        right_or_refused(lambda: begun.step(TOKENS), expected, "session")


@kinds
def test_a_session_entered_anew_goes_on_with_its_cache_or_refuses(model: nn.Module, kind: str) -> None:
    """A cache of before is right, or refused; a prompt of after is right."""
    inputs = make_inputs(model, PAIR)
    session = prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered)
    with session:
        begun = Conversation.begun(model, inputs, kind)
    expected = true_step(model, inputs, session.records[-1], TOKENS, 1)

    with session:
        right_or_refused(lambda: begun.step(TOKENS), expected, "session")
        assert_close(Conversation.begun(model, inputs, kind).step(TOKENS), expected)


@layers
@pytest.mark.parametrize("family", BOTH)
def test_cropping_decoded_tokens_is_exact(family: str, layer: int) -> None:
    """What was decoded is taken back, as assisted decoding does, and other tokens are decoded instead."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    others = TOKENS.flip(1) + 5

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        begun = Conversation.begun(model, inputs)
        begun.step(TOKENS)
        begun.cache.crop(-2)
        logits = begun.step(others)
        begun.cache.crop(-4)
        whole = begun.step(others)

    assert begun.cache.get_seq_length() == inputs["input_ids"].shape[1] + 3
    record = session.records[-1]
    kept_one = torch.cat((TOKENS[:, :1], others), dim=1)
    assert_close(logits, true_step(model, inputs, record, kept_one, layer)[:, 1:])
    assert_close(whole, true_step(model, inputs, record, others, layer))


@layers
@pytest.mark.parametrize("copied", [False, True], ids=["itself", "a copy"])
@pytest.mark.parametrize("decoded", [0, 3])
def test_cropping_into_the_prompt_is_refused(model: nn.Module, decoded: int, copied: bool, layer: int) -> None:
    """Different layers would lose different tokens; the reason is given at once, or at the next step."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered):
        begun = Conversation.begun(model, inputs)
        if decoded:
            begun.step(TOKENS[:, :decoded])
        begun = begun.on(copy.deepcopy) if copied else begun
        with pytest.raises(NotImplementedError, match="crop"):
            begun.cropped(decoded + 4).step(TOKENS)


def test_cropping_all_that_was_decoded_and_decoding_again_is_exact(model: nn.Module) -> None:
    """The prompt stays, to the last of its tokens."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        begun = Conversation.begun(model, inputs)
        first = begun.step(TOKENS)
        begun.cache.crop(-TOKENS.shape[1])
        assert_close(begun.step(TOKENS), first, tolerance=1e-6)


def test_prompt_lookup_gives_the_ids_of_greedy_decoding_or_is_refused(model: nn.Module) -> None:
    """Guessed tokens that are taken back, in the first forward too, change neither the choice nor the words."""
    inputs = make_inputs(model, [(3, Image(), 30)])
    inputs["input_ids"][:, -4:] = inputs["input_ids"][:, -14:-10]

    with prune_visual_tokens(model, budget=0.3, layer=1):
        expected = greedy(model, inputs, max_new_tokens=12)
        right_or_refused(
            lambda: greedy(model, inputs, max_new_tokens=12, prompt_lookup_num_tokens=3),
            expected,
            "crop|assisted|guess",
        )


@layers
@pytest.mark.parametrize("family", BOTH)
def test_repeated_samples_decode_exactly(family: str, layer: int) -> None:
    """`batch_repeat_interleave` of a cache of several samples: every copy goes on with a token of its own."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    tokens = torch.tensor([[33], [34], [35], [36]])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        begun = Conversation.begun(model, inputs)
        begun.cache.batch_repeat_interleave(2)
        logits = begun.moved([0, 0, 1, 1]).step(tokens)

    for copies in (slice(0, None, 2), slice(1, None, 2)):
        assert_close(logits[copies], true_step(model, inputs, session.records[-1], tokens[copies], layer))


@layers
@kinds
@pytest.mark.parametrize("family", BOTH)
def test_reordered_samples_decode_exactly(family: str, kind: str, layer: int) -> None:
    """`reorder_cache`, as beams do, also when some beams die out."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [PAIR[0], PAIR[1], (4, Image(32, 32), 3)])
    tokens = torch.tensor([[33], [34], [35]])

    for order in ([2, 0, 1], [1, 1, 0]):
        with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
            begun = Conversation.begun(model, inputs, kind)
            begun.cache.reorder_cache(torch.tensor(order))
            logits = begun.moved(order).step(tokens)
        for row, sample in enumerate(order):
            everybody = torch.zeros(3, 1, dtype=torch.int64) + tokens[row]
            expected = true_step(model, inputs, session.records[-1], everybody, layer)
            assert_close(logits[row], expected[sample])


@layers
@pytest.mark.parametrize("family", BOTH)
def test_selected_samples_decode_exactly(family: str, layer: int) -> None:
    """`batch_select_indices`: samples that are finished leave, the others go on."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, [PAIR[0], PAIR[1], (4, Image(32, 32), 3)])
    tokens = torch.tensor([[33], [34]])

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered) as session:
        begun = Conversation.begun(model, inputs)
        begun.cache.batch_select_indices(torch.tensor([2, 1]))
        logits = begun.moved([2, 1]).step(tokens)

    expected = true_step(model, inputs, session.records[-1], torch.tensor([[33], [34], [33]]), layer)
    assert_close(logits, expected[[2, 1]])


@kinds
@pytest.mark.parametrize("copied", [False, True], ids=["itself", "a copy"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_a_pruned_cache_that_was_reset_takes_text(model: nn.Module, kind: str, copied: bool, closed: bool) -> None:
    """After `reset` it is as new, within the session and behind it."""
    text, inputs = make_inputs(model, [(9,)]), make_inputs(model, [PAIR[1]])
    expected = greedy(model, text)

    session = prune_visual_tokens(model, budget=0.3, layer=1)
    cache = Conversation.begun(model, inputs, kind).cache
    cache = copy.deepcopy(cache) if copied else cache
    if closed:
        session.close()
    cache.reset()
    if cache.get_seq_length():
        session.close()
        pytest.skip("a dynamic cache of this Transformers keeps its length when it is reset")
    try:
        assert torch.equal(greedy(model, text, **{CACHE: cache}), expected)
    finally:
        session.close()


@kinds
def test_a_prompt_pruned_on_a_reset_cache_is_exact(model: nn.Module, kind: str) -> None:
    """Nothing of the first prompt is left for the second, which is longer and keeps other tokens."""
    first, second = make_inputs(model, [PAIR[1]]), make_inputs(model, [PAIR[0]])

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        cache = Conversation.begun(model, first, kind).cache
        cache.reset()
        if cache.get_seq_length():
            pytest.skip("a dynamic cache of this Transformers keeps its length when it is reset")
        output = greedy(model, second, **{CACHE: cache})

    dropped = dropped_tokens(session.records[-1], second["input_ids"].shape)
    expected = true_generation(model, second, 1, dropped, max_new_tokens=5, do_sample=False)
    assert torch.equal(output, expected.sequences)


@layers
@kinds
def test_every_row_of_a_batch_continues_as_by_itself(model: nn.Module, kind: str, layer: int) -> None:
    """A sample's second turn does not depend on who shared the batch."""
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=layer):
        together = Conversation.begun(model, inputs, kind).step(TOKENS)
        for sample in range(2):
            single = sample_of(inputs, PAIR, sample)
            alone = Conversation.begun(model, single, kind).step(TOKENS[sample : sample + 1])
            assert_close(together[sample], alone[0])


@layers
@kinds
def test_a_step_leaves_no_mask_behind(model: Any, kind: str, layer: int) -> None:
    """Masks of a step, as long as all that was seen, are gone when it ends, though the session goes on."""
    masks = []
    for part in model.model.language_model.layers:
        part.register_forward_pre_hook(
            lambda *call: masks.append(weakref.ref(call[2]["attention_mask"])), with_kwargs=True
        )

    with prune_visual_tokens(model, budget=0.3, layer=layer):
        begun = Conversation.begun(model, make_inputs(model, PAIR), kind)
        masks.clear()
        begun.step(TOKENS)

        assert len(masks) == len(model.model.language_model.layers)
        assert not any(mask() is not None for mask in masks)


def test_a_text_prompt_on_an_unpruned_cache_is_left_alone(model: nn.Module) -> None:
    """A cache that was filled before the session, or by text within it, is none of ours."""
    rows = pad([[5, 6, 7, 8, 9]], "left")
    token = torch.tensor([[33]])
    before = Conversation.begun(model, rows).cache
    expected = logits_of(model, {"input_ids": token, CACHE: copy.deepcopy(before)})

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        within = Conversation.begun(model, rows).cache
        for cache in (before, within, copy.deepcopy(within)):
            assert torch.equal(logits_of(model, {"input_ids": token, CACHE: cache}), expected)

    assert not session.records
    assert torch.isfinite(logits_of(model, {"input_ids": token, CACHE: within})).all()
