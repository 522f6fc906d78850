"""A model without a file of its own is served by what its configuration, signature and decoder say, or told why not."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from iwp_transformers import family_of, inspect_model, prune_visual_tokens
from iwp_transformers.families import _inference
from tests.integrations.test_exactness import scattered
from tests.models.factory import CLASSES, tiny_config


def empty(model_type: str, **changes: Any) -> nn.Module:
    """Return a tiny model without values of its weights, with other entries in its decoder's configuration."""
    config = tiny_config(model_type)
    for name, value in changes.items():
        setattr(config.get_text_config(), name, value)
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, CLASSES[model_type])(config)
    return model


@pytest.mark.filterwarnings("ignore")
def test_an_inferred_family_warns_once_for_each_class_and_names_what_it_found() -> None:
    """The second session of the class is quiet."""
    _inference._warn_once.cache_clear()
    model = empty("llava")

    with pytest.warns(UserWarning, match=r"pixel_values at `image_token_i\w+`, decoded by LlamaModel"):
        prune_visual_tokens(model, budget=0.5, layer=1).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune_visual_tokens(model, budget=0.5, layer=1).close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["llava", "qwen3_vl", "gemma3"])
def test_a_model_without_its_head_is_inferred_too(model_type: str) -> None:
    """What is found is the same."""
    model: Any = empty(model_type)

    assert family_of(model).media == family_of(model.model).media
    assert family_of(model).stacks(model)[1] is family_of(model.model).stacks(model.model)[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "missing"),
    [
        ("mllama", "reads images by cross-attention"),
        ("florence2", "an encoder reads its images"),
        ("git", "its configuration has none of `image_token_id`"),
        ("blip-2", "past the model that knows which of them are visual"),
    ],
)
def test_what_cannot_be_told_is_a_type_error_that_says_what_is_missing(model_type: str, missing: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(TypeError, match=missing):
        prune_visual_tokens(empty(model_type), budget=0.5, layer=1)


@pytest.mark.filterwarnings("ignore")
def test_pictures_of_a_family_are_refused_where_nobody_knows_where_its_tokens_look() -> None:
    """Nothing is guessed."""
    model: Any = empty("aria")

    with pytest.raises(NotImplementedError, match="its kept tokens cannot be drawn"):
        family_of(model).regions(model.config, {}, 0)


@pytest.mark.filterwarnings("ignore")
def test_features_without_a_placeholder_are_refused_when_they_come() -> None:
    """A model may take videos of which its configuration does not say where they go."""
    if "minicpmv4_6" not in CLASSES:
        pytest.skip("this version of Transformers has no such model")
    model: Any = empty("minicpmv4_6")
    family = family_of(model)

    assert "pixel_values_videos" in family.bringers
    with pytest.raises(NotImplementedError, match="`pixel_values_videos` came, but the configuration names no"):
        family.placeholders(model.config, {"pixel_values_videos": torch.zeros(1)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model_type", "changes", "reason"),
    [
        ("gemma3", {"layer_types": ["full_attention", "full_attention", "hybrid", "full_attention"]}, "use hybrid"),
        ("gemma4", {"num_kv_shared_layers": 2}, "share keys and values"),
    ],
)
def test_layers_that_are_not_known_to_be_exact_are_refused(
    model_type: str, changes: dict[str, Any], reason: str
) -> None:
    """The message says which."""
    model: Any = empty(model_type)
    for name, value in changes.items():
        setattr(model.model.language_model.config, name, value)

    with pytest.raises(NotImplementedError, match=reason):
        prune_visual_tokens(model, budget=0.5, layer=2)


@pytest.mark.filterwarnings("ignore")
def test_a_recurrent_layer_cannot_hide_tokens_or_be_read() -> None:
    """Both messages name the layers that can."""
    model = empty("qwen3_5")

    with pytest.raises(NotImplementedError, match="expected `layer` >= 1"):
        prune_visual_tokens(model, budget=0.5, layer=0)
    with pytest.raises(NotImplementedError, match="use `layer` 1, 3, or a `selector`"):
        prune_visual_tokens(model, budget=0.5, layer=2)
    prune_visual_tokens(model, budget=0.5, layer=2, selector=scattered).close()


@pytest.mark.filterwarnings("ignore")
def test_a_folder_is_inspected_by_its_configuration_alone(tmp_path: Path) -> None:
    """There are no weights in it."""
    config = tiny_config("qwen3_5")
    config.architectures = ["Qwen3_5ForConditionalGeneration"]
    config.save_pretrained(tmp_path)

    report = inspect_model(tmp_path)

    assert report.inferred
    assert report.pictures
    assert [medium.name for medium in report.media] == ["image", "video"]
    assert report.removals == {1: 2, 2: 2, 3: 3}
    assert report.unreadable == (2,)
    assert list(report.refusals or {}) == [0]
    assert "layers      1 to 3 can prune" in str(report)


@pytest.mark.filterwarnings("ignore")
def test_an_inspected_model_that_is_refused_says_why() -> None:
    """Nothing is raised, so that many can be listed."""
    report = inspect_model(empty("mllama"))

    assert "cross-attention" in report.refused
    assert "refused" in str(report)


def test_a_known_family_is_inspected_as_such() -> None:
    """It has pictures, and a model with values is taken as well."""
    config = tiny_config("qwen2_5_vl")

    report = inspect_model(config)

    assert not report.inferred
    assert report.pictures
    assert report.removals == {0: 1, 1: 1, 2: 2, 3: 3}
