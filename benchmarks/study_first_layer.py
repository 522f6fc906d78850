"""What dropping tokens before the first layer leaves to win: positions, questions, and an upper bound.

Engines that hold the same tokens in every layer drop them before layer 0. On validation questions to the trained
miniatures, this runs Transformers' decoder on the kept rows alone, at the positions of the whole prompt and counted
anew, for rules that read the image, rules that read the question, and one that is told which digits are asked for.
Run: ``python benchmarks/study_first_layer.py``.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _harness import PRESET, header, write
from accuracy_evaluation import with_features
from accuracy_rules import shows_what_is_asked
from answers import Flags, paired_difference
from torch import Tensor

from iwp_core.methods import divprune
from iwp_core.methods.divprune import divprune_order
from iwp_miniature import ARCHITECTURES, Example, Miniature, draw_examples, in_batches, load_miniature
from iwp_transformers import LayerView, family_of, prune_visual_tokens
from iwp_transformers.presets import ABOVE_CHANCE, PER_QUERY

BUDGET, LAYER, BATCH = 0.222, 2, 30
BASE = "DivPrune"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question, as it enters the decoder and as its first layers see it.

    Parameters
    ----------
    example : Example
    inputs : torch.Tensor
        Shape (T, E): embeddings of the prompt.
    positions : torch.Tensor
        Shape (A, T): positions on each axis.
    visual : slice
        Rows of the N visual tokens.
    attention : sequence of torch.Tensor
        Shape (T, T) each: mean over heads, of the layers before the one that chooses.
    magnitude : torch.Tensor
        Shape (N,): the per-query magnitude at the layer that chooses.
    kept : mapping of str to torch.Tensor
        What sessions of Transformers keep.
    wanted : torch.Tensor
        Shape (N,), bool: tokens of the digits that the question is about.
    """

    example: Example
    inputs: Tensor
    positions: Tensor
    visual: slice
    attention: Sequence[Tensor]
    magnitude: Tensor
    kept: Mapping[str, Tensor]
    wanted: Tensor

    @property
    def embeddings(self) -> Tensor:
        """Shape (N, E)."""
        return self.inputs[self.visual]

    @property
    def count(self) -> int:
        """M."""
        return len(self.kept[PRESET])


def flowed_back(asked: Asked) -> Tensor:
    """Return the importance of the inputs, shape (N,), by attention rollout (Abnar and Zuidema, arXiv 2005.00928).

    At the layer that chooses, candidates weigh as their magnitude, and the question half as much as all of them. Each
    layer before hands half of a token's weight back to itself, and half to what it attends to.
    """
    weight = torch.zeros(len(asked.inputs))
    weight[asked.visual] = asked.magnitude / asked.magnitude.sum()
    weight[asked.visual.stop :] = 0.5 / (len(weight) - asked.visual.stop)
    for attention in reversed(asked.attention):
        weight = 0.5 * weight + 0.5 * weight @ attention
    return weight[asked.visual]


def _different_inputs(asked: Asked, magnitude: Tensor) -> Tensor:
    """Choose by a magnitude and the duplication of embeddings above chance."""
    units = torch.nn.functional.normalize(asked.embeddings, dim=-1)
    squared = (units @ units.T).clamp(min=0).square()
    logs = (magnitude / magnitude.max()).log()
    chosen: Tensor = ABOVE_CHANCE["strategy"].select(logs, lambda rows, columns: squared[rows][:, columns], asked.count)
    return chosen.sort().values


def _told(asked: Asked) -> Tensor:
    """Keep the digits asked for, and fill up by DivPrune."""
    order = divprune_order(asked.embeddings, len(asked.wanted))
    return torch.cat([order[asked.wanted[order]], order[~asked.wanted[order]]])[: asked.count].sort().values


RULES: Mapping[str, Callable[[Asked], Tensor]] = {
    BASE: lambda asked: divprune(asked.embeddings, asked.count),
    PRESET: lambda asked: asked.kept[PRESET],
    "hidden states above chance": lambda asked: asked.kept["hidden states above chance"],
    "embeddings above chance": lambda asked: _different_inputs(asked, asked.magnitude),
    "embeddings above chance, magnitude rolled back": lambda asked: _different_inputs(asked, flowed_back(asked)),
    "told which digits are asked for": _told,
    "all tokens": lambda asked: torch.arange(len(asked.wanted)),
}
SESSIONS: Mapping[str, Mapping[str, Any]] = {
    PRESET: PER_QUERY,
    "hidden states above chance": ABOVE_CHANCE,
}


def prepared(miniature: Miniature, examples: Sequence[Example]) -> list[Asked]:
    """Run the model over all questions once."""
    miniature.model.set_attn_implementation("eager")
    return [asked for batch in in_batches(examples, BATCH) for asked in _prepared(miniature, batch)]


def _prepared(miniature: Miniature, batch: Sequence[Example]) -> list[Asked]:
    model = miniature.model
    inputs = miniature.encode([each.scene.image for each in batch], [each.question.text for each in batch])
    regions = family_of(model).regions(model.config, inputs, 0)
    inputs = with_features(model, inputs)
    entered: list[dict[str, Any]] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda _module, _arguments, named: entered.append(named), with_kwargs=True
    )
    with torch.no_grad():
        attention = model.model(**inputs, output_attentions=True).attentions[:LAYER]
    hook.remove()
    kept, magnitudes = _sessions(model, inputs)
    found = []
    for row, example in enumerate(batch):
        real = inputs["attention_mask"][row].bool()
        visual = (inputs["input_ids"][row][real] == model.config.image_token_id).nonzero()[:, 0]
        told = entered[0].get("position_ids")
        plain = torch.arange(int(real.sum()))[None]
        found.append(
            Asked(
                example=example,
                inputs=entered[0]["inputs_embeds"][row][real],
                positions=plain if told is None or told.dim() == 2 else told[-3:, row][:, real],  # noqa: PLR2004 - no axes
                visual=slice(int(visual[0]), int(visual[-1]) + 1),
                attention=[each[row][:, real][:, :, real].mean(0) for each in attention],
                magnitude=magnitudes[row],
                kept={name: rows[row] for name, rows in kept.items()},
                wanted=shows_what_is_asked(example, regions),
            )
        )
    return found


def _sessions(model: Any, inputs: dict[str, Any]) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """Return what sessions keep, and the magnitude of each sample."""
    kept, magnitudes = {}, []

    def measuring(view: LayerView) -> Tensor:
        keys, queries = view.scaled(view.visual.rotated_keys), view.scaled(view.question.rotated_queries)
        group = queries.shape[0] // keys.shape[0]
        logits = queries @ keys.repeat_interleave(group, 0).transpose(1, 2) / keys.shape[-1] ** 0.5
        carried = view.visual.values.norm(dim=-1).log().repeat_interleave(group, 0)
        magnitudes.append((logits + carried[:, None]).softmax(-1).mean((0, 1)))
        return torch.arange(view.budget)

    with torch.no_grad():
        for name, options in SESSIONS.items():
            with prune_visual_tokens(model, budget=BUDGET, layer=LAYER, **options) as session:
                model(**inputs)
            kept[name] = list(session.records[-1].kept_indices)
        with prune_visual_tokens(model, budget=BUDGET, layer=LAYER, selector=measuring):
            model(**inputs)
    return kept, magnitudes


def right(miniature: Miniature, questions: Sequence[Asked], kept: Sequence[Tensor], *, anew: bool) -> Flags:
    """Tell which questions are answered right from the kept rows, positions counted `anew` or those they had."""
    model = miniature.model
    groups = defaultdict(list)
    for index, (asked, chosen) in enumerate(zip(questions, kept, strict=True)):
        stays = torch.ones(len(asked.inputs), dtype=torch.bool)
        stays[asked.visual] = False
        stays[chosen + asked.visual.start] = True
        groups[int(stays.sum())].append((index, stays))
    flags = np.zeros(len(questions), dtype=bool)
    for length, group in groups.items():
        rows = torch.stack([questions[index].inputs[stays] for index, stays in group])
        positions = torch.stack([questions[index].positions[:, stays] for index, stays in group], dim=1)
        positions = torch.arange(length).expand_as(positions) if anew else positions
        # A mask says that positions with gaps are one sequence.
        named = {"attention_mask": torch.ones(rows.shape[:2], dtype=torch.int64), "use_cache": False}
        with torch.no_grad():
            states = model.model.language_model(
                inputs_embeds=rows, position_ids=positions.squeeze(0) if len(positions) == 1 else positions, **named
            )
            words = miniature.tokenizer.batch_decode(model.lm_head(states.last_hidden_state[:, -1:]).argmax(-1))
        for (index, _), word in zip(group, words, strict=True):
            flags[index] = word.strip() == questions[index].example.question.answer
    return flags


def measured(name: str, per_kind: int) -> dict[str, Any]:
    """Return the answers to one miniature under every rule, and the differences to DivPrune, in points."""
    miniature = load_miniature(name)
    questions = prepared(
        miniature, draw_examples(miniature.architecture, split="validation", per_kind=per_kind, seed=1)
    )
    kept = {rule: [choose(asked) for asked in questions] for rule, choose in RULES.items()}
    told: dict[str, Any] = {}
    for anew in (False, True):
        flags = {rule: right(miniature, questions, chosen, anew=anew) for rule, chosen in kept.items()}
        told["positions counted anew" if anew else "positions of the whole prompt"] = {
            rule: {"right": int(mine.sum()), "above_divprune": paired_difference(mine, flags[BASE])}
            for rule, mine in flags.items()
        }
    return {"questions": len(questions), **told}


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-kind", type=int, default=20, help="questions a kind and style of scene (18 of them)")
    per_kind = parser.parse_args(given).per_kind
    command = f"python benchmarks/study_first_layer.py --per-kind {per_kind}"
    conditions = {"split": "validation", "budget": BUDGET, "layer": LAYER, "dtype": "float32"}
    result = header(command, **conditions) | {"miniatures": {name: measured(name, per_kind) for name in ARCHITECTURES}}
    write("first_layer", result)


if __name__ == "__main__":
    main()
