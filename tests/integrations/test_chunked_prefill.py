"""A prompt in chunks keeps what it keeps in one piece, and every number is that of the full model that may not look."""

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from transformers import CompileConfig, DynamicCache

from iwp_core import Tolerance
from iwp_transformers import prune_visual_tokens
from iwp_transformers.joined_chunks import JoinedChunks, joined_masks
from tests.integrations.oracle import assert_close, dropped_tokens, true_generation
from tests.integrations.prompts import BOTH, PAIR, greedy
from tests.integrations.selectors import fastv
from tests.integrations.test_attention_kernels import implementation
from tests.integrations.test_windows import unconcerned, windowed
from tests.integrations.tiny_models import CACHE, FACTORIES, Image, make_inputs
from tests.models.batches import make_batch
from tests.models.factory import tiny_model

__all__ = ["implementation", "unconcerned"]

SMALL = [(3, Image(16, 16), 3), (4, Image(16, 16), 1, Image(16, 16), 5)]
"""Two samples of few tokens, for chunks of one."""
SIZES = {"within an image": 9, "within the question": -2}
STAGES: Any = [(0, 0.3), (2, 0.3), ((1, 3), (0.5, 0.2))]
chunked = pytest.mark.skipif(
    transformers.__version__.startswith("5.17"),
    reason="Transformers 5.17 loses the images of a prompt in chunks, which is refused",
)


def chunk_size(inputs: dict[str, Any], size: int) -> int:
    """Return the tokens of a chunk; a negative number leaves so many for the last."""
    return size if size > 0 else inputs["input_ids"].shape[1] + size


def answer(model: Any, inputs: dict[str, Any], size: int | None = None, **options: Any) -> Any:
    """Return what `generate` gives, with the logits of each step."""
    asked = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    size = None if size is None else chunk_size(inputs, size)
    return model.generate(**inputs, **{**asked, **options}, prefill_chunk_size=size)


def assert_same(chunks: Any, whole: Any, session: Any) -> None:
    """Fail unless the last two records are alike in all but time, and so are the answers."""
    one, other = session.records[-2], session.records[-1]
    for first, second in zip(one.stages, other.stages, strict=True):
        assert (first.layer, first.removal, first.lengths, first.padded) == (
            second.layer,
            second.removal,
            second.lengths,
            second.padded,
        )
        assert all(map(torch.equal, first.kept, second.kept))
    for name in ("visual", "kept", "kept_indices"):
        assert all(map(torch.equal, getattr(one, name), getattr(other, name)))
    told = [{**vars(record.summary()), "selection_seconds": None} for record in (one, other)]
    assert told[0] == told[1]
    assert torch.equal(chunks.sequences, whole.sequences)
    for actual, expected in zip(chunks.logits, whole.logits, strict=True):
        assert_close(actual, expected)


@contextmanager
def before_chunk(model: Any, number: int, act: Callable[[], Any]) -> Iterator[None]:
    """Do something when the model is called for the time with a number, from 0."""
    calls = iter(range(99))

    def hook(*_: Any) -> None:
        if next(calls) == number:
            act()

    handle = model.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def broken() -> None:
    """Fail as a device does that has no memory left."""
    msg = "out of memory"
    raise RuntimeError(msg)


@chunked
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("layer", "budget"), STAGES)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", BOTH)
def test_chunks_are_pruned_as_one_piece(family: str, cache: str, layer: Any, budget: Any, size: int) -> None:
    """Two samples, padded at the left: the same record, and in prefill and decoding the logits of the blind model."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=budget, layer=layer) as session:
        whole = answer(model, inputs, cache_implementation=cache)
        chunks = answer(model, inputs, size, cache_implementation=cache)

    assert_same(chunks, whole, session)
    if not isinstance(layer, tuple):
        dropped = dropped_tokens(session.records[-1], inputs["input_ids"].shape)
        for actual, expected in zip(
            chunks.logits, true_generation(model, inputs, layer, dropped, max_new_tokens=4, do_sample=False).logits,
            strict=True,
        ):  # fmt: skip
            assert_close(actual, expected)


@chunked
@pytest.mark.parametrize("family", BOTH)
def test_chunks_of_one_token_are_pruned_as_one_piece(family: str) -> None:
    """The smallest that there are, which look like steps."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, SMALL)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        whole = answer(model, inputs)
        assert_same(answer(model, inputs, 1), whole, session)


@chunked
@pytest.mark.parametrize("prompt", [(9, Image(32, 16), 9), (2, Image(32, 16))], ids=["text around", "image last"])
def test_chunks_of_text_alone_belong_to_the_prompt(prompt: Any) -> None:
    """In front of the image and behind it, where nothing of the chunk itself tells of an image."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, [prompt])

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        whole = answer(model, inputs)
        assert_same(answer(model, inputs, 4), whole, session)


@chunked
@pytest.mark.parametrize(
    "options",
    [
        {"method": "pyramiddrop", "budget": 0.4},
        {"method": "visionzip", "budget": 0.4},
        {"method": "tome", "budget": 0.4},
        {"selector": fastv, "budget": 0.3, "layer": 2},
        {"budget": 0.3, "layer": 3, "layers": (0, 2)},
        {"budget": Tolerance(0.2), "layer": 2},
        {"budget": {"image": 0.3}, "layer": 1, "heads": "max"},
        {"budget": 1.0, "layer": 1},
    ],
    ids=lambda options: str({**options, "selector": "fastv"} if "selector" in options else options),
)
def test_rules_see_the_whole_prompt(options: Any) -> None:
    """Rules that read attention, earlier layers or the vision tower, that merge, or that count for themselves."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, **options) as session:
        whole = answer(model, inputs)
        assert_same(answer(model, inputs, 20), whole, session)


@chunked
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_an_attention_that_unpads_takes_chunks(implementation: str, cache: str, layer: int) -> None:
    """Its masks have two dimensions, and grow with the chunks."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, PAIR)
    model.model.language_model.set_attn_implementation(implementation)

    with prune_visual_tokens(model, budget=0.3, layer=layer) as session:
        whole = answer(model, inputs, cache_implementation=cache)
        assert_same(answer(model, inputs, 7, cache_implementation=cache), whole, session)


@chunked
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("pattern", ["all", "full first", "sliding first"])
def test_windows_take_chunks(pattern: str, layer: int) -> None:
    """Windows shorter and longer than a chunk, in layers before and behind the one that prunes."""
    model = windowed(pattern, 6)
    inputs = make_inputs(model, SMALL)

    with prune_visual_tokens(model, budget=0.3, layer=layer) as session:
        whole = answer(model, inputs)
        for size in (4, 11):
            assert_same(answer(model, inputs, size), whole, session)


@chunked
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_deep_features_take_chunks(layer: int) -> None:
    """Qwen3-VL adds features of the images between its first layers, in the order of samples."""
    model: Any = tiny_model("qwen3_vl")
    inputs = make_batch(model, "qwen3_vl")

    with prune_visual_tokens(model, budget=0.3, layer=layer) as session:
        whole = answer(model, inputs)
        assert_same(answer(model, inputs, 5), whole, session)


@chunked
def test_beams_take_chunks() -> None:
    """Each sample comes several times, and the cache is put in another order behind the last chunk."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        whole = answer(model, inputs, num_beams=3)
        assert_same(answer(model, inputs, 7, num_beams=3), whole, session)


@chunked
@pytest.mark.parametrize("layer", [0, 2])
def test_states_and_attentions_are_those_of_the_last_chunk(layer: int) -> None:
    """As without pruning: as many rows as the last chunk has, here with the numbers of a prompt in one piece."""
    model = FACTORIES["llava-onevision"]()
    model.set_attn_implementation("eager")
    inputs = make_inputs(model, PAIR)
    asked = {"output_hidden_states": True, "output_attentions": True}
    unpruned = answer(model, inputs, 9, **asked)
    real = inputs["attention_mask"].bool()

    with prune_visual_tokens(model, budget=0.3, layer=layer):
        whole, chunks = answer(model, inputs, **asked), answer(model, inputs, 9, **asked)

    for name, dim in (("hidden_states", 1), ("attentions", 2)):
        for shape, actual, full in zip(*(getattr(each, name)[0] for each in (unpruned, chunks, whole)), strict=True):
            length = actual.shape[dim]
            assert actual.shape == shape.shape
            expected = full.narrow(dim, full.shape[dim] - length, length)
            assert real[:, -length:].all()
            assert_close(actual, expected)


@chunked
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own parts
@pytest.mark.parametrize("prompt", [(3, Image(16, 16), 9), (9, Image(16, 16), 3)], ids=["image first", "text first"])
def test_compiled_chunks_are_exact_or_refused(prompt: Any) -> None:
    """A chunk of text alone cannot be seen in a compiled graph before anything is known of the prompt."""
    torch.compiler.reset()
    model = FACTORIES["qwen2.5-vl"](num_hidden_layers=2)
    inputs = make_inputs(model, [prompt])
    compiling = CompileConfig(backend="eager", mode=None)
    compiling._compile_all_devices = True
    options = {"cache_implementation": "static", "max_new_tokens": 1}

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        whole = answer(model, inputs, **options)
        if prompt[0] < 6:
            assert_same(answer(model, inputs, 9, compile_config=compiling, **options), whole, session)
        else:
            with pytest.raises(NotImplementedError, match="disable_compile=True"):
                answer(model, inputs, 9, compile_config=compiling, **options)
            assert len(session.records) == 1


@chunked
def test_two_threads_hold_their_own_prompts() -> None:
    """One session, prompts of several lengths: what each thread holds is its own."""
    model = FACTORIES["llava-onevision"]()
    prompts = [make_inputs(model, [prompt]) for prompt in ((3, Image(), 9), (9, Image(32, 16), 3))]

    with prune_visual_tokens(model, budget=0.3, layer=1), ThreadPoolExecutor(2) as pool:
        expected = [greedy(model, inputs) for inputs in prompts]
        for _ in range(3):
            ids = list(pool.map(lambda inputs: greedy(model, inputs, prefill_chunk_size=5), prompts))
            assert all(map(torch.equal, ids, expected))


@chunked
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_session_closed_between_chunks_leaves_no_answer(cache: str) -> None:
    """The layers that waited for the end of the question refuse, and the model is pruned and unpruned as ever."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    unpruned = greedy(model, inputs)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, before_chunk(model, 2, session.close):
        with pytest.raises(NotImplementedError, match="the beginning of a prompt in chunks"):
            answer(model, inputs, 7, cache_implementation=cache)
        assert not session.records

    assert torch.equal(greedy(model, inputs), unpruned)


@chunked
def test_a_session_opened_between_chunks_refuses_the_rest() -> None:
    """What stood in the first chunks was not seen by it."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    sessions = []

    with (
        before_chunk(model, 1, lambda: sessions.append(prune_visual_tokens(model, budget=0.3, layer=1))),
        pytest.raises(NotImplementedError, match="did not see"),
    ):
        answer(model, inputs, 7)

    sessions[0].close()


@chunked
@pytest.mark.parametrize("chunk", [0, 2, 9], ids=["first", "middle", "last"])
def test_a_prompt_that_breaks_off_leaves_nothing(chunk: int) -> None:
    """Its cache refuses to be gone on with, nothing is held of it, and the next prompt is answered rightly."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    mine = {CACHE: DynamicCache()}

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        expected = answer(model, inputs)
        handle = model.model.language_model.layers[2].register_forward_pre_hook(
            _at_call(chunk, broken),
        )
        with pytest.raises(RuntimeError, match="out of memory"):
            answer(model, inputs, 7, **mine)
        handle.remove()
        assert not session._attachment._thread.held
        assert not session._attachment._busy
        with pytest.raises(NotImplementedError, match="the beginning of a prompt in chunks"), torch.no_grad():
            model(input_ids=torch.full((2, 1), 7), **mine)
        assert_same(answer(model, inputs, 7), expected, session)


def _at_call(number: int, act: Callable[[], Any]) -> Callable[..., None]:
    calls = iter(range(99))

    def hook(*_: Any) -> None:
        if next(calls) == number:
            act()

    return hook


@chunked
def test_a_prompt_that_is_abandoned_is_forgotten_with_its_cache() -> None:
    """Also where nothing failed within the model."""
    model = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        with before_chunk(model, 2, broken), pytest.raises(RuntimeError, match="out of memory"):
            answer(model, inputs, 7)
        gc.collect()

        assert not session._attachment._busy
        assert not session._attachment._thread.held


@chunked
def test_text_in_chunks_is_left_alone_and_goes_on_with_a_pruned_cache() -> None:
    """A prompt of text alone holds nothing, and a second turn of text is many steps."""
    model = FACTORIES["llava-onevision"]()
    inputs, text = make_inputs(model, PAIR), make_inputs(model, [(9,), (5,)])
    expected = greedy(model, text)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        assert torch.equal(greedy(model, text, prefill_chunk_size=2), expected)
        assert not session.records
        ids = []
        for size in (None, 2):
            mine = {CACHE: DynamicCache(config=model.config.get_text_config())}
            turn = torch.cat((greedy(model, inputs, **mine), torch.full((2, 5), 7)), dim=1)
            ids.append(greedy(model, {"input_ids": turn}, **mine, prefill_chunk_size=size))

    assert torch.equal(*ids)


@chunked
def test_images_of_a_later_turn_are_refused_in_chunks() -> None:
    """Layers that wait would have to be told from those that hold the turns before."""
    model = FACTORIES["llava-onevision"]()
    first, second = make_inputs(model, [(9,), (5,)]), make_inputs(model, PAIR)
    mine = {CACHE: DynamicCache(config=model.config.get_text_config())}

    with prune_visual_tokens(model, budget=0.3, layer=1):
        ids = greedy(model, first, **mine)
        turn = {**second, "input_ids": torch.cat((ids, second["input_ids"]), dim=1)}
        turn["attention_mask"] = torch.cat((torch.ones_like(ids), second["attention_mask"]), dim=1)
        with pytest.raises(NotImplementedError, match="images in later turns are served in one piece only"):
            greedy(model, turn, **mine, prefill_chunk_size=7)


@chunked
@pytest.mark.parametrize(
    ("model_type", "reason"), [("gemma3", "makes masks of its own"), ("qwen3_5", "a recurrence that goes on")]
)
def test_models_whose_chunks_do_not_add_up_are_refused(model_type: str, reason: str) -> None:
    """Tokens of an image that see each other would miss what another chunk holds."""
    model: Any = tiny_model(model_type)
    inputs = make_batch(model, model_type)

    with (
        prune_visual_tokens(model, budget=0.3, layer=1) as session,
        pytest.raises(NotImplementedError, match=f"comes in chunks, but.*{reason}"),
    ):
        answer(model, inputs, 7)

    assert not session.records


@pytest.mark.skipif(
    not transformers.__version__.startswith("5.17"), reason="later versions hand images out to the chunks"
)
@pytest.mark.parametrize("size", [8, -3])
@pytest.mark.parametrize("family", BOTH)
def test_versions_that_lose_images_are_refused(family: str, size: int) -> None:
    """The answer of such a version is wrong without pruning, too."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)

    with (
        prune_visual_tokens(model, budget=0.3, layer=1) as session,
        pytest.raises(NotImplementedError, match="loses its images"),
    ):
        answer(model, inputs, size)

    assert not session.records


def test_what_a_caller_cuts_off_by_its_positions_is_refused() -> None:
    """Positions that are the beginning of longer ones tell that more is to come, but not how much."""
    model = FACTORIES["qwen2.5-vl"]()
    inputs = make_inputs(model, [PAIR[1]])
    length = inputs["input_ids"].shape[1]
    positions = torch.arange(length + 9).expand(3, 1, -1).contiguous()

    with (
        prune_visual_tokens(model, budget=0.3, layer=1),
        torch.no_grad(),
        pytest.raises(NotImplementedError, match="in chunks that nobody tells the end of"),
    ):
        model(**inputs, position_ids=positions[..., :length])


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("lengths", [(2, 2, 2), (2, 2, 1), (1, 1), (3, 3)], ids=str)
def test_arguments_in_chunks_join_to_what_was_cut(lengths: tuple[int, ...], batch: int) -> None:
    """Whatever axis is the tokens', also where the batch is as long as a chunk; or refused where it cannot be told."""
    length = sum(lengths)
    whole = {
        "rotary": (torch.randn(batch, length, 4), torch.randn(1, length, 4)),
        "three rows": torch.randn(3, batch, length, 4) if batch != 3 else None,
        "position_ids": torch.randn(batch, length),
        "flat": torch.randn(length, 5) if batch > 3 else None,
        "constant": torch.tensor(0.5),
        "flag": True,
    }
    parts = [
        {name: _cut(value, start, stop, length) for name, value in whole.items()}
        for start, stop in zip((0, *torch.tensor(lengths).cumsum(0)[:-1]), torch.tensor(lengths).cumsum(0), strict=True)
    ]

    joined = JoinedChunks(batch, lengths).arguments(parts)

    assert str(joined) == str(whole)


def _cut(value: Any, start: Any, stop: Any, length: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_cut(part, start, stop, length) for part in value)
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    dim = max(dim for dim in range(value.ndim) if value.shape[dim] == length)
    return value.narrow(dim, int(start), int(stop - start))


def test_an_argument_that_differs_from_chunk_to_chunk_is_refused() -> None:
    """It is not known what it would be for the whole prompt."""
    with pytest.raises(NotImplementedError, match="`scale` differs from chunk to chunk"):
        JoinedChunks(1, (2, 3)).arguments([{"scale": 1.0}, {"scale": 2.0}])


def test_a_mask_that_looks_ahead_is_refused() -> None:
    """Tokens of an image that see each other may be in two chunks."""
    masks = [torch.ones(1, 1, 2, 2, dtype=torch.bool), torch.ones(1, 1, 1, 3, dtype=torch.bool)]

    with pytest.raises(NotImplementedError, match="lets tokens see what is behind them"):
        joined_masks(masks, (2, 1))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_of_chunks_join_to_the_mask_of_one_piece(dtype: torch.dtype) -> None:
    """One that hides nothing is None, and a window shows the newest columns only."""
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    window = causal & ~torch.ones(6, 6, dtype=torch.bool).tril(-3)

    def written(part: torch.Tensor) -> torch.Tensor:
        whole = torch.zeros(part.shape).masked_fill(~part, torch.finfo(torch.float32).min)
        return (part if dtype == torch.bool else whole)[None, None]

    assert torch.equal(joined_masks([None, written(causal[2:5, :5]), None], (2, 3, 1)), written(causal))
    assert torch.equal(joined_masks([None, written(window[3:, 1:])], (3, 3)), written(window))
