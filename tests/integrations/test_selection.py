"""What is kept is what the core answers on queries, keys and values taken from the model's own projections."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_core import MMR, PCMMR, TopK, select_tokens
from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.presets import ABOVE_CHANCE, PER_QUERY
from tests.integrations.oracle import assert_close, dropped_tokens, positioned, sample_of, text_rows, true_logits
from tests.integrations.selectors import Chance, divprune, fastv
from tests.integrations.tiny_models import FACTORIES, IMAGE_ID, VIDEO_ID, Image, Video, make_inputs

PROMPTS = [(3, Image(), 4, Image(16, 16), 5), (2, Image(32, 16), 6)]
LAYER = 2


def own_projections(model: nn.Module, inputs: dict[str, Any], layer: int) -> dict[str, Tensor]:
    """Return what one layer's projections and rotation give in an unpruned forward of one unpadded sample.

    The outputs of `q_proj`, `k_proj` and `v_proj` are recorded while the layer itself runs, and rotated keys are read
    from the cache, so nothing of the integration takes part.
    """
    block = model.model.language_model.layers[layer]
    seen: dict[str, Tensor] = {}
    handles = [
        getattr(block.self_attn, f"{name}_proj").register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, output[0])
        )
        for name in "qkv"
    ]
    handles.append(block.register_forward_pre_hook(lambda module, args: seen.__setitem__("hidden", args[0][0])))
    handles.append(
        block.register_forward_pre_hook(
            lambda module, args, kwargs: seen.__setitem__("rope", torch.cat(kwargs["position_embeddings"])),
            with_kwargs=True,
        )
    )
    with torch.no_grad():
        cache = model(**positioned(model, inputs), use_cache=True).past_key_values
    for handle in handles:
        handle.remove()
    width = block.self_attn.head_dim
    heads = {name: seen[name].unflatten(-1, (-1, width)).transpose(0, 1) for name in "qkv"}
    cos, sin = seen["rope"][0], seen["rope"][1]
    half = width // 2
    turned = torch.cat((-heads["q"][..., half:], heads["q"][..., :half]), dim=-1)
    return {
        "queries": heads["q"],
        "rotated_queries": heads["q"] * cos + turned * sin,
        "keys": heads["k"],
        "rotated_keys": cache.layers[layer].keys[0],
        "values": heads["v"],
        "hidden": seen["hidden"],
    }


def expected_positions(model: nn.Module, inputs: dict[str, Any], query: str, budget: float, **options: Any) -> Tensor:
    """Return the positions that the core keeps of one sample, by the rules of the project's reading of the paper."""
    rope_in_magnitude = options.pop("rope_in_magnitude", False)
    rope_in_duplication = options.pop("rope_in_duplication", True)
    own = own_projections(model, inputs, LAYER)
    ids = inputs["input_ids"][0]
    visual = ((ids == IMAGE_ID) | (ids == VIDEO_ID)).nonzero().squeeze(1)
    text = [i for i in range(len(ids)) if i not in visual.tolist()]
    question = [i for i in text if i > visual[0]] or text

    def choose(among: Tensor, count: float) -> Tensor:
        words = question or among.tolist()
        asked = {"text": words, "image": among.tolist(), "last_text": words[-1:]}[query]
        kept = select_tokens(
            own["rotated_keys" if rope_in_duplication else "keys"][:, among],
            own["values"][:, among],
            own["rotated_queries" if rope_in_magnitude else "queries"][:, asked],
            count,
            magnitude_keys=own["rotated_keys" if rope_in_magnitude else "keys"][:, among],
            hidden=own["hidden"][among],
            **options,
        )
        return among[kept]

    kept = choose(visual, budget)
    last = visual[-1:]
    if int(last) == len(ids) - 1 and int(last) not in kept.tolist():
        # The next token is read from the row of the last one, which stays for that.
        kept = torch.cat((choose(visual[:-1], len(kept) - 1), last))
    return kept


def gentle(family: str) -> nn.Module:
    """Return a miniature whose keys in the layer that prunes are so close that duplication decides."""
    model = FACTORIES[family]()
    keys = model.model.language_model.layers[LAYER].self_attn.k_proj
    for parameter in keys.parameters():
        parameter.data *= 0.1
    return model


def assert_keeps_what_the_core_says(
    family: str, prompts: list, *, padding: str = "left", **options: Any
) -> list[list[int]]:
    """Fail unless each sample of a batch keeps what the core keeps of it alone; return that."""
    model = gentle(family)
    inputs = make_inputs(model, prompts, padding)
    options = {"query": "text", "budget": 0.4, "strategy": MMR(tradeoff=0.3), **options}

    with prune_visual_tokens(model, layer=LAYER, **options) as session, torch.no_grad():
        model(**positioned(model, inputs))

    for sample, kept in enumerate(session.records[-1].kept):
        single = sample_of(inputs, prompts, sample)
        offset = int(inputs["attention_mask"][sample].argmax())
        assert kept.tolist() == (expected_positions(model, single, **options) + offset).tolist()
    return [kept.tolist() for kept in session.records[-1].kept]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", FACTORIES)
def test_each_sample_of_a_ragged_batch_keeps_what_the_core_keeps_of_it_alone(family: str, padding: str) -> None:
    """The default strategy on two images and one, in every family."""
    assert_keeps_what_the_core_says(family, PROMPTS, padding=padding, strategy=PCMMR())


@pytest.mark.parametrize("family", ["llava-onevision", "qwen2.5-vl", "qwen2-vl"])
def test_videos_and_images_of_a_sample_are_one_pool(family: str) -> None:
    """A sample with a video and an image chooses among the tokens of both."""
    assert_keeps_what_the_core_says(family, [(3, Video(), 4, Image(), 2), (2, Video(), 3)])


@pytest.mark.parametrize("family", FACTORIES)
def test_rotary_embedding_is_where_it_was_asked_for(family: str) -> None:
    """All four settings of table E.2 keep what the core keeps, and no two of them the same."""
    answers = [
        assert_keeps_what_the_core_says(
            family, PROMPTS, rope_in_magnitude=in_magnitude, rope_in_duplication=in_duplication, similarity="key"
        )
        for in_magnitude in (True, False)
        for in_duplication in (True, False)
    ]

    assert all(answers.count(answer) == 1 for answer in answers)


@pytest.mark.parametrize("query", ["text", "image", "last_text"])
@pytest.mark.parametrize("prompt", [(3, Image(), 5), (6, Image()), (Image(),)], ids=["after", "before", "none"])
def test_the_query_falls_back_where_there_is_no_text_behind_the_images(query: str, prompt: tuple) -> None:
    """Text after the first visual token, else all text, else the visual tokens."""
    assert_keeps_what_the_core_says("llava-onevision", [prompt], query=query)


@pytest.mark.parametrize(
    "options",
    [
        {"magnitude": "kernel"},
        {"magnitude": "gradient_norm"},
        {"magnitude": "value_norm"},
        {"similarity": "hidden"},
        {"similarity": "value"},
        {"similarity": "kernel_key"},
        {"heads": "softmax_mean"},
        {"heads": "softmax_mean_per_query"},
        {"heads": "softmax_mean_per_query", "query": "image"},
        dict(PER_QUERY),
        dict(ABOVE_CHANCE),
        {"strategy": TopK()},
        {"strategy": PCMMR()},
        {"strategy": PCMMR(chunk=1, growth=1.0, penalty=1.0)},
        {"budget": 5},
        {"budget": 1},
    ],
    ids=str,
)
def test_every_option_reaches_the_core(options: dict[str, Any]) -> None:
    """Metrics, strategies and counts are those that were asked for, and change what is kept."""
    answer = assert_keeps_what_the_core_says("llava-onevision", PROMPTS, **options)

    assert answer != assert_keeps_what_the_core_says("llava-onevision", PROMPTS)


@pytest.mark.parametrize("family", FACTORIES)
def test_a_batch_answers_as_its_samples_do_alone(family: str) -> None:
    """Logits of a ragged batch equal those of each sample by itself, pruned too."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=0.3, layer=1), torch.no_grad():
        together = model(**positioned(model, inputs)).logits
        alone = [model(**positioned(model, sample_of(inputs, PROMPTS, sample))).logits for sample in range(2)]

    for sample, logits in enumerate(alone):
        assert_close(together[sample, inputs["attention_mask"][sample].bool()], logits[0])


@pytest.mark.parametrize("selector", [fastv, divprune, Chance(3)], ids=["fastv", "divprune", "chance"])
@pytest.mark.parametrize("family", ["llava-onevision", "qwen2.5-vl"])
def test_other_methods_run_through_the_same_hooks(family: str, selector: Callable[[LayerView], Tensor]) -> None:
    """A selector's choice is kept to the letter, and the forward is as exact as with the paper's rule."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PROMPTS)

    with prune_visual_tokens(model, budget=7, layer=LAYER, selector=selector) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits

    record = session.records[-1]
    dropped = dropped_tokens(record, inputs["input_ids"].shape)
    rows = text_rows(inputs, dropped)
    assert [len(kept) for kept in record.kept] == [7, min(7, len(record.visual[1]))]
    assert all((kept.diff() > 0).all() for kept in record.kept)
    assert_close(logits[rows], true_logits(model, inputs, LAYER, dropped)[rows])


@pytest.mark.parametrize("family", FACTORIES)
def test_the_attention_row_is_the_one_that_the_model_computes(family: str) -> None:
    """`last_attention` equals the eager model's own weights of the last token, averaged over heads."""
    model = FACTORIES[family]()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, PROMPTS)
    rows = []

    def look(view: LayerView) -> list[int]:
        rows.append(view.last_attention())
        return [0]

    look.own_count = True  # type: ignore[attr-defined]  # functions take attributes
    with prune_visual_tokens(model, budget=0.3, layer=LAYER, selector=look), torch.no_grad():
        model(**positioned(model, inputs))
    with torch.no_grad():
        attentions = model(**positioned(model, inputs), output_attentions=True).attentions

    assert_close(torch.stack(rows), attentions[LAYER - 1][:, :, -1].mean(1))


def test_no_layer_precedes_the_first() -> None:
    """`last_attention` at layer 0 says what is missing."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)

    with (
        prune_visual_tokens(model, budget=0.3, layer=0, selector=fastv),
        pytest.raises(ValueError, match=r"`layer=0` does not have"),
    ):
        model(**inputs)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "integer indices"),
        ([True, False], TypeError, "integer indices"),
        ([], ValueError, "at least one"),
        ([[0, 1]], ValueError, "in one dimension"),
        ([0, 0], ValueError, "distinct"),
        ([-1, 0], ValueError, "from 0 to"),
        ([0, 10_000], ValueError, "from 0 to"),
    ],
)
def test_a_selectors_answer_is_checked(answer: list, error: type[Exception], message: str) -> None:
    """What a selector returns must be distinct integer indices of candidates."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)

    with (
        prune_visual_tokens(model, budget=0.3, layer=1, selector=lambda view: answer),
        pytest.raises(error, match=message),
    ):
        model(**inputs)


def test_a_view_shows_the_whole_sample() -> None:
    """Visual and text tokens of a view are the sample's own, without padding, and the budget is a count."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PROMPTS)
    views: list[LayerView] = []

    def look(view: LayerView) -> list[int]:
        views.append(view)
        return [0]

    look.own_count = True  # type: ignore[attr-defined]  # functions take attributes
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=look), torch.no_grad():
        model(**inputs)

    for sample, view in enumerate(views):
        ids = inputs["input_ids"][sample]
        assert torch.equal(view.visual.positions, (ids == IMAGE_ID).nonzero().squeeze(1))
        assert torch.equal(view.text.positions, ((ids != IMAGE_ID) & (ids != 0)).nonzero().squeeze(1))
        assert view.budget == int(0.3 * len(view.visual) + 0.5)
        assert view.text.queries.shape == (4, len(view.text), 8)
        assert view.visual.keys.shape == (2, len(view.visual), 8)
