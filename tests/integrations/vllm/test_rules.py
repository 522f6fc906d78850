"""The choice: layers that run beside the cache, and what rules make of them, against Transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from iwp_transformers import prune_visual_tokens
from iwp_transformers.presets import PRESETS
from iwp_vllm.decoder import look
from iwp_vllm.rules import RULES, Rule, rule_named
from iwp_vllm.seen import Heads, Seen
from tests.integrations.tiny_models import TEXT, Image, llava_onevision, make_inputs

VISUAL = slice(3, 20)


class VllmLayer(nn.Module):
    """A layer of Transformers' Qwen2 with the parts that vLLM's has: one projection, results with their bias apart."""

    def __init__(self, model: Any, layer: Any) -> None:
        super().__init__()
        self.layer, self.rotary = layer, model.rotary_emb
        self.input_layernorm, self.post_attention_layernorm = (
            self._norm(layer.input_layernorm),
            layer.post_attention_layernorm,
        )
        self.mlp, self.self_attn = layer.mlp, self
        source = layer.self_attn
        self.head_dim, self.scaling = source.head_dim, source.scaling
        self.q_size, self.kv_size = source.q_proj.out_features, source.k_proj.out_features

    @staticmethod
    def _norm(norm: Any) -> Any:
        def overwriting(hidden: Tensor) -> Tensor:
            """Write into the input, as vLLM's fused norms may."""
            normed = norm(hidden).clone()
            hidden.zero_()
            return normed

        return overwriting

    def qkv_proj(self, hidden: Tensor) -> tuple[Tensor, None]:
        """Project to all three in one row."""
        source = self.layer.self_attn
        return torch.cat([part(hidden) for part in (source.q_proj, source.k_proj, source.v_proj)], dim=-1), None

    def o_proj(self, hidden: Tensor) -> tuple[Tensor, None]:
        """Project back."""
        return self.layer.self_attn.o_proj(hidden), None

    def rotary_emb(self, positions: Tensor, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate rows of all heads."""
        cos, sin = (part[0, :, None] for part in self.rotary(queries[None], positions[None]))
        turned = []
        for rows in (queries, keys):
            heads = rows.unflatten(-1, (-1, self.head_dim))
            first, second = heads.chunk(2, dim=-1)
            turned.append((heads * cos + torch.cat([-second, first], dim=-1) * sin).flatten(1))
        return turned[0], turned[1]


@pytest.fixture(scope="module")
def decoder() -> Any:
    """Make a random Qwen2 in Transformers, whose attention can be read."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**TEXT, attn_implementation="eager")).eval()


def layers_of(decoder: Any) -> list[VllmLayer]:
    """Return its layers in vLLM's manner."""
    return [VllmLayer(decoder.model, layer) for layer in decoder.model.layers]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_enters_a_layer_is_what_transformers_computes(decoder: Any, depth: int) -> None:
    """States, and the attention of the last token in the layer before."""
    hidden, positions = torch.randn(24, TEXT["hidden_size"]), torch.arange(24)

    with torch.no_grad():
        seen = look(layers_of(decoder), hidden.clone(), positions, VISUAL, depth=depth)
        wanted = decoder.model(inputs_embeds=hidden[None], output_hidden_states=True, output_attentions=True)

    torch.testing.assert_close(seen.hidden, wanted.hidden_states[depth][0], rtol=1e-4, atol=1e-5)
    if depth:
        torch.testing.assert_close(seen.last_attention, wanted.attentions[depth - 1][0, :, -1], rtol=1e-4, atol=1e-5)


def test_the_attention_before_layer_zero_is_refused(decoder: Any) -> None:
    """There is none."""
    seen = look(layers_of(decoder), torch.randn(24, TEXT["hidden_size"]), torch.arange(24), VISUAL, depth=0)

    with pytest.raises(ValueError, match="`layer` is 0"):
        _ = seen.last_attention


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("iwp", {"layer": 2}),
        ("iwp", {"layer": 1, "query": "last_text", "magnitude": "kernel", "heads": "softmax_mean"}),
        ("iwp", {"layer": 3, "similarity": "hidden", "rope_in_magnitude": True, "rope_in_duplication": False}),
        ("iwp", {"layer": 2, "preset": "per-query"}),
        ("iwp", {"layer": 2, "preset": "above-chance"}),
        ("divprune", {"layer": 0}),
        ("fastv", {"layer": 2}),
        ("trimtokenator", {"layer": 0}),
        ("uniform", {"layer": 0}),
    ],
    ids=str,
)
def test_a_rule_keeps_what_it_keeps_in_transformers(method: str, options: dict[str, Any]) -> None:
    """The same tokens as a session there, from layers that run beside the cache."""
    model = llava_onevision()
    inputs = make_inputs(model, [[5, 6, Image(), 7, 8, 9]])
    layer = options["layer"]
    own = {"method": method} if method != "iwp" else {key: value for key, value in options.items() if key != "layer"}
    if "preset" in own:
        own |= PRESETS[own.pop("preset")]
    entered: list[Tensor] = []
    language = model.model.language_model
    hook = language.register_forward_pre_hook(
        lambda *call: entered.append(call[2]["inputs_embeds"][0].clone()), with_kwargs=True
    )
    with torch.no_grad(), prune_visual_tokens(model, budget=9, layer=layer, **own) as session:
        model(**inputs)
    hook.remove()
    visual = session.records[-1].visual[0]

    rule = rule_named(method, options)
    layers: Any = [VllmLayer(language, each) for each in language.layers]
    where = slice(int(visual[0]), int(visual[-1]) + 1)
    with torch.no_grad():
        seen = look(layers, entered[0], torch.arange(len(entered[0])), where, depth=layer)
        kept = rule(seen, 9)

    assert kept.tolist() == session.records[-1].kept_indices[0].tolist()


def fixed(source: bytes = b"", rows: int = 24) -> Seen:
    """Return what a rule sees of random states."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(heads, rows, 8, generator=generator) for heads in (4, 4, 2, 2, 2)]
    heads = Heads(**dict(zip(("queries", "rotated_queries", "keys", "rotated_keys", "values"), parts, strict=True)))
    hidden = torch.randn(rows, 16, generator=generator)
    return Seen(
        hidden=hidden, visual=VISUAL, heads=lambda: heads, attention_before=lambda: torch.rand(4, rows), source=source
    )


@pytest.mark.parametrize("rule", [rule() for rule in RULES.values()], ids=lambda rule: rule.name)
def test_every_rule_keeps_so_many_in_order(rule: Rule) -> None:
    """The count was announced before anything was seen; kept tokens stay in order."""
    kept = rule(fixed(), 6)

    assert kept.shape == (6,)
    assert (kept.diff() > 0).all()
    assert int(kept[0]) >= 0
    assert int(kept[-1]) < VISUAL.stop - VISUAL.start


def test_a_rule_of_the_image_alone_reads_no_text() -> None:
    """Other queries and states of the text change nothing."""
    rule = rule_named("iwp", {"query": "image"})
    seen = fixed()
    before = rule(seen, 6)
    seen.queries[:, VISUAL.stop :] = 9.0

    assert torch.equal(rule(seen, 6), before)


def test_random_tokens_hang_on_the_image() -> None:
    """The same image draws the same tokens, another one others."""
    rule = rule_named("random", {"seed": 1})

    assert torch.equal(rule(fixed(b"a"), 6), rule(fixed(b"a"), 6))
    assert not torch.equal(rule(fixed(b"a"), 6), rule(fixed(b"b"), 6))


@pytest.mark.parametrize(
    ("rows", "question"), [(24, slice(20, 24)), (20, slice(0, 3))], ids=["text behind", "text before only"]
)
def test_the_question_is_the_text_behind_the_image_or_else_before_it(rows: int, question: slice) -> None:
    """As in Transformers."""
    assert fixed(rows=rows).question == question
