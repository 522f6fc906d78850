"""`prune_visual_tokens`: hooks on a model, from the call until the session is closed."""

import threading
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
from iwp_transformers.readable import check_readable, reads_of
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
    """Prune visual tokens in every prefill of a vision-language model, until the session is closed.

    Parameters
    ----------
    model : torch.nn.Module
        A vision-language model of Transformers, with or without its language head. It may be compiled with
        `torch.compile`, or wrapped in a `PeftModel` or in a data-parallel wrapper of one device.
    budget : int, float or iwp_core.Tolerance, or a tuple of numbers, or a mapping of str to any of these
        How many visual tokens to keep of each sample. An int >= 1 is a count, a float in (0, 1] a share. A `Tolerance`
        keeps as few tokens as hold an error of the layer's attention within it (the paper's rule only).

        With several layers, a tuple gives one number for each, in descending order. Each is a count or a share of the
        visual tokens that the sample came with, and 0 keeps none. If a method has several stages, a single number is
        the mean share over all layers from its first stage on.

        A mapping, such as ``{"image": 0.2, "video": 64}``, gives each modality a budget of its own, a count or a share
        in each sample. Tokens compete within their modality; a modality that is left out is not pruned.
    layer : int, or a tuple of int, default 4, or that of the method
        First decoder layer, counted from 0, that no longer sees the dropped tokens. A tuple names several layers, each
        of which drops more.
    layers : int or sequence of int, optional
        For the paper's rule: the layers that the magnitude is computed in. An int n means `layer` and the n - 1 layers
        before it; a sequence lists them, and none may come after `layer`. Each layer's own queries, keys and values are
        read, and the heads of all these layers are pooled as `heads` says. Duplication is computed in `layer` alone.
        Default: `layer` alone.
    method : str or Method, optional
        A method of the papers by its name, or an object of `iwp_transformers.methods` with options, in place of all
        arguments from `strategy` to `selector`; ``iwp methods`` lists them.
    strategy : Strategy, default PCMMR()
        How tokens are chosen from magnitude and duplication.
    magnitude, similarity, heads : str
        Options of `iwp_core.select_tokens`.
    query : {"text", "image", "last_text"}
        Whose queries the magnitude is computed with: those of the text after the first visual token, of the visual
        tokens themselves, or of the last text token. Their mean is taken, unless `heads` scores each query by itself.
    rope_in_magnitude : bool, default False
        Whether the magnitude is computed from queries and keys with their rotary embedding, or without.
    rope_in_duplication : bool, default True
        The same for the keys that duplication is computed from.
    selector : callable, optional
        A rule of your own, in place of the paper's with all its options: it takes a `LayerView` and returns the indices
        of the visual tokens to keep. If it returns another number of indices than the budget, they are kept with a
        warning, or without one if it has an attribute ``own_count = True``.
    history : int, default 16
        How many records are held; older ones are dropped.

    Returns
    -------
    PruningSession
        Pruning begins at once, and ends with the `with` block or with `close()`. Keep a reference: if the session is
        garbage-collected, pruning ends too, with a ResourceWarning.

    Raises
    ------
    TypeError
        If it is not known where the model's visual tokens stand (the message says what is missing), or the model is
        wrapped in a way that hooks cannot follow; if `budget` or `layer` is no number; if a `Tolerance` comes with
        several layers, or with a strategy that has no `order`.
    ValueError
        If `budget`, `layer`, `layers`, `method`, `query` or `history` is outside what is allowed; if `budget` names a
        modality that the model does not have; if two of `method`, `selector` and options of the paper's rule are given;
        if `layers` or a `Tolerance` comes with another rule than the paper's; if the model is being pruned already.
    NotImplementedError
        If a layer from `layer` on is of a kind that is not known to stay exact; if `layer` or one of `layers` has no
        queries and keys that the rule could read; if a `Tolerance` bounds the outputs of an attention that it does not
        know; if the rule reads the vision tower and this model's tower is not known; if the model is sharded so finely
        that a head lies on several devices.

    Warns
    -----
    UserWarning
        Once, if Transformers is newer than any version that was tested. Once for each class of models that this package
        has no file for, so that everything about it is read from its configuration.

    Notes
    -----
    **What is exact.** The hidden states of text tokens equal those of the full-length model, if its layers from `layer`
    on may not attend to the dropped tokens. What the model returns keeps its shapes: rows of dropped tokens are zero in
    `last_hidden_state`, in the `hidden_states` after `layer`, and in `attentions`. The model's first layer of each
    kind (full attention, sliding window, chunked) never gets shorter, because Transformers takes the length of the
    sequence from its cache: if it is `layer` or comes later, it masks the dropped tokens instead. A visual token is
    always kept if its own row is needed: if it is the last of its prompt, or if a label follows it. Sliding windows and
    chunks go by original positions. In a recurrent or convolutional layer from `layer` on, a dropped token never enters
    the recurrence or the convolution.

    **Tolerance.** A `Tolerance` of outputs bounds the attention outputs, at `layer`, of all tokens after the last
    candidate (of the last candidate itself if none follow). In a mapping, each modality has its own tolerance, computed
    as if the other modalities were not pruned; the errors add up.

    **Threads and caches.** Any number of threads may use the model within one session. A pruned cache, and every copy
    of it, knows what was pruned. It can be used as long as the session is open, and decoded tokens can be cropped from
    it. Without a cache, the forwards of one `generate` share one selection, and every other forward makes its own.

    **Turns, drafts, chunks.** New images may come in a later turn, on a cache that holds earlier turns. Their tokens
    are scored by the text after the first of them; tokens of earlier turns stay as they are. Positions count from the
    beginning of the cache. Draft tokens of assisted decoding are not part of the question. If the prompt comes in
    chunks (``generate(prefill_chunk_size=...)``), the layers from `layer` on run when the last chunk is there.

    **What is refused.** A forward raises NotImplementedError where it could not be exact; docs/refusals.md lists every
    case with its reason. The main ones: cropping a cache into the newest turn with images; using a pruned cache after
    its session is closed; `inputs_embeds` without `input_ids`; packed sequences; chunks before Transformers 5.24, on a
    cache that holds earlier turns, or in a model with recurrent layers or masks of its own; images in a later turn
    where a layer from `layer` on is recurrent, or with a `Tolerance` of outputs, or with `heads` "max" or a number;
    gradient checkpointing of layers that are not Transformers' own.

    A model that was compiled before the session begins is compiled again within it.

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
        tower=read_tower(inner) if any("vision tower" in reads_of(rule, stage.layer) for stage in stages) else None,
        scoring_layers=scoring_layers_of(layers, stages, rule),
    )
    check_layers(plan)
    check_bound(plan)
    check_readable(plan)
    if not getattr(rule, "flash", True):
        check_weighing(plan.config._attn_implementation)
    return PruningSession(plan, history=history)


class PruningSession:
    """Pruning of one model, from `prune_visual_tokens` until it is closed, with a record of each pruned prefill.

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
        self._entering, self._entered = threading.Lock(), 0
        self._attach()

    def _attach(self) -> None:
        check_unused(self._plan.text)
        self._lease.open = True
        self._attachment = Attachment(self._plan, weakref.ref(self), self._lease, self._costs)
        self._release = weakref.finalize(self, _released, self._attachment)
        self._release.atexit = False

    @property
    def closed(self) -> bool:
        """Whether the session has ended, so that nothing is pruned."""
        return not self._release.alive

    def close(self) -> None:
        """End the pruning and remove every hook from the model; closing twice is harmless.

        Waits for prefills that other threads have begun. From then on, using a cache that was pruned raises
        NotImplementedError.
        """
        if self._release.detach() is not None:
            self._attachment.detach()

    def __enter__(self) -> Self:
        """Return the session, which is attached already, or again if it was closed."""
        with self._entering:
            if self.closed:
                self._attach()
            self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, unless a `with` block around this one, or another thread's, goes on."""
        with self._entering:
            self._entered -= 1
            if not self._entered:
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
