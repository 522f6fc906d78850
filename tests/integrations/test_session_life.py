"""From the call to the close: entered anew, forgotten, copied with its model, or closed by another thread."""

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import LayerView, prune_visual_tokens
from tests.integrations.oracle import assert_close
from tests.integrations.prompts import BOTH, PAIR, greedy, logits_of, pruned_logits, right_or_refused
from tests.integrations.test_exactness import scattered
from tests.integrations.test_session import anatomy
from tests.integrations.tiny_models import CACHE, FACTORIES, LAYERS, make_inputs

PATIENCE = 2.0
"""Seconds that a thread is waited for which may have to wait itself."""


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Give a miniature of each kind, with what Transformers installs on first use installed already."""
    model = FACTORIES[request.param]()
    greedy(model, make_inputs(model, PAIR), output_hidden_states=True, return_dict_in_generate=True)
    return model


@pytest.fixture(params=BOTH)
def twins(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Give two equal models, one to be asked for what is right, and one that pickles: no forward ever ran in it.

    Transformers hangs closures on a model that ran, which cannot be pickled.
    """
    return FACTORIES[request.param](), FACTORIES[request.param]()


def forget(names: list[Any]) -> None:
    """Let go of what only these names hold."""
    names.clear()
    gc.collect()


def test_a_session_prunes_from_the_call_on_and_entering_it_changes_nothing(model: nn.Module) -> None:
    """Before, within and behind `with`."""
    inputs = make_inputs(model, PAIR)
    unpruned, expected = logits_of(model, inputs), pruned_logits(model, inputs)

    session = prune_visual_tokens(model, budget=0.3, layer=1)
    called = logits_of(model, inputs)
    with session as entered:
        within = logits_of(model, inputs)

    assert entered is session
    assert torch.equal(called, expected)
    assert torch.equal(within, expected)
    assert torch.equal(logits_of(model, inputs), unpruned)


def test_a_closed_session_that_is_entered_again_prunes_again(model: nn.Module) -> None:
    """It is attached anew, as often as one likes, and leaves the model as it was each time."""
    inputs = make_inputs(model, PAIR)
    before, expected = anatomy(model), pruned_logits(model, inputs)
    session = prune_visual_tokens(model, budget=0.3, layer=1)
    session.close()

    for times in (1, 2):
        with session:
            assert torch.equal(logits_of(model, inputs), expected)
        assert anatomy(model) == before
        assert len(session.records) == times


def test_a_session_that_is_entered_again_within_itself_lasts_until_the_outermost_end(model: nn.Module) -> None:
    """A function with a `with` of its own, called within one, ends nothing for its caller."""
    inputs = make_inputs(model, PAIR)
    before, expected = anatomy(model), pruned_logits(model, inputs)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        with session:
            assert torch.equal(logits_of(model, inputs), expected)
        assert not session.closed
        assert torch.equal(logits_of(model, inputs), expected)

    assert session.closed
    assert anatomy(model) == before


def test_close_ends_a_session_whatever_blocks_are_open(model: nn.Module) -> None:
    """Who calls `close` means it; leaving the blocks afterwards is harmless."""
    before = anatomy(model)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, session:
        session.close()
        assert anatomy(model) == before

    assert session.closed


def test_a_forward_that_was_broken_off_keeps_nobody_from_closing(model: nn.Module) -> None:
    """Torch calls no hook behind a KeyboardInterrupt: the next forward is right, and another thread can close."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs)
    session = prune_visual_tokens(model, budget=0.3, layer=1)

    def interrupt(*_args: Any) -> None:
        raise KeyboardInterrupt

    def breaks_off() -> None:
        inner: Any = model
        handle = inner.model.language_model.layers[2].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            greedy(model, inputs)
        handle.remove()

    breaks_off()
    assert torch.equal(logits_of(model, inputs), expected)
    assert not session._attachment._busy
    breaks_off()
    closing = threading.Thread(target=session.close, daemon=True)
    closing.start()
    closing.join(4 * PATIENCE)

    assert not closing.is_alive()
    assert session.closed


def test_a_session_is_not_entered_beside_another(model: nn.Module) -> None:
    """Attaching anew is refused while another session prunes the model, and leaves that one alone."""
    inputs = make_inputs(model, PAIR)
    closed = prune_visual_tokens(model, budget=0.9, layer=2)
    closed.close()

    with prune_visual_tokens(model, budget=0.3, layer=1):
        expected, during = logits_of(model, inputs), anatomy(model)
        with pytest.raises(ValueError, match="open session"):
            closed.__enter__()
        assert anatomy(model) == during
        assert torch.equal(logits_of(model, inputs), expected)

    with closed:
        assert not torch.equal(logits_of(model, inputs), expected)


def test_a_dropped_session_lets_go_of_the_model_with_a_warning(model: nn.Module) -> None:
    """Nobody could close it any more, so collecting it does, and says to keep the session."""
    before = anatomy(model)

    with pytest.warns(ResourceWarning, match="keep"):
        forget([prune_visual_tokens(model, budget=0.3, layer=1)])

    assert anatomy(model) == before
    with prune_visual_tokens(model, budget=0.5, layer=2) as session:
        logits_of(model, make_inputs(model, PAIR))
    assert len(session.records) == 1


def test_a_session_dropped_after_use_lets_go_of_the_model(model: nn.Module) -> None:
    """Neither hooks nor caches nor records hold it: the model computes as unpruned, and can be pruned anew."""
    inputs = make_inputs(model, PAIR)
    unpruned, before = logits_of(model, inputs), anatomy(model)

    session = prune_visual_tokens(model, budget=0.3, layer=1)
    with torch.no_grad():
        output = model(**inputs, use_cache=True)
    greedy(model, inputs, use_cache=False)
    records, names = list(session.records), [session]
    del session
    with pytest.warns(ResourceWarning, match="keep"):
        forget(names)

    assert anatomy(model) == before
    assert torch.equal(logits_of(model, inputs), unpruned)
    assert records[0].summary().kept_tokens < records[0].summary().visual_tokens
    with pytest.raises(NotImplementedError, match="session"):
        model(input_ids=torch.tensor([[5], [6]]), **{CACHE: output.past_key_values})
    prune_visual_tokens(model, budget=0.3, layer=1).close()


def test_a_closed_session_is_collected_in_silence(model: nn.Module) -> None:
    """Only forgetting to close is worth a warning, and a closed session is held by nothing."""
    session = prune_visual_tokens(model, budget=0.3, layer=1)
    logits_of(model, make_inputs(model, PAIR))
    session.close()
    alive = weakref.ref(session)

    del session
    gc.collect()

    assert alive() is None


def test_a_model_and_its_forgotten_session_are_collected_together() -> None:
    """A session keeps no model alive that nobody else holds."""
    model = FACTORIES["llava-onevision"]()
    alive = weakref.ref(model)

    names = [model, prune_visual_tokens(model, budget=0.3, layer=1)]
    del model
    with pytest.warns(ResourceWarning, match="keep"):
        forget(names)

    assert alive() is None


def test_a_forward_in_flight_holds_its_session(model: nn.Module) -> None:
    """A session whose last name goes while a forward runs prunes that forward to its end."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=scattered)
    names: list[Any] = []

    def forgets(view: LayerView) -> Tensor:
        forget(names)
        return scattered(view)

    def runs() -> Tensor:
        logits = logits_of(model, inputs)
        gc.collect()
        return logits

    names.append(prune_visual_tokens(model, budget=0.3, layer=1, selector=forgets))
    with pytest.warns(ResourceWarning, match="keep"):
        logits = runs()

    assert torch.equal(logits, expected)
    prune_visual_tokens(model, budget=0.3, layer=1).close()


def saved(model: Any) -> nn.Module:
    """Return the model after `torch.save` and `torch.load`."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


DUPLICATES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved,
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_a_model_copied_within_a_session_computes_as_never_pruned(twins: tuple[Any, Any], duplicate: str) -> None:
    """Bit for bit, while the session is open and after it; the original stays pruned; the copy can be pruned anew."""
    reference, model = twins
    inputs = make_inputs(reference, PAIR)
    unpruned, pruned, ids = logits_of(reference, inputs), pruned_logits(reference, inputs), greedy(reference, inputs)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session:
        copied = DUPLICATES[duplicate](model)
        assert torch.equal(logits_of(copied, inputs), unpruned)
        assert torch.equal(greedy(copied, inputs), ids)
        assert not session.records
        assert torch.equal(logits_of(model, inputs), pruned)
        with prune_visual_tokens(copied, budget=0.3, layer=1):
            assert torch.equal(logits_of(copied, inputs), pruned)

    assert torch.equal(logits_of(copied, inputs), unpruned)
    assert torch.equal(pruned_logits(copied, inputs), pruned)
    assert torch.equal(logits_of(model, inputs), unpruned)


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_the_inner_model_copied_within_a_session_computes_as_never_pruned(
    twins: tuple[Any, Any], duplicate: str
) -> None:
    """Also where only the part that is hooked is copied, and the original's session closed first."""
    reference, model = twins
    inputs = make_inputs(reference, PAIR)
    with torch.no_grad():
        unpruned = reference.model(**inputs).last_hidden_state

    with prune_visual_tokens(model, budget=0.3, layer=1):
        copied = DUPLICATES[duplicate](model.model)
    with torch.no_grad():
        assert torch.equal(copied(**inputs).last_hidden_state, unpruned)
        with prune_visual_tokens(copied, budget=0.3, layer=1):
            assert not torch.equal(copied(**inputs).last_hidden_state, unpruned)


def test_a_copy_of_a_copy_computes_as_never_pruned(model: nn.Module) -> None:
    """Whatever a copy carries does not come back to life, also where the model ran pruned before."""
    inputs = make_inputs(model, PAIR)
    unpruned = logits_of(model, inputs)

    with prune_visual_tokens(model, budget=0.3, layer=1):
        greedy(model, inputs)
        copied = copy.deepcopy(copy.deepcopy(model))
        with prune_visual_tokens(copied, budget=0.3, layer=1):
            again = copy.deepcopy(copied)

    assert torch.equal(logits_of(again, inputs), unpruned)
    assert torch.equal(logits_of(copied, inputs), unpruned)


def test_a_model_copied_while_it_chooses_computes_as_never_pruned(model: nn.Module) -> None:
    """A reference model made in the middle of a forward is none the wiser."""
    inputs = make_inputs(model, PAIR)
    unpruned = logits_of(model, inputs)
    copies: list[nn.Module] = []

    def copies_it(view: LayerView) -> Tensor:
        copies.append(copy.deepcopy(model))
        return scattered(view)

    assert pruned_logits(model, inputs, selector=copies_it).shape == unpruned.shape

    assert torch.equal(logits_of(copies[0], inputs), unpruned)


def test_a_model_saved_within_a_session_loads_as_never_pruned(model: Any, tmp_path: Path) -> None:
    """`save_pretrained` writes weights and configuration without a trace of the session."""
    inputs = make_inputs(model, PAIR)
    unpruned = logits_of(model, inputs)
    model.save_pretrained(tmp_path / "before")

    with prune_visual_tokens(model, budget=0.3, layer=1):
        model.save_pretrained(tmp_path / "within")
        names = set(model.state_dict())
    loaded = type(model).from_pretrained(tmp_path / "within").eval()

    assert names == set(model.state_dict())
    before, within = ((tmp_path / name / "config.json").read_text(encoding="utf-8") for name in ("before", "within"))
    assert within == before
    assert torch.equal(logits_of(loaded, inputs), unpruned)
    assert torch.equal(pruned_logits(loaded, inputs), pruned_logits(model, inputs))


def in_another_thread(call: Callable[[], object]) -> None:
    """Run a call in a thread, and wait for a while: it may have to wait for the forward that is running."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("layer", [0, 1])
def test_closing_in_another_thread_while_one_decodes_is_finished_or_refused(
    model: nn.Module, layer: int, cache: str
) -> None:
    """The answer is whole and right, or the error says that the session was closed."""
    inputs = make_inputs(model, PAIR)
    unpruned = greedy(model, inputs)
    with prune_visual_tokens(model, budget=0.3, layer=layer):
        expected = greedy(model, inputs, cache_implementation=cache)
    session = prune_visual_tokens(model, budget=0.3, layer=layer)

    def closes(ids: Tensor, scores: Tensor) -> Tensor:
        if ids.shape[1] == inputs["input_ids"].shape[1] + 2:
            in_another_thread(session.close)
        return scores

    right_or_refused(
        lambda: greedy(model, inputs, cache_implementation=cache, logits_processor=[closes]), expected, "closed"
    )
    session.close()
    assert torch.equal(greedy(model, inputs), unpruned)


@pytest.mark.parametrize("moment", ["choosing", "behind the pruned layer"])
def test_closing_in_another_thread_during_a_prefill_is_finished_or_refused(model: Any, moment: str) -> None:
    """A forward that has begun is finished as it began, or says that its session was closed."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs, selector=scattered)
    unpruned = logits_of(model, inputs)
    closing = moment == "choosing"

    def choose(view: LayerView) -> Tensor:
        if closing:
            in_another_thread(session.close)
        return scattered(view)

    last = model.model.language_model.layers[-1]
    session = prune_visual_tokens(model, budget=0.3, layer=1, selector=choose)
    handle = last.register_forward_pre_hook(lambda *_: None if closing else in_another_thread(session.close))
    right_or_refused(lambda: logits_of(model, inputs), expected, "closed")
    handle.remove()
    session.close()

    assert_close(logits_of(model, inputs), unpruned, tolerance=0)


@pytest.mark.parametrize("change", ["the pruning layer", "a layer before it", "fewer layers"])
def test_layers_that_are_exchanged_within_a_session_are_noticed(change: str) -> None:
    """They have no hooks: nothing would be pruned without a word."""
    model, other = (FACTORIES["llava-onevision"]() for _ in range(2))
    text: Any = model.model.language_model
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=LAYERS - 1) as session, torch.no_grad():
        if change == "fewer layers":
            text.layers = text.layers[: LAYERS - 1]
        else:
            text.layers[LAYERS - 1 if "pruning" in change else 0] = other.model.language_model.layers[0]
        with pytest.raises(RuntimeError, match="replaced, removed or left out"):
            model(**inputs, use_cache=False)

    assert not session.records


def test_a_decoder_that_its_configuration_cuts_is_served_once_its_layers_are_cut() -> None:
    """The refusal says so, and the answer is then that of the model that calls as many."""
    model = FACTORIES["llava-onevision"]()
    decoder: Any = model.model.language_model
    inputs = make_inputs(model, PAIR)
    decoder.config.num_hidden_layers = LAYERS - 1
    expected = greedy(model, inputs)

    with (
        prune_visual_tokens(model, budget=0.5, layer=1),
        pytest.raises(RuntimeError, match="has 4 layers and calls 3, the `num_hidden_layers` of its configuration"),
    ):
        greedy(model, inputs)

    decoder.layers = decoder.layers[: LAYERS - 1]
    with prune_visual_tokens(model, budget=1.0, layer=1) as session:
        assert torch.equal(greedy(model, inputs), expected)
    assert session.records
