"""Tokens that stand for others, against a reading that runs the layers one by one on what stays."""

import copy
import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.methods import Merged
from iwp_transformers.methods.pooling import Pooling
from tests.integrations.methods.merged_reading import Seen, Stage, read_merged
from tests.integrations.oracle import assert_close, positioned, sample_of
from tests.integrations.prompts import BOTH, PAIR, greedy
from tests.integrations.tiny_models import CACHE, FACTORIES, Image, llava_onevision, make_inputs

OPTIONS = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}


def pairs(hidden: Tensor, sizes: Tensor, *, weighed: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Merge each visual token of even index with the next one, by sizes; the last may stay alone."""
    kept = torch.arange(0, len(hidden), 2)
    both = torch.stack((sizes[0::2], torch.nn.functional.pad(sizes[1::2], (0, len(sizes) % 2))), dim=1)
    odd = torch.nn.functional.pad(hidden[1::2], (0, 0, 0, len(sizes) % 2))
    states = (hidden[0::2] * both[:, :1] + odd * both[:, 1:]) / both.sum(1, keepdim=True)
    return kept, states, both.sum(1) * 3 if weighed else None


@dataclass(frozen=True)
class Pairs:
    """Merge pairs; with sizes three times too large, so that they cannot be overlooked."""

    weighed: bool
    own_count = True

    def __call__(self, view: LayerView) -> Merged:
        """Return what stays, in falling order: any is allowed."""
        kept, states, sizes = pairs(view.visual.hidden, view.sizes, weighed=self.weighed)
        went = len(kept) - 1 - torch.arange(len(view.visual)) // 2
        return Merged(
            indices=kept.flip(0),
            states=states.flip(0),
            sizes=None if sizes is None else sizes.flip(0),
            assignment=went,
        )


def stages_of(layers: tuple[int, ...], weighed: bool) -> list[Stage]:
    """Return the stages of the reading."""

    def merge(seen: Seen) -> tuple[Tensor, Tensor, Tensor | None]:
        return pairs(seen.hidden, seen.sizes[seen.visual], weighed=weighed)

    return [Stage(layer, merge) for layer in layers]


def text_of(inputs: dict[str, Any], model: Any, sample: int) -> Tensor:
    """Return which rows of a sample are text."""
    visual = torch.tensor([model.config.image_token_id, getattr(model.config, "video_token_id", -1)])
    return inputs["attention_mask"][sample].bool() & ~torch.isin(inputs["input_ids"][sample], visual)


def assert_read(model: Any, inputs: dict[str, Any], logits: Tensor, layers: tuple[int, ...], weighed: bool) -> None:
    """Fail unless the text rows of a batch equal the reading of each sample alone."""
    for sample in range(len(PAIR)):
        expected = read_merged(model, sample_of(inputs, PAIR, sample), stages_of(layers, weighed))
        assert_close(logits[sample, text_of(inputs, model, sample)], expected)


@pytest.mark.parametrize("weighed", [False, True], ids=["states", "states and sizes"])
@pytest.mark.parametrize("layers", [(0,), (1,), (3,), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", BOTH)
def test_a_merged_prompt_equals_its_reading(
    family: str, attention: str, layers: tuple[int, ...], weighed: bool
) -> None:
    """Text rows of a left-padded batch of two, for one stage and for one at every layer."""
    model = FACTORIES[family]()
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, PAIR)
    budget = tuple(0.9 - 0.1 * place for place in range(len(layers)))

    with prune_visual_tokens(model, budget=budget, layer=layers, selector=Pairs(weighed)), torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    assert_read(model, inputs, logits, layers, weighed)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", BOTH)
def test_windows_pooled_by_average_equal_their_reading(family: str, layer: int) -> None:
    """The tokens are those that pooling without averages keeps, each with the mean of what went into it."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model, method="pooling", budget=0.3, layer=layer) as selected, torch.no_grad():
        model(**positioned(model, inputs))
    method = Pooling(reading="average")
    with prune_visual_tokens(model, method=method, budget=0.3, layer=layer) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits
    record = session.records[-1]

    assert [kept.tolist() for kept in record.kept] == [kept.tolist() for kept in selected.records[-1].kept]
    for sample in range(len(PAIR)):
        kept, went = record.kept_indices[sample], record.stages[0].merged_into[sample]
        parts = [went == position for position in record.kept[sample]]
        assert [int(part.sum()) for part in parts] != [1] * len(parts)
        assert all(part[index] for part, index in zip(parts, kept, strict=True))

        def merge(seen: Seen, kept: Tensor = kept, parts: list[Tensor] = parts) -> tuple[Tensor, Tensor, None]:
            return kept, torch.stack([seen.hidden[part].mean(0) for part in parts]), None

        expected = read_merged(model, sample_of(inputs, PAIR, sample), [Stage(layer, merge)])
        assert_close(logits[sample, text_of(inputs, model, sample)], expected)


def test_a_reading_of_pooling_that_is_none_is_refused() -> None:
    """When the method is made."""
    with pytest.raises(ValueError, match="`reading` is 'largest'"):
        Pooling(reading="largest")  # type: ignore[arg-type]


def test_the_readings_differ() -> None:
    """States, and sizes again, change the logits by far more than what is tolerated."""
    model = llava_onevision()
    single = sample_of(make_inputs(model, PAIR), PAIR, 0)
    plain, weighed = (read_merged(model, single, stages_of((1,), flag)) for flag in (False, True))
    dropped = [Stage(1, lambda seen: (torch.arange(0, len(seen.hidden), 2), seen.hidden[0::2], None))]

    for other in (weighed, read_merged(model, single, dropped)):
        with pytest.raises(AssertionError, match="off by"):
            assert_close(plain, other, tolerance=0.05)


@pytest.mark.parametrize("cache", [None, "static"], ids=["dynamic", "static"])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "not padded"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("family", BOTH)
def test_decoded_tokens_equal_the_reading(family: str, layer: int, padded: bool, cache: str | None) -> None:
    """Sizes weigh for every token behind the prompt too, and travel with the cache."""
    model: Any = FACTORIES[family]()
    prompts = PAIR if padded else PAIR[:1]
    inputs = make_inputs(model, prompts)
    options = {**OPTIONS, "cache_implementation": cache, "disable_compile": True}

    with prune_visual_tokens(model, budget=0.5, layer=layer, selector=Pairs(True)):
        generated = model.generate(**inputs, **options)

    new = generated.sequences[:, inputs["input_ids"].shape[1] :]
    for sample in range(len(prompts)):
        single = sample_of(inputs, prompts, sample)
        expected = read_merged(model, single, stages_of((layer,), weighed=True), new[sample : sample + 1, :-1])
        assert_close(torch.stack(generated.logits)[:, sample], expected[-new.shape[1] :])


@pytest.mark.parametrize("family", BOTH)
def test_beams_and_decoding_without_a_cache_agree(family: str) -> None:
    """Samples are repeated and reordered with their sizes; without a cache the first forward's states are used."""
    model: Any = FACTORIES[family]()
    # Older versions of Transformers mix up the images of a sample that has several, where they repeat it.
    inputs = make_inputs(model, [(3, Image(), 4), (2, Image(32, 16), 6)])
    beams = {"num_beams": 2, "num_return_sequences": 2}

    with prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(True)) as session:
        cached = [greedy(model, inputs, **options) for options in ({}, beams)]
        uncached = [greedy(model, inputs, use_cache=False, **options) for options in ({}, beams)]

    assert [ids.tolist() for ids in cached] == [ids.tolist() for ids in uncached]
    assert len(session.records) == 4


def test_sizes_travel_with_a_copy_of_the_cache() -> None:
    """A step on the copy gives what the reading gives."""
    model: Any = llava_onevision()
    inputs = make_inputs(model, PAIR)
    step = torch.tensor([[5], [6]])
    mask = torch.cat((inputs["attention_mask"], torch.ones_like(step)), dim=1)

    with prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(True)), torch.no_grad():
        cache = copy.deepcopy(model(**positioned(model, inputs), use_cache=True).past_key_values)
        positions = mask.sum(1, keepdim=True) - 1
        logits = model(input_ids=step, attention_mask=mask, position_ids=positions, **{CACHE: cache}).logits

    for sample in range(len(PAIR)):
        single = sample_of(inputs, PAIR, sample)
        expected = read_merged(model, single, stages_of((1,), weighed=True), step[sample : sample + 1])
        assert_close(logits[sample, -1], expected[-1])


def test_the_record_says_which_token_went_where() -> None:
    """Positions of the prompt, padding counted, at every stage."""
    model = llava_onevision()
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(True)) as session, torch.no_grad():
        model(**inputs)
    record = session.records[-1]

    for visual, kept, went in zip(record.visual, record.kept, record.stages[0].merged_into, strict=True):
        assert kept.tolist() == visual[0::2].tolist()
        assert went.tolist() == kept.repeat_interleave(2)[: len(visual)].tolist()


def test_a_pinned_token_keeps_its_own_state_and_size() -> None:
    """A prompt that ends with an image is read from its last token, which merges with none."""
    model = llava_onevision()
    prompts = [(5, Image(16, 16))]
    inputs = make_inputs(model, prompts)

    def rest(seen: Seen) -> tuple[Tensor, Tensor, Tensor | None]:
        hidden, sizes = seen.hidden, seen.sizes[seen.visual]
        kept, states, weights = pairs(hidden[:-1], sizes[:-1], weighed=True)
        last = torch.tensor([len(hidden) - 1])
        return torch.cat((kept, last)), torch.cat((states, hidden[-1:])), torch.cat((weights, sizes[-1:]))

    rows = len(make_inputs(model, prompts)["input_ids"][0])
    assert (rows - 5) % 2 == 0
    with prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(True)) as session, torch.no_grad():
        logits = model(**inputs).logits[0, :5]

    assert session.records[-1].kept[0][-1] == rows - 1
    assert_close(logits, read_merged(model, inputs, [Stage(1, rest)]))


@pytest.mark.filterwarnings("ignore")  # flex attention is compiled, which warns of its own parts
def test_kernels_without_additive_masks_refuse_sizes() -> None:
    """Attention would be left unweighed; the message says what to use."""
    model = llava_onevision()
    model.model.language_model.set_attn_implementation("flex_attention")

    with (
        prune_visual_tokens(model, budget=0.5, layer=0, selector=Pairs(True)),
        torch.no_grad(),
        pytest.raises(NotImplementedError, match=r"by an additive mask, which .* 'flex_attention'"),
    ):
        model(**make_inputs(model, PAIR))


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
@pytest.mark.parametrize("name", ["pact", "tome"])
def test_a_method_that_weighs_is_refused_at_the_call_under_such_kernels(name: str, attention: str) -> None:
    """Before anything is attached."""
    model = llava_onevision()
    model.model.language_model.config._attn_implementation_internal = attention

    with pytest.raises(NotImplementedError, match=f"by an additive mask, which attention implementation {attention!r}"):
        prune_visual_tokens(model, budget=0.5, method=name, layer=1)


def test_merging_refuses_to_cut_gradients() -> None:
    """New states are chosen without gradients, so a loss would not reach what they were made of."""
    model = llava_onevision()

    with (
        prune_visual_tokens(model, budget=0.5, layer=1, selector=Pairs(True)),
        pytest.raises(NotImplementedError, match="no gradient flows"),
    ):
        model(**make_inputs(model, PAIR))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": torch.zeros(3, 32)}, "`states` of the merged tokens has shape (3, 32), expected (2, 32)"),
        ({"sizes": torch.ones(3)}, "`sizes` of the merged tokens has shape (3,), expected (2,)"),
        ({"sizes": torch.tensor([1.0, 0.0])}, "`sizes` of the merged tokens go down to 0.0"),
        ({"assignment": torch.zeros(5, dtype=torch.int64)}, "`assignment` of the merged tokens has shape (5,)"),
    ],
    ids=["states", "sizes", "no size", "assignment"],
)
def test_answers_that_do_not_fit_are_value_errors(change: dict[str, Any], message: str) -> None:
    """The message names the part."""
    model: nn.Module = llava_onevision()

    def rule(_view: LayerView) -> Merged:
        return Merged(**{"indices": torch.tensor([0, 1]), "states": torch.zeros(2, 32), **change})

    with (
        prune_visual_tokens(model, budget=2, layer=1, selector=rule),
        torch.no_grad(),
        pytest.raises(ValueError, match=re.escape(message)),
    ):
        model(**make_inputs(model, PAIR))
