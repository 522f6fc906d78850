"""Subclasses of any signature, and models inside of other objects: pruned exactly, or told what to pass instead."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, PAIR, greedy, logits_of, pruned_logits
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import FACTORIES, make_inputs


@pytest.fixture(params=BOTH)
def model(request: pytest.FixtureRequest) -> Any:
    """Give a miniature of each kind."""
    return FACTORIES[request.param]()


def narrow(base: type) -> Callable[..., Any]:
    """Return a forward that names two arguments."""

    def forward(self: Any, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        return base.forward(self, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    return forward


def nameless(base: type) -> Callable[..., Any]:
    """Return a forward that names none."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return base.forward(*args, **kwargs)

    return forward


def ids_last(base: type) -> Callable[..., Any]:
    """Return a forward whose ids are not the first argument."""
    return lambda self, pixel_values=None, *, input_ids=None, **kwargs: base.forward(
        self, input_ids=input_ids, pixel_values=pixel_values, **kwargs
    )


def wrapped(base: type) -> Callable[..., Any]:
    """Return a forward that claims the original's signature and has another."""

    @functools.wraps(base.forward)
    def forward(self: Any, **kwargs: Any) -> Any:
        return base.forward(self, **kwargs)

    return forward


SIGNATURES = {"narrow": narrow, "nameless": nameless, "ids last": ids_last, "wrapped": wrapped}


def derive(part: nn.Module, signature: str) -> None:
    """Make a module one of a subclass with a signature of its own."""
    base = type(part)
    part.__class__ = type(f"My{base.__name__}", (base,), {"forward": SIGNATURES[signature](base)})


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("where", ["headless", "whole", "both"])
def test_subclasses_of_any_signature_prune(model: Any, where: str, signature: str) -> None:
    """What a forward names does not decide whether it is pruned.

    `generate` itself refuses arguments that the outer forward does not name, so it is asked for the inner one's only.
    """
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected, ids = logits_of(model, inputs), greedy(model, inputs, max_new_tokens=3)

    for part in {"headless": [model.model], "whole": [model], "both": [model.model, model]}[where]:
        derive(part, signature)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered) as session:
        logits = logits_of(model, inputs)
        again = greedy(model, inputs, max_new_tokens=3) if where == "headless" else ids

    assert len(session.records) == (2 if where == "headless" else 1)
    assert torch.equal(logits, expected)
    assert torch.equal(again, ids)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_session_on_a_headless_subclass_prunes(model: Any, signature: str) -> None:
    """The subclass itself is handed over, and called by itself."""
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model.model, budget=0.3, layer=1), torch.no_grad():
        expected = model.model(**inputs).last_hidden_state

    derive(model.model, signature)
    with prune_visual_tokens(model.model, budget=0.3, layer=1) as session, torch.no_grad():
        states = model.model(**inputs).last_hidden_state

    assert len(session.records) == 1
    assert torch.equal(states, expected)


def test_a_subclass_that_renames_the_ids_prunes_or_refuses(model: Any) -> None:
    """Where nobody can tell which tokens are visual, an error says so; unpruned without a word is wrong."""
    base = type(model.model)
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model.model, budget=0.3, layer=1), torch.no_grad():
        expected = model.model(**inputs).last_hidden_state
    renaming = {"forward": lambda self, tokens=None, **kwargs: base.forward(self, input_ids=tokens, **kwargs)}
    model.model.__class__ = type("Renaming", (base,), renaming)
    renamed = {"tokens" if name == "input_ids" else name: part for name, part in inputs.items()}

    with prune_visual_tokens(model.model, budget=0.3, layer=1) as session, torch.no_grad():
        try:
            states = model.model(**renamed).last_hidden_state
        except (NotImplementedError, TypeError) as error:
            reason = str(error)
            states = None

    if states is None:
        assert "input_ids" in reason
    else:
        assert len(session.records) == 1
        assert torch.equal(states, expected)


def test_a_forward_that_is_called_past_its_hooks_is_refused(model: Any) -> None:
    """Torch calls no hook for `model.forward(...)`: an unpruned forward without a word is wrong."""
    inputs = make_inputs(model, PAIR)
    text = {name: part for name, part in make_inputs(model, [(4,), (7,)]).items() if name != "mm_token_type_ids"}
    expected = pruned_logits(model, inputs)

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        with pytest.raises(NotImplementedError, match="called itself"):
            model.model.forward(**inputs)
        assert torch.equal(model.forward(**inputs).logits, expected)
        states = model.model.forward(**text).last_hidden_state

    assert len(session.records) == 1
    assert torch.equal(states, model.model(**text).last_hidden_state)


@pytest.mark.parametrize("positional", [1, 2])
def test_arguments_by_position_prune(model: Any, positional: int) -> None:
    """Ids, or ids and pixels, without their names."""
    inputs = make_inputs(model, PAIR)
    expected = pruned_logits(model, inputs)
    order = ["input_ids", "pixel_values" if "Onevision" in type(model).__name__ else "attention_mask"][:positional]
    rest = {name: part for name, part in inputs.items() if name not in order}

    with prune_visual_tokens(model, budget=0.3, layer=1), torch.no_grad():
        logits = model(*(inputs[name] for name in order), **rest).logits

    assert torch.equal(logits, expected)


def compiled(model: Any) -> Any:
    """Return the compiled model."""
    torch.compiler.reset()
    return torch.compile(model, backend="eager")


def lora(model: Any) -> Any:
    """Return the model with an adapter that changes what it says, or skip."""
    peft = pytest.importorskip("peft", reason="adapters need peft")
    torch.manual_seed(5)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    return peft.get_peft_model(model, config).eval()


@pytest.fixture
def one_process() -> Iterator[None]:
    """Open a process group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def replicated(model: Any) -> Any:
    """Return the model in DDP."""
    return nn.parallel.DistributedDataParallel(model)


WRAPPERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "PeftModel": (lora, "get_base_model|base_model"),
    "torch.compile": (compiled, "_orig_mod|compile"),
    "DataParallel": (nn.DataParallel, r"\.module"),
    "DistributedDataParallel": (replicated, r"\.module"),
    "compiled PeftModel": (lambda model: compiled(lora(model)), "_orig_mod|compile|base_model"),
}


@pytest.mark.filterwarnings("ignore")  # wrappers warn of their own parts
@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_pruned_or_the_message_says_what_to_pass(wrapper: str) -> None:
    """A session on the wrapper prunes what the wrapper computes, as a session on the model does."""
    wrap, instead = WRAPPERS[wrapper]
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    outer = wrap(model)
    inner = model  # adapters are put into the model itself
    expected = pruned_logits(inner, inputs, selector=scattered)
    unpruned = logits_of(outer, inputs)

    try:
        session = prune_visual_tokens(outer, budget=0.3, layer=1, selector=scattered)
    except TypeError as error:
        refusal, session = str(error), None
    if session is None:
        assert re.search(rf"pass .*({instead})", refusal), f"does not say what to pass: {refusal}"
        return
    with session:
        logits = logits_of(outer, inputs)
        with pytest.raises(ValueError, match="open session"):
            prune_visual_tokens(inner, budget=0.5, layer=1)

    assert len(session.records) == 1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_of(outer, inputs), unpruned, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_of(inner, inputs), unpruned, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own parts
@pytest.mark.parametrize(("way", "before"), [("torch.compile", False), ("Module.compile", True)])
def test_a_model_that_the_caller_compiled_is_pruned_or_refused(before: bool, way: str) -> None:
    """Also where it ran unpruned before the session began, and unpruned again when it has ended."""
    torch.compiler.reset()
    model: Any = FACTORIES["llava-onevision"]()
    inputs = make_inputs(model, PAIR)
    expected, unpruned = pruned_logits(model, inputs, selector=scattered), logits_of(model, inputs)
    outer = model
    if way == "torch.compile":
        outer = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
    if before:
        logits_of(outer, inputs)

    try:
        session = prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered)
    except (TypeError, NotImplementedError) as error:
        refusal, session = str(error), None
    if session is None:
        assert "compile" in refusal
        return
    with session:
        logits = logits_of(outer, inputs)

    assert len(session.records) == 1
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits_of(outer, inputs), unpruned, rtol=0, atol=1e-4)


def test_an_adapter_added_within_a_session_is_used() -> None:
    """`add_adapter` while the session is open: keys and queries are those of the adapted layer."""
    pytest.importorskip("peft", reason="adapters need peft")
    from peft import LoraConfig

    model, twin = (FACTORIES["llava-onevision"]() for _ in range(2))
    inputs = make_inputs(model, PAIR)
    config = LoraConfig(target_modules=["q_proj", "k_proj", "v_proj"], r=2, init_lora_weights=False)

    def adapt(part: Any) -> None:
        torch.manual_seed(5)
        try:
            part.add_adapter(config)
        except ValueError as error:
            pytest.skip(f"Transformers takes no adapters of the installed peft: {error}")

    adapt(twin)
    expected: Tensor = pruned_logits(twin, inputs)
    with prune_visual_tokens(model, budget=0.3, layer=1):
        adapt(model)
        assert torch.equal(logits_of(model, inputs), expected)
