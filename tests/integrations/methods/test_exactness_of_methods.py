"""Whatever a method drops at whichever stages: the rest equals the full-length model, in the prefill and after it."""

import pytest
import torch

from iwp_transformers import prune_visual_tokens
from iwp_transformers.methods import METHODS
from tests.integrations.methods.merged_reading import MERGING
from tests.integrations.methods.readings import CASES, asked_of, dropped_by, stages_forbidden
from tests.integrations.oracle import assert_close, positioned, text_rows
from tests.integrations.prompts import BOTH, PAIR
from tests.integrations.tiny_models import FACTORIES, make_inputs


@pytest.mark.parametrize("family", BOTH)
@pytest.mark.parametrize("name", CASES)
def test_a_method_is_exact_while_it_decodes(family: str, name: str) -> None:
    """Logits of the prompt's text rows, and of every token that is decoded, for a left-padded batch of two."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}

    with prune_visual_tokens(model, **asked_of(name)) as session, torch.no_grad():
        logits = model(**positioned(model, inputs)).logits
        generated = model.generate(**inputs, **options)
    prompt, record = session.records

    real = inputs["attention_mask"].bool()
    with torch.no_grad(), stages_forbidden(model, prompt, real):
        expected = model(**positioned(model, inputs), use_cache=False).logits
        truth = model.generate(**inputs, use_cache=False, **options)
    rows = text_rows(inputs, dropped_by(prompt, prompt.stages[-1], real.shape))
    assert_close(logits[rows], expected[rows])
    assert generated.sequences.tolist() == truth.sequences.tolist()
    assert_close(torch.stack(generated.logits), torch.stack(truth.logits))
    assert [kept.tolist() for kept in record.kept] == [kept.tolist() for kept in prompt.kept]


def test_the_cases_are_the_methods() -> None:
    """No method is left out; those that merge have a reading of their own."""
    assert set(CASES) == set(METHODS) - MERGING
