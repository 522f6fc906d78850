"""The step that `generate` compiles on a static cache is one graph with pruning as without, and reads no value."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CompileConfig

from iwp_transformers import prune_visual_tokens
from tests.integrations.prompts import BOTH, PAIR, greedy
from tests.integrations.test_exactness import scattered
from tests.integrations.tiny_models import FACTORIES, Image, make_inputs

SEVERAL = [(3, Image(), 4), (2, Image(32, 16), 6), (5, Image(16, 16), 9)]
pytestmark = pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own parts


@dataclass
class Counting:
    """A backend that runs graphs as they are, and counts them."""

    graphs: list[torch.fx.GraphModule] = field(default_factory=list)

    def __deepcopy__(self, memo: object) -> "Counting":
        """Return the counter itself: Transformers hands a copy of its configuration to the compiler."""
        return self

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        """Count one."""
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Forget what other tests compiled."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def compiled(model: Any, inputs: dict[str, Any], backend: Any, **options: Any) -> Tensor:
    """Generate with compiled steps on a static cache."""
    config = CompileConfig(backend=backend, mode=None, **options)
    config._compile_all_devices = True
    return greedy(model, inputs, cache_implementation="static", compile_config=config)


def graphs_and_breaks(model: Any, inputs: dict[str, Any], **pruning: Any) -> tuple[int, int, Tensor]:
    """Return how many graphs and breaks the steps of one generation are made of, and its ids."""
    torch.compiler.reset()
    counters.clear()
    backend = Counting()
    if not pruning:
        ids = compiled(model, inputs, backend)
    else:
        with prune_visual_tokens(model, **pruning):
            ids = compiled(model, inputs, backend)
    return len(backend.graphs), sum(counters["graph_break"].values()), ids


@pytest.mark.parametrize(
    ("family", "layer", "attention"),
    [(BOTH[0], 0, "sdpa"), (BOTH[0], 2, "eager"), (BOTH[1], 0, "eager"), (BOTH[1], 2, "sdpa")],
)
def test_a_pruned_step_has_no_more_graphs_and_breaks_than_an_unpruned_one(
    family: str, layer: int, attention: str
) -> None:
    """One graph, no break, and the ids of the step that is not compiled."""
    model = FACTORIES[family](num_hidden_layers=3)
    model.set_attn_implementation(attention)
    inputs = make_inputs(model, PAIR)
    pruning = {"budget": 0.3, "layer": layer, "selector": scattered}
    full_graphs, full_breaks, _ = graphs_and_breaks(model, inputs)

    graphs, breaks, ids = graphs_and_breaks(model, inputs, **pruning)

    assert full_graphs >= 1, "nothing was compiled: this test sees nothing"
    assert graphs <= full_graphs
    assert breaks <= full_breaks
    with prune_visual_tokens(model, **pruning):
        assert torch.equal(ids, greedy(model, inputs))


@pytest.mark.parametrize("family", BOTH)
def test_a_pruned_step_compiles_as_a_whole(family: str) -> None:
    """`fullgraph=True` allows neither a break nor a value read off the device."""
    model = FACTORIES[family](num_hidden_layers=2)
    inputs = make_inputs(model, PAIR)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        ids = compiled(model, inputs, "eager", fullgraph=True)
        assert torch.equal(ids, greedy(model, inputs))


@pytest.mark.parametrize("family", BOTH)
def test_prompts_of_several_lengths_share_compiled_steps_in_one_session(family: str) -> None:
    """No more graphs are compiled for three prompts than without pruning, and each answer is right."""
    model = FACTORIES[family](num_hidden_layers=2)
    prompts = [make_inputs(model, [prompt]) for prompt in SEVERAL]
    plain, pruned = Counting(), Counting()
    for inputs in prompts:
        compiled(model, inputs, plain, fullgraph=True)

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected = [greedy(model, inputs) for inputs in prompts]
        answers = [compiled(model, inputs, pruned, fullgraph=True) for inputs in prompts]

    assert all(torch.equal(*pair) for pair in zip(answers, expected, strict=True))
    assert len(pruned.graphs) <= len(plain.graphs)


def test_many_sessions_do_not_run_into_the_limit_of_recompilation() -> None:
    """More sessions than the limit, one after the other, compile their steps; none falls back or answers wrongly."""
    model = FACTORIES["llava-onevision"](num_hidden_layers=2)
    inputs = make_inputs(model, PAIR)
    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected = greedy(model, inputs)

    for _ in range(torch._dynamo.config.recompile_limit + 1):
        backend = Counting()
        with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
            assert torch.equal(compiled(model, inputs, backend, fullgraph=True), expected)
        assert backend.graphs


def test_unpruned_text_and_pruned_prompts_take_turns_in_compiled_steps() -> None:
    """Compiled code of the one is not run for the other."""
    model = FACTORIES["llava-onevision"]()
    text, image = make_inputs(model, [(9,)]), make_inputs(model, [PAIR[0]])
    backend = Counting()

    with prune_visual_tokens(model, budget=0.3, layer=1, selector=scattered):
        expected = [greedy(model, inputs) for inputs in (text, image)]
        for inputs, true in zip((text, image, text, image), expected * 2, strict=True):
            assert torch.equal(compiled(model, inputs, backend), true)


class Reads(TorchDispatchMode):
    """Counts values read off the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what waits for the device: numbers, and shapes that depend on data."""
        name = function.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "is_nonzero")
        return function(*args, **(kwargs or {}))


def reads_of(model: Any, inputs: dict[str, Any], new: int, **options: Any) -> int:
    """Return how many values a generation reads."""
    with Reads() as reads:
        greedy(model, inputs, max_new_tokens=new, **options)
    return reads.count


@pytest.mark.parametrize("cache", ["static", "dynamic"])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", BOTH)
def test_a_step_reads_no_more_values_off_the_device_than_without_pruning(family: str, layer: int, cache: str) -> None:
    """Each read makes a GPU wait; three more tokens cost as many with pruning as without."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    options = {"cache_implementation": cache}
    full = reads_of(model, inputs, 6, **options) - reads_of(model, inputs, 3, **options)

    with prune_visual_tokens(model, budget=0.3, layer=layer, selector=scattered):
        pruned = reads_of(model, inputs, 6, **options) - reads_of(model, inputs, 3, **options)

    assert pruned <= full


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("family", BOTH)
def test_static_layers_behind_the_pruned_one_are_allocated_shorter(family: str, layer: int) -> None:
    """Room is kept for what they will hold, so that compiled steps save memory and time too."""
    model: nn.Module = FACTORIES[family]()
    inputs = make_inputs(model, [(3, *([Image(32, 32)] * 40), 4)])
    options = {"cache_implementation": "static", "return_dict_in_generate": True}

    with prune_visual_tokens(model, budget=0.1, layer=layer, selector=scattered) as session:
        output: Any = greedy(model, inputs, **options)
        second: Any = greedy(model, inputs, **options)

    record = session.records[-1]
    lengths = [part.keys.shape[-2] for part in output.past_key_values.layers]
    assert lengths[:layer] == [lengths[0]] * layer
    assert all(record.padded_pruned + 4 <= length < lengths[0] for length in lengths[layer:])
    assert [part.keys.shape[-2] for part in second.past_key_values.layers] == lengths
