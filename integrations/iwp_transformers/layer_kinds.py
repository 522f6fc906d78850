"""What a decoder layer lets a token see, by the names that Transformers' configurations give its kind."""

from collections.abc import Sequence

from transformers import PreTrainedConfig

__all__ = ["ATTENDING", "RECURRENT", "SERVED", "WINDOWED", "attending_layers", "kind_of", "removal_layer"]

WINDOWED = ("sliding_attention", "chunked_attention")
ATTENDING = ("full_attention", *WINDOWED)
# What a token leaves behind in these cannot be taken out again: a dropped token must never enter them.
RECURRENT = ("linear_attention", "conv", "mamba", "recurrent")
# Each row by itself.
ROWWISE = ("moe", "mlp")
SERVED = (*ATTENDING, *RECURRENT, *ROWWISE)

_OLD_NAMES = {"attention": "full_attention"}


def kind_of(config: PreTrainedConfig, index: int) -> str:
    """Return the kind of a layer.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Configuration of the decoder. Without a list of kinds, all layers slide where it has a window.
    index : int
        Number of the layer.
    """
    kinds: Sequence[str] | None = getattr(config, "layer_types", None)
    if kinds:
        return _OLD_NAMES.get(kinds[index], kinds[index])
    return "full_attention" if getattr(config, "sliding_window", None) is None else "sliding_attention"


def removal_layer(kinds: Sequence[str], layer: int) -> int:
    """Return the first layer that can lack the tokens that are dropped at `layer`.

    Transformers sizes the masks of all layers of a kind on the first of that kind, and reads how many tokens were seen
    off the first that attends. These hold all tokens and only hide the dropped ones, which is the same to those that
    stay.

    Parameters
    ----------
    kinds : sequence of str
        The kind of each layer.
    layer : int
        First layer that no longer sees the dropped tokens.

    Examples
    --------
    >>> removal_layer(["full_attention"] * 4, 0)
    1
    >>> removal_layer(["sliding_attention"] * 5 + ["full_attention"], 3)
    6
    """
    return max(layer, *(kinds.index(kind) + 1 for kind in ATTENDING if kind in kinds), 0)


def attending_layers(kinds: Sequence[str], count: int) -> Sequence[int]:
    """Return the numbers of the layers that `count` attention weights belong to: of all, or of those that attend."""
    return range(count) if count == len(kinds) else [index for index, kind in enumerate(kinds) if kind in ATTENDING]
