"""`prune_visual_tokens`: hooks on a model, from the call until the session is closed."""

import warnings
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from torch import nn

from iwp_core import PCMMR, Strategy, Tolerance
from iwp_transformers.attachment import Attachment
from iwp_transformers.bounds import check_bound
from iwp_transformers.families import family_of, is_inferred, warn_of_inferred
from iwp_transformers.masks import check_weighing
from iwp_transformers.methods import Method
from iwp_transformers.methods.iwp import IWP, Query
from iwp_transformers.plan import PruningPlan
from iwp_transformers.prefill import Costs
from iwp_transformers.pruned_cache import Lease
from iwp_transformers.readable import check_readable
from iwp_transformers.record import PruningRecord
from iwp_transformers.refusals import check_history, check_layers, check_unused
from iwp_transformers.scoring_layers import scoring_layers_of
from iwp_transformers.selection import Selector, asked_stages, chosen_rule
from iwp_transformers.sharding import gather_of_heads
from iwp_transformers.stages import check_modalities, checked_layer, stages_of
from iwp_transformers.tower_tokens import read_tower
from iwp_transformers.versions import warn_if_untested
from iwp_transformers.wrappers import unwrapped

__all__ = ["PruningSession", "prune_visual_tokens"]


class _Unsaid(int):
    """The default of an argument; not equal in kind to the same number given by somebody."""


# The paper's rule acts here; a method of its own layer is told apart from somebody's 4.
UNSAID_LAYER = _Unsaid(IWP.layer)


def prune_visual_tokens(
    model: nn.Module,
    *,
    budget: float | Tolerance | Sequence[float] | Mapping[str, float | Tolerance] | None = None,
    layer: int | Sequence[int] = UNSAID_LAYER,
    layers: int | Sequence[int] | None = None,
    method: str | Method | None = None,
    strategy: Strategy = PCMMR(),  # noqa: B008 - frozen, so one default instance is safe
    magnitude: str = "dual",
    similarity: str = "dual",
    heads: str | float = "mean",
    query: Query = "text",
    rope_in_magnitude: bool = False,
    rope_in_duplication: bool = True,
    selector: Selector | None = None,
    history: int = 16,
) -> "PruningSession":
    """Let a vision-language model drop visual tokens from one decoder layer on, until the session is closed.

    Parameters
    ----------
    model : torch.nn.Module
        A vision-language model of Transformers, with or without its language head; also within `torch.compile`, a
        `PeftModel`, or a data-parallel wrapper of one device.
    budget : int, float or iwp_core.Tolerance, or a tuple of numbers, or a mapping of str to any of these
        Visual tokens to keep for each sample: a count >= 1, a share in (0, 1], or (by the paper's rule) as few as keep
        an error of the layer's attention within a `Tolerance`. A tuple has a number for each of `layer`, each of all
        the visual tokens that the sample came with, descending; there 0 keeps none. One number for a method that has
        several stages is the mean share over all layers from its first stage on. A mapping, such as
        ``{"image": 0.2, "video": 64}``, has one for each modality, of which it is a count or a share in each sample;
        the rule chooses among the tokens of one modality at a time, and one that is left out is not pruned.
    layer : int, or a tuple of int, default 4, or that of the method
        First decoder layer, counted from 0, that no longer sees the dropped tokens. Of several, each drops more.
    layers : int or sequence of int, optional
        For the paper's rule: the layers whose magnitudes of a token are pooled. An int n means the n layers up to and
        with `layer`, a sequence lists them; none may lie behind `layer`. Each is read with its own queries, keys and
        values, and the heads of all are pooled as `heads` says. Duplication is that of `layer`. Default: `layer` alone.
    method : str or Method, optional
        A method of the papers by its name, or an object of `iwp_transformers.methods` with options, in place of all
        arguments from `strategy` to `selector`; ``iwp methods`` lists them.
    strategy : Strategy, default PCMMR()
        How magnitude and duplication are weighed.
    magnitude, similarity, heads : str
        Options of `iwp_core.select_tokens`.
    query : {"text", "image", "last_text"}
        Whose queries weigh the tokens: those of the text after the first visual token, of the visual tokens, or of
        the last text token. Their mean counts, unless `heads` lets each of them score; for "max" and a number, by its
        share among all that it sees.
    rope_in_magnitude, rope_in_duplication : bool
        Whether queries and keys carry their rotary embedding in magnitude, and keys in duplication.
    selector : callable, optional
        Another rule in place of the paper's and of all options from `strategy` on: takes a `LayerView`, returns the
        indices to keep. Other than `budget` of them are kept, with a warning unless it has ``own_count = True``.
    history : int, default 16
        Number of records held.

    Returns
    -------
    PruningSession
        A context manager; pruning has begun already, and ends with the `with` block or `close()`. Keep it: a session
        that is collected releases the model, with a ResourceWarning.

    Raises
    ------
    TypeError
        If it cannot be told how the model places visual tokens (the message says what is missing), it is wrapped in a
        way that hooks cannot follow, `budget` or `layer` is no number, or a `Tolerance` is the budget of one of several
        layers or comes with a strategy that has no `order`.
    ValueError
        If `budget`, `layer`, `layers`, `method`, `query` or `history` is outside what is allowed, `budget` names a
        modality that the model has not, two of `method`, `selector` and options of the paper's rule are given, `layers`
        or a `Tolerance` beside another rule, or the model is being pruned already.
    NotImplementedError
        If a layer from `layer` on is of a kind that is not known to stay exact, `layer` has no queries and keys to
        read and there is no `selector`, one of `layers` has none, a `Tolerance` bounds outputs of an attention that it
        does not know, the rule reads a vision tower of which it is not known how, or a model is sharded in parts of a
        head.

    Warns
    -----
    UserWarning
        Once, if Transformers is newer than any version that was tested; once for each class of models that has no
        file of its own, and is served by what its configuration says.

    Notes
    -----
    Text rows equal those of the full-length model whose layers from `layer` on may not attend to the dropped tokens.
    What the model returns keeps its shapes: rows of dropped tokens are zero in `last_hidden_state`, in the
    `hidden_states` behind `layer`, and in `attentions`. The first layer of each kind (all tokens, sliding, chunked)
    hides the dropped tokens instead of removing them, since Transformers counts tokens by its cache. A visual token
    whose own row is read, because it ends its prompt or a label follows it, is always among those that are kept.

    A `Tolerance` of outputs bounds those of all tokens behind the last candidate at `layer`, as the attention computes
    them; of the last candidate itself where none follow. Tokens that stay in any case are no candidates. In a mapping,
    each modality keeps its own, as if the others stayed whole; such bounds add up.

    Windows and chunks count original positions. In a recurrent or convolving layer from `layer` on, a dropped token
    never enters the recurrence or the convolution.

    Any number of threads may use the model within one session. What is known of a pruned cache travels with the cache,
    its copies included; it can lose decoded tokens, and be used while the session is open. Without a cache, the
    forwards of one `generate` share one selection, and every other forward selects for itself.

    Images may come in later turns, on a cache that holds tokens. Theirs are new candidates, weighed by the text after
    the first of them; tokens of earlier turns stay as they are. Positions count from the beginning of the cache.
    Drafts of assisted decoding are no part of a question. Of a prompt in chunks (``generate(prefill_chunk_size=...)``),
    layers from `layer` on wait for the last.

    A forward raises NotImplementedError where it could not be exact: a crop that reaches into the newest turn with
    images, a cache whose session is closed, or that holds the beginning of a prompt in chunks, `inputs_embeds` without
    `input_ids`, packed sequences; chunks where Transformers is older than 5.24, the cache holds tokens, any layer
    carries a recurrence, or the model makes masks of its own; images in a later turn where layers from `layer` on carry
    a recurrence, or with a `Tolerance` of outputs or `heads` "max" or a number, which count what a query sees; gradient
    checkpointing of layers that are not Transformers' own.

    What was compiled before a session begins is compiled again within it.

    Examples
    --------
    >>> with prune_visual_tokens(model, budget=0.222, layer=4) as session:  # doctest: +SKIP
    ...     output = model.generate(**inputs)
    >>> print(session.records[-1].summary())  # doctest: +SKIP
    """
    rule = chosen_rule(
        method,
        selector,
        {
            "strategy": strategy,
            "magnitude": magnitude,
            "similarity": similarity,
            "heads": heads,
            "query": query,
            "rope_in_magnitude": rope_in_magnitude,
            "rope_in_duplication": rope_in_duplication,
        },
    )
    model = unwrapped(model)
    family = family_of(model)
    inner, text = family.stacks(model)
    if is_inferred(family):
        warn_of_inferred(family, text)
    check_unused(text)
    if layer is not UNSAID_LAYER and not isinstance(layer, Sequence):
        layer = checked_layer(layer, text.layers)
    stages = stages_of(
        *asked_stages(rule, None if layer is UNSAID_LAYER else layer, budget, len(text.layers)), text.layers
    )
    check_modalities(stages, family)
    check_history(history)
    warn_if_untested()
    plan = PruningPlan(
        family=family,
        model=model,
        inner=inner,
        text=text,
        layers=text.layers,
        stages=stages,
        selector=rule,
        gather=gather_of_heads(model, text.config),
        tower=read_tower(inner) if "vision tower" in getattr(rule, "reads", ()) else None,
        scoring_layers=scoring_layers_of(layers, stages, rule),
    )
    check_layers(plan)
    check_bound(plan)
    check_readable(plan)
    if not getattr(rule, "flash", True):
        check_weighing(plan.config._attn_implementation)
    return PruningSession(plan, history=history)


class PruningSession:
    """The hooks on one model, and the records of what they did; made by `prune_visual_tokens`.

    Attributes
    ----------
    records : collections.deque of PruningRecord
        One for each prefill that saw visual tokens, the newest last.
    """

    def __init__(self, plan: PruningPlan, *, history: int) -> None:
        self.records: deque[PruningRecord] = deque(maxlen=int(history))
        self._plan = plan
        self._lease = Lease()
        self._costs: Costs = {}
        self._attach()

    def _attach(self) -> None:
        check_unused(self._plan.text)
        self._lease.open = True
        self._attachment = Attachment(self._plan, weakref.ref(self), self._lease, self._costs)
        self._release = weakref.finalize(self, _released, self._attachment)
        self._release.atexit = False

    @property
    def closed(self) -> bool:
        """Whether the session has no hooks on the model."""
        return not self._release.alive

    def close(self) -> None:
        """Take every hook off the model; closing twice is harmless.

        Prefills that other threads are in the middle of are waited for. Steps on pruned caches raise from then on.
        """
        if self._release.detach() is not None:
            self._attachment.detach()

    def __enter__(self) -> Self:
        """Return the session, which is attached already, or again if it was closed."""
        if self.closed:
            self._attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Return what is pruned where."""
        stages = ", ".join(f"{stage.budget} from layer {stage.layer}" for stage in self._plan.stages)
        state = "closed" if self.closed else "open"
        return f"PruningSession({type(self._plan.model).__name__}, {stages}, {len(self.records)} records, {state})"


def _released(attachment: Attachment) -> None:
    attachment.detach()
    warnings.warn(
        "a pruning session was collected without having been closed, and its model is pruned no longer: keep the"
        " session as long as it shall prune, best in a `with` block",
        ResourceWarning,
        stacklevel=2,
    )
