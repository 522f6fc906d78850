"""What a rule sees of the vision tower, for each visual token of one sample. Parts are computed when they are used."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from iwp_transformers.attention import AttentionInputs
from iwp_transformers.tower import Encoding, TowerLayer, TowerWatch, VisionTower
from iwp_transformers.tower_attention import received_attention, tower_inputs
from iwp_transformers.tower_tokens import patch_map, times_placed

__all__ = ["TowerReader", "TowerView"]


class TowerReader:
    """Reads what the tower computed in one forward. What samples share is computed once.

    Parameters
    ----------
    tower : VisionTower
        The tower.
    encoded : mapping
        For each medium, what the tower returned and how it was encoded.
    placeholders : mapping
        For each medium, shape (B, T), bool: the places of its tokens in the input.
    """

    def __init__(
        self,
        tower: VisionTower,
        encoded: Mapping[str, tuple[Any, Encoding]],
        placeholders: Mapping[str, Tensor],
    ) -> None:
        self._tower, self._encoded, self._placeholders = tower, encoded, placeholders
        self._map = patch_map(tower)
        self._found: dict[tuple[object, ...], dict[str, Tensor]] = {}

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """Features of each visual token before the projector, by medium, (tokens, width)."""
        return {medium: self._tokens(medium, _given(each.features)) for medium, (_, each) in self._encoded.items()}

    @cached_property
    def first_states(self) -> dict[str, Tensor]:
        """Output of the tower's first layer for each visual token, by medium, (tokens, width)."""
        found = {}
        for medium, (_, each) in self._encoded.items():
            second = [each.calls[number].hidden for number in self._tower.second]
            found[medium] = self._tokens(medium, second[0] if second else _given(each.features))
        return found

    @cached_property
    def projected(self) -> dict[str, Tensor]:
        """Features of each visual token that enter the language model, by medium, (tokens, E)."""
        return {m: self._map.joined(m, output.pooler_output) for m, (output, _) in self._encoded.items()}

    @cached_property
    def sources(self) -> dict[str, Tensor]:
        """Number of the image, tile or frame that each visual token looks at most, by medium; -1 for none."""
        return {medium: self._map.sources(each) for medium, (_, each) in self._encoded.items()}

    def attention(self, layer: TowerLayer, *, split_heads: bool) -> dict[str, Tensor]:
        """Return the attention that each visual token receives, by medium, (tokens, heads)."""
        key = ("attention", layer, split_heads)
        if key not in self._found:
            self._found[key] = {
                medium: self._tokens(medium, self._received(encoding, layer, split_heads=split_heads))
                for medium, (_, encoding) in self._encoded.items()
            }
        return self._found[key]

    def keys(self, layer: TowerLayer) -> dict[str, Tensor]:
        """Return the keys of each visual token, by medium, (tokens, heads, head width)."""
        key = ("keys", layer)
        if key not in self._found:
            self._found[key] = {
                medium: self._keys(medium, self._inputs(encoding, layer)[0].keys)
                for medium, (_, encoding) in self._encoded.items()
            }
        return self._found[key]

    def project(self, features: Tensor) -> Tensor | None:
        """Return features after the projector; None if it does not project each token by itself."""
        with torch.no_grad():
            return self._map.project(features)

    def taken(self, parts: Mapping[str, Tensor], sample: int, positions: Tensor) -> Tensor:
        """Return the rows of given positions of a sample, (n, ...), from the tokens of each medium."""
        rows = next(iter(parts.values()))
        found = rows.new_empty(len(positions), *rows.shape[1:])
        for medium, part in parts.items():
            placed = self._placeholders[medium]
            here = placed[sample, positions.to(placed.device)].to(found.device)
            rank = self._rank(medium, len(part))[sample].to(found.device)[positions.to(found.device)]
            found[here] = part.to(found)[rank[here]]
        return found

    def _rank(self, medium: str, tokens: int) -> Tensor:
        """Return which token of an encoding stands at each place, (B, T)."""
        placed = self._placeholders[medium]
        counts = placed.sum(1)
        # Where samples were repeated, for beams or several answers, those of one prompt stand behind each other.
        times = times_placed(tokens, counts)
        own = counts[::times]
        first = (own.cumsum(0) - own).repeat_interleave(times)
        return placed.cumsum(1) - 1 + first[:, None]

    def _received(self, encoding: Encoding, layer: TowerLayer, *, split_heads: bool) -> Tensor:
        inputs, cuts = self._inputs(encoding, layer)
        received = received_attention(inputs, cuts, class_token=self._tower.class_token, split_heads=split_heads)
        return received.to(inputs.queries.dtype)

    def _keys(self, medium: str, keys: Tensor) -> Tensor:
        flat = self._tokens(medium, keys.transpose(1, 2).flatten(2))
        return flat.view(len(flat), keys.shape[1], keys.shape[3])

    def _inputs(self, encoding: Encoding, layer: TowerLayer) -> tuple[AttentionInputs, Tensor | None]:
        number = self._tower.number(layer)
        return tower_inputs(self._tower.layers[number], encoding.calls[number])

    def _tokens(self, medium: str, rows: Tensor) -> Tensor:
        encoding = self._encoded[medium][1]
        with torch.no_grad():
            if _given(encoding.features).ndim == 2:  # noqa: PLR2004 - rows of all images behind each other
                rows = rows.reshape(-1, rows.shape[-1])
            return self._map.tokens(encoding, rows)


def tower_reader(
    watch: TowerWatch, config: PreTrainedConfig, arguments: Mapping[str, Any], encoded: Mapping[str, Any]
) -> TowerReader:
    """Return the reader of the tower for one forward. The tower ran within that forward or before it.

    Parameters
    ----------
    watch : TowerWatch
        What recorded the tower's calls.
    config : transformers.PreTrainedConfig
        Of the multimodal model.
    arguments : mapping
        What the model was called with.
    encoded : mapping
        What the tower returned within the forward, by medium.

    Raises
    ------
    NotImplementedError
        If features were encoded outside of the session.
    """
    ahead = arguments.get("mm_encoder_outputs") or {}
    found = {}
    for medium in watch.media:
        output = encoded.get(medium.name, ahead.get(medium.name))
        if output is None and arguments.get(medium.pixels) is None:
            continue
        encoding = watch.encoding_of(output)
        if encoding is None:
            msg = (
                f"the method reads the vision tower, which was not seen to encode `{medium.pixels}` by"
                f" `get_{medium.name}_features` within this session; encode within it, and uncompiled, or pass pixels"
            )
            raise NotImplementedError(msg)
        found[medium.name] = (output, encoding)
    tokens = arguments["input_ids"]
    names = {medium.name: medium.token for medium in watch.media}
    return TowerReader(watch.tower, found, {name: tokens == getattr(config, names[name]) for name in found})


class TowerView:
    """What the vision tower computed for the candidates of one sample, N tokens.

    A visual token that is interpolated from patches, or merged from several, has the same interpolation of their values
    as in the model, or their mean. A learned separator (newline) has no patch: its `has_patch` is False, and its
    attention, keys and features are 0.

    Parameters
    ----------
    reader : TowerReader
        Reader of the forward.
    sample : int
        Row of the batch.
    positions : torch.Tensor
        Shape (N,), int64: the candidates' positions in the input sequence.
    """

    def __init__(self, reader: TowerReader, sample: int, positions: Tensor) -> None:
        self._reader, self._sample, self._positions = reader, sample, positions

    def __repr__(self) -> str:
        """Return how many tokens there are."""
        return f"TowerView({len(self._positions)} tokens)"

    @cached_property
    def has_patch(self) -> Tensor:
        """Whether each token comes from patches, shape (N,), bool."""
        return self.source >= 0

    @cached_property
    def source(self) -> Tensor:
        """Number of the image, tile or video frame that each token looks at most, shape (N,), int64; -1 for none."""
        return self._taken(self._numbered)

    @cached_property
    def features(self) -> Tensor:
        """Features before the projector, shape (N, width of the tower)."""
        return self._taken(lambda reader: reader.features)

    @cached_property
    def first_states(self) -> Tensor:
        """Output of the tower's first layer, shape (N, width of the tower)."""
        return self._taken(lambda reader: reader.first_states)

    @cached_property
    def projected(self) -> Tensor:
        """Features that enter the language model, shape (N, E), those of separators included."""
        return self._reader.taken(self._reader.projected, self._sample, self._positions).to(self._positions.device)

    def attention(self, layer: TowerLayer = "features", *, split_heads: bool = True) -> Tensor:
        """Return the attention that each token receives from the class token; without one, on average from all patches.

        Parameters
        ----------
        layer : {"features", "last"}
            The tower layer whose output is the features, according to the configuration, or the last layer.
        split_heads : bool, default True
            Whether attention is computed for each head. False: from the whole queries and keys, as PruMerge does.

        Returns
        -------
        torch.Tensor
            Shape (Hq, N), or (1, N) without splitting: softmax weights in the dtype of the tower, as its eager
            attention computes them.
        """
        return self._taken(lambda reader: reader.attention(layer, split_heads=split_heads)).T.contiguous()

    def keys(self, layer: TowerLayer = "features") -> Tensor:
        """Return the keys of a layer as the attention compares them, shape (H, N, D)."""
        return self._taken(lambda reader: reader.keys(layer)).transpose(0, 1).contiguous()

    def project(self, features: Tensor) -> Tensor | None:
        """Return features (n, width of the tower) after the projector, shape (n, E).

        None if the model projects several patches as one (Qwen2-VL, Qwen2.5-VL).
        """
        return self._reader.project(features)

    @staticmethod
    def _numbered(reader: TowerReader) -> dict[str, Tensor]:
        numbered, taken = {}, 0
        for medium, sources in reader.sources.items():
            numbered[medium] = sources.where(sources < 0, sources + taken)
            taken += int(sources.max()) + 1
        return numbered

    def _taken(self, read: Callable[[TowerReader], Mapping[str, Tensor]]) -> Tensor:
        rows = self._reader.taken(read(self._reader), self._sample, self._positions).to(self._positions.device)
        return rows.nan_to_num(0.0) if rows.is_floating_point() else rows


def _given(features: Tensor | None) -> Tensor:
    if features is None:
        msg = "the vision tower returned without its layers being called: this version of Transformers runs it anew"
        raise RuntimeError(msg)
    return features
