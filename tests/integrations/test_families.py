"""A family is a few lines: which classes, which placeholders, where its tokens look."""

import inspect

import pytest
import torch
import transformers

from iwp_transformers import family_of, prune_visual_tokens
from iwp_transformers.families import FAMILIES, Family, supported_models
from tests.integrations.tiny_models import FACTORIES, Image, Video, make_inputs


@pytest.mark.parametrize("name", supported_models())
def test_every_served_class_exists_in_transformers(name: str) -> None:
    """Classes are told by name, so the names must be right."""
    assert inspect.isclass(getattr(transformers, name))


def test_every_family_has_a_miniature_and_no_class_has_two() -> None:
    """Each family is tested, and a model belongs to one."""
    tested = [family_of(factory()) for factory in FACTORIES.values()]
    # `tests/models` holds the others, which have no pictures, to the truth.
    with_pictures = [family for family in FAMILIES if family.regions is not Family.regions]

    assert sorted(map(id, tested)) == sorted(map(id, with_pictures))
    assert len(set(supported_models())) == len(supported_models())


@pytest.mark.parametrize("family", FACTORIES)
def test_a_family_places_every_visual_token_of_a_record(family: str) -> None:
    """There is one region for each visual token, so kept tokens can be drawn."""
    model = FACTORIES[family]()
    video = () if family == "llava-next" else (Video(), 3)
    inputs = make_inputs(model, [(3, Image(), 4, Image(16, 16), 5), (2, *video, Image(32, 16), 6)])

    with prune_visual_tokens(model, budget=0.3, layer=1) as session, torch.no_grad():
        model(**inputs)

    for sample, visual in enumerate(session.records[-1].visual):
        assert len(family_of(model).regions(model.config, inputs, sample)) == len(visual)
