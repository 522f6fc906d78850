"""Which visual token is made of which patch, and what of the vision tower a rule may read."""

import inspect
import threading
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from iwp_transformers import LayerView, prune_visual_tokens
from iwp_transformers.hooks import Hook
from tests.integrations.methods.towers import SIDE, eager_tower, read_tower
from tests.integrations.prompts import BOTH, PAIR, greedy
from tests.integrations.tiny_models import (
    FACTORIES,
    IMAGE_ID,
    Image,
    Video,
    llava_next,
    llava_onevision,
    make_inputs,
    seeded,
)

SHRUNK = "llava-onevision, shrunk"


class Reading:
    """A rule that writes down what it sees of the tower, and keeps the first tokens."""

    reads = ("vision tower",)

    def __init__(self) -> None:
        self.attention: list[Tensor] = []
        self.features: list[Tensor] = []
        self.states: list[Tensor] = []
        self.views: list[Any] = []

    def __call__(self, view: LayerView) -> Tensor:
        """Return the first indices."""
        self.attention.append(view.tower.attention())
        self.features.append(view.tower.features)
        self.states.append(view.visual.hidden)
        self.views.append(view.tower)
        return torch.arange(view.budget)


def read(model: nn.Module, inputs: dict[str, Any]) -> Reading:
    """Return what a rule reads in one forward."""
    rule = Reading()
    with prune_visual_tokens(model, budget=0.3, layer=0, selector=rule), torch.no_grad():
        model(**inputs)
    return rule


def without_mixing(name: str) -> Any:
    """Return a miniature whose tower's patches do not see each other."""
    model: Any = FACTORIES["llava-onevision" if name == SHRUNK else name]()
    if name == SHRUNK:
        model.config.vision_aspect_ratio = "anyres_max_1"
    for part, weights in model.named_parameters():
        if ("vision_tower" in part and "out_proj" in part) or ("visual" in part and "attn.proj" in part):
            weights.data.zero_()
    return model


def changed_rows(before: list[Tensor], after: list[Tensor]) -> list[list[int]]:
    """Return which rows of each sample differ."""
    return [((a - b).abs().amax(1) > 1e-6).nonzero().squeeze(1).tolist() for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("name", [*FACTORIES, SHRUNK])
def test_a_patch_moves_the_features_of_those_tokens_whose_embeddings_it_moves(name: str) -> None:
    """With attention silenced, a change of one patch's pixels shows which tokens the model makes of it."""
    model = without_mixing(name)
    inputs = make_inputs(model, [(3, Image(), 4), (2, Image(32, 16), 6)])
    first = read(model, inputs)
    pixels = inputs["pixel_values"].shape
    moved = []

    for patch in range(0, pixels[0] if len(pixels) == 2 else pixels[0] * pixels[1] * SIDE**2, 11):
        changed = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
        if len(pixels) == 2:
            changed["pixel_values"][patch] += 1
        else:
            tile, place = divmod(patch, SIDE**2)
            row, column = (4 * each for each in divmod(place, SIDE))
            changed["pixel_values"].flatten(0, 1)[tile, :, row : row + 4, column : column + 4] += 1
        second = read(model, changed)
        own = changed_rows(first.states, second.states)
        assert changed_rows(first.features, second.features) == own
        moved.append(sum(map(len, own)))

    assert max(moved) > 0
    # Six by eight patches become three by four tokens, each row with a newline.
    assert (len(first.states[0]) == SIDE**2 + 3 * 5) == (name == SHRUNK)


@pytest.mark.parametrize("family", [*BOTH, "llava-next"])
def test_a_rule_reads_what_an_eager_tower_computes(family: str) -> None:
    """Attention by head and by whole queries, keys and features, of images, tiles and windows of a batch of two."""
    model = FACTORIES[family]()
    inputs = make_inputs(model, PAIR)

    rule = read(model, inputs)

    for view, own in zip(rule.views, read_tower(model, inputs), strict=True):
        torch.testing.assert_close(view.attention(), own.attention)
        torch.testing.assert_close(view.attention("last", split_heads=False)[0], own.whole_attention)
        torch.testing.assert_close(view.keys(), own.keys.transpose(0, 1))
        torch.testing.assert_close(view.features, own.features)
        torch.testing.assert_close(view.projected, own.states)
        assert view.source.tolist() == own.view.tolist()
        assert view.has_patch.tolist() == (own.view >= 0).tolist()


@pytest.mark.filterwarnings("ignore")  # the family of LLaVA-1.5 is inferred, which is said once
def test_llava_reads_the_layer_that_its_features_come_from() -> None:
    """Attention of the last layer but one where the configuration says so, and of the last where it is asked for."""
    inner = llava_next().config
    config = transformers.LlavaConfig(
        vision_config={**inner.vision_config.to_dict(), "num_hidden_layers": 3},
        text_config=inner.text_config,
        image_token_index=IMAGE_ID,
        vision_feature_layer=-2,
    )
    model: Any = seeded(transformers.LlavaForConditionalGeneration(config))
    ids = torch.tensor([[1] + [IMAGE_ID] * 2 * SIDE**2 + [5, 6], [1, 7] + [IMAGE_ID] * SIDE**2 + [8] * (SIDE**2 + 1)])
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    tower = eager_tower(model)
    with torch.no_grad():
        output = tower(pixels, output_attentions=True, output_hidden_states=True)
    received, last = (output.attentions[layer][:, :, 0, 1:].transpose(1, 2).flatten(0, 1).T for layer in (-2, -1))
    features = output.hidden_states[-2][:, 1:].flatten(0, 1)

    rule = read(model, inputs)

    torch.testing.assert_close(torch.cat(rule.attention, dim=1), received)
    torch.testing.assert_close(torch.cat([view.attention("last") for view in rule.views], dim=1), last)
    torch.testing.assert_close(torch.cat(rule.features), features)
    assert [view.source.unique().tolist() for view in rule.views] == [[0, 1], [2]]


@pytest.mark.parametrize("family", FACTORIES)
def test_features_behind_the_projector_are_the_embeddings(family: str) -> None:
    """Images and videos of one prompt do not change places."""
    model = FACTORIES[family]()
    video = () if family == "llava-next" else (Video(), 3)
    rule = read(model, make_inputs(model, [(3, *video, Image(16, 16), 2), (2, Image(16, 32), 9)]))

    for view, states in zip(rule.views, rule.states, strict=True):
        torch.testing.assert_close(view.projected, states)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}], ids=["cache", "beams", "no cache"])
@pytest.mark.parametrize("family", BOTH)
def test_generate_reads_what_a_forward_reads(family: str, options: dict[str, Any]) -> None:
    """Images may be encoded ahead of the forward, and samples be repeated."""
    model: Any = FACTORIES[family]()
    inputs = make_inputs(model, [(3, Image(), 4), (2, Image(32, 16), 6)])
    expected = read(model, inputs)
    rule = Reading()

    with prune_visual_tokens(model, budget=0.3, layer=0, selector=rule):
        greedy(model, inputs, **options)

    each = len(rule.attention) // 2
    for seen, own in zip(rule.attention, [part for part in expected.attention for _ in range(each)], strict=True):
        torch.testing.assert_close(seen, own)


@pytest.mark.parametrize("family", BOTH)
def test_images_that_were_encoded_ahead_do_not_mix(family: str) -> None:
    """Each forward reads how its own features were encoded, in whatever order they are used, and more than once."""
    model: Any = FACTORIES[family]()
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this version of Transformers takes no features that were encoded ahead")
    prompts = [[(3, Image(), 4)], [(5, Image(), 4)]]
    both = [make_inputs(model, prompt) for prompt in prompts]
    both[1]["pixel_values"] = -both[1]["pixel_values"]
    expected = [read(model, inputs).attention[0] for inputs in both]
    names = ("pixel_values", "image_sizes", "batch_num_images", "image_grid_thw")
    rule = Reading()

    with prune_visual_tokens(model, budget=0.3, layer=0, selector=rule), torch.no_grad():
        given = [{name: inputs[name] for name in names if name in inputs} for inputs in both]
        encoded = [model.get_image_features(**each, return_dict=True) for each in given]
        for turn in (1, 0, 1):
            own = {name: value for name, value in both[turn].items() if name == "image_grid_thw" or name not in names}
            model(**own, mm_encoder_outputs={"image": encoded[turn]})

    for seen, turn in zip(rule.attention, (1, 0, 1), strict=True):
        torch.testing.assert_close(seen, expected[turn])


def test_threads_read_their_own_images() -> None:
    """What one thread encodes is nothing to another."""
    model = llava_onevision()
    inputs = make_inputs(model, [(3, Image(), 4)])
    signs = [1.0, -1.0, 0.5, -0.5]
    images = {sign: {**inputs, "pixel_values": sign * inputs["pixel_values"]} for sign in signs}
    expected = {sign: read(model, images[sign]).attention[0] for sign in signs}
    seen: dict[float, Tensor] = {}
    here = threading.local()

    def rule(view: LayerView) -> Tensor:
        seen[here.sign] = view.tower.attention()
        return torch.arange(view.budget)

    rule.reads = ("vision tower",)  # type: ignore[attr-defined]  # a function may say what it reads

    def ask(sign: float) -> None:
        here.sign = sign
        with torch.no_grad():
            model(**images[sign])

    with prune_visual_tokens(model, budget=0.3, layer=0, selector=rule):
        threads = [threading.Thread(target=ask, args=(sign,)) for sign in signs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for sign in signs:
        torch.testing.assert_close(seen[sign], expected[sign])


def test_the_tower_stays_in_its_own_attention() -> None:
    """Reading neither switches the tower to eager attention nor leaves anything on it."""
    model: Any = llava_next()
    before = {name: id(part) for name, part in model.named_modules()}
    seen = []

    def rule(view: LayerView) -> Tensor:
        view.tower.attention()
        seen.append(model.model.vision_tower.config._attn_implementation)
        return torch.arange(view.budget)

    rule.reads = ("vision tower",)  # type: ignore[attr-defined]  # a function may say what it reads
    with prune_visual_tokens(model, budget=0.3, layer=0, selector=rule), torch.no_grad():
        model(**make_inputs(model, PAIR))

    assert set(seen) == {"sdpa"}
    assert {name: id(part) for name, part in model.named_modules()} == before
    hooks = [{**part._forward_hooks, **part._forward_pre_hooks} for part in model.modules()]
    assert not any(isinstance(hook, Hook) for each in hooks for hook in each.values())


def test_a_rule_that_has_not_said_so_cannot_read_the_tower() -> None:
    """The message says how to ask."""
    model = llava_onevision()

    with (
        prune_visual_tokens(model, budget=0.3, layer=0, selector=lambda view: view.tower.features),
        pytest.raises(ValueError, match="attribute `reads` with 'vision tower'"),
    ):
        model(**make_inputs(model, PAIR))


def test_features_encoded_where_nobody_saw_it_are_refused() -> None:
    """Attention of a tower that ran before the session is not known."""
    model: Any = llava_onevision()
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this version of Transformers takes no features that were encoded ahead")
    inputs = make_inputs(model, PAIR)
    given = {name: inputs.pop(name) for name in ("pixel_values", "image_sizes", "batch_num_images")}
    encoded = model.get_image_features(**given, return_dict=True)

    with (
        prune_visual_tokens(model, budget=0.3, method="fastervlm"),
        pytest.raises(NotImplementedError, match="was not seen to encode `pixel_values`"),
    ):
        model(**inputs, mm_encoder_outputs={"image": encoded})


def test_another_feature_layer_than_that_of_the_configuration_is_refused() -> None:
    """The layer whose attention is recorded is known before the call."""
    model: Any = llava_onevision()

    with (
        prune_visual_tokens(model, budget=0.3, method="fastervlm"),
        pytest.raises(NotImplementedError, match="`vision_feature_layer` came as -2"),
    ):
        model(**make_inputs(model, PAIR), vision_feature_layer=-2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vision_feature_layer": [-2, -1]}, "which of several layers"),
        ({"vision_feature_layer": -5}, "expected an output of one of the tower's 1 layers"),
        ({"vision_feature_select_strategy": "full"}, "`vision_feature_select_strategy` is 'full'"),
    ],
    ids=["several layers", "no such layer", "class token among the tokens"],
)
def test_a_tower_that_cannot_be_told_is_refused_at_the_call(change: dict[str, Any], reason: str) -> None:
    """The message says what is missing."""
    model: Any = llava_next()
    for name, value in change.items():
        setattr(model.config, name, value)

    with pytest.raises(NotImplementedError, match=reason):
        prune_visual_tokens(model, budget=0.3, method="fastervlm")
