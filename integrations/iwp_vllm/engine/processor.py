"""The part of a multimodal processor that prunes: it announces fewer placeholders, and passes on their directives."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vllm.logger import init_logger
from vllm.multimodal.inputs import MultiModalFieldElem, MultiModalSharedField
from vllm.multimodal.processing import PromptUpdateDetails
from vllm.multimodal.processing.inputs import ProcessorInputs

from iwp_core.budget import tokens_to_keep
from iwp_vllm.directive import Directive, Plan
from iwp_vllm.engine.registration import REFUSAL
from iwp_vllm.options import Options, requested, without_requested
from iwp_vllm.question import Around, behind, texts_around

__all__ = ["PruningProcessor", "placeholder_id"]

PLAN = "iwp_plan"
"""Under which the plan travels among the keyword arguments of vLLM's own methods."""

MODALITIES = ("image", "video")

logger = init_logger("vllm.iwp")


class PruningProcessor:
    """Mixed into a processor of vLLM, in front of it.

    A plan, made of a request when it arrives, travels through vLLM's methods among the keyword arguments of the
    Transformers processor. Each hands it on or uses it, and takes it away from what the processor gets.
    """

    info: Any

    def apply(self, inputs: ProcessorInputs, timing_ctx: Any) -> Any:
        """Process a request.

        Raises
        ------
        TypeError, ValueError
            If what it asks for is wrong, or the engine cannot prune.
        """
        options = self._options(inputs.hf_processor_mm_kwargs)
        plain = replace(inputs, hf_processor_mm_kwargs=without_requested(inputs.hf_processor_mm_kwargs))
        if options.budget == 1.0 and isinstance(options.budget, float):
            return super().apply(plain, timing_ctx)  # type: ignore[misc] # vLLM's class comes behind this one
        planned = replace(
            plain, hf_processor_mm_kwargs={**plain.hf_processor_mm_kwargs, PLAN: self._plan(plain, options)}
        )
        output = super().apply(planned, timing_ctx)  # type: ignore[misc] # as above
        self._tell(output, options)
        return output

    def get_dummy_inputs(self, *arguments: Any, **named: Any) -> ProcessorInputs:
        """Measure memory with all tokens: a request may ask for them."""
        inputs = super().get_dummy_inputs(*arguments, **named)  # type: ignore[misc] # as above
        return replace(inputs, hf_processor_mm_kwargs={**inputs.hf_processor_mm_kwargs, "iwp_budget": 1.0})

    def _options(self, given: Mapping[str, object]) -> Options:
        config = self.info.get_hf_config()
        options = Options.of_engine(getattr(config, "iwp", None)).of_request(given)
        reason = getattr(config, REFUSAL, None)
        if reason is not None and requested(given) and not (options.budget == 1.0):
            raise ValueError(reason)
        return options

    def _plan(self, inputs: ProcessorInputs, options: Options) -> Plan:
        sources = super()._get_mm_hashes(inputs)  # type: ignore[misc] # as above
        around = self._around(inputs, options) if options.rule.reads_text else None
        return Plan(
            rule=options.rule,
            directives={
                modality: [
                    Directive(
                        budget=options.budget,
                        source=source,
                        around=Around() if around is None else around[modality][index],
                    )
                    for index, source in enumerate(of_it)
                ]
                for modality, of_it in sources.items()
            },
        )

    def _around(self, inputs: ProcessorInputs, options: Options) -> dict[str, list[Around]]:
        """Return the text that each image is chosen by: that of the request itself, unless it brings another."""
        counts = inputs.mm_data_items.get_all_counts()
        placeholders = {modality: placeholder_id(self.info.get_hf_config(), modality) for modality in MODALITIES}
        if options.prompt is not None:
            encode = self.info.get_tokenizer().encode
            ids = encode(options.prompt, **self.info.default_tok_params.get_encode_kwargs())
            if set(ids) & set(placeholders.values()):
                return texts_around(ids, placeholders, counts, what="`iwp_prompt`")
        own = texts_around(inputs.prompt, placeholders, counts)
        if options.prompt is None:
            return own
        question = tuple(encode(options.prompt, add_special_tokens=False))
        closing = getattr(self.info.get_hf_config(), "vision_end_token_id", None)
        return {
            modality: [replace(each, after=behind(each, closing) + question) for each in of_it]
            for modality, of_it in own.items()
        }

    def _get_mm_hashes(self, inputs: ProcessorInputs) -> dict[str, list[str]]:
        plan = inputs.hf_processor_mm_kwargs.get(PLAN)
        if not isinstance(plan, Plan):
            hashes: dict[str, list[str]] = super()._get_mm_hashes(inputs)  # type: ignore[misc] # as above
            return hashes
        return {modality: [each.identity(plan.rule) for each in of_it] for modality, of_it in plan.directives.items()}

    def _get_cache_missing_processor_kwargs(
        self, inputs: ProcessorInputs, mm_is_cached: Mapping[str, list[bool]]
    ) -> Mapping[str, object]:
        given: Mapping[str, object] = super()._get_cache_missing_processor_kwargs(inputs, mm_is_cached)  # type: ignore[misc] # as above
        plan = given.get(PLAN)
        return {**given, PLAN: plan.missing(mm_is_cached)} if isinstance(plan, Plan) else given

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> Any:
        return super()._apply_hf_processor_main(mm_items, without_requested(hf_kwargs))  # type: ignore[misc] # as above

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, object]) -> Any:
        return super()._get_mm_fields_config(hf_inputs, without_requested(hf_processor_mm_kwargs))  # type: ignore[misc] # as above

    def _get_mm_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Any:
        plan = hf_processor_mm_kwargs.get(PLAN)
        plain = without_requested(hf_processor_mm_kwargs)
        updates = super()._get_mm_prompt_updates(mm_items, plain, out_mm_kwargs)  # type: ignore[misc] # as above
        if not isinstance(plan, Plan):
            return updates
        return {
            modality: [
                [_shortened(update, directive, item) for update in of_item]
                for of_item, directive, item in zip(
                    of_it, plan.directives.get(modality, ()), out_mm_kwargs.get(modality, ()), strict=True
                )
            ]
            for modality, of_it in updates.items()
        }

    def _tell(self, output: Any, options: Options) -> None:
        """Write the request's line to the log."""
        kept = [
            f"{place.length} of {modality} {index}"
            for modality, places in output["mm_placeholders"].items()
            for index, place in enumerate(places, start=1)
        ]
        by = "the image alone"
        if options.rule.reads_text:
            by = "the request's prompt" if options.prompt is None else "`iwp_prompt`"
        rule = f"method {options.rule.name!r} at layer {options.rule.layer}"
        logger.info("iwp: tokens kept: %s (budget %s, %s, by %s)", ", ".join(kept), options.budget, rule, by)


def placeholder_id(config: Any, modality: str) -> int:
    """Return the id of the token that stands for an image or video."""
    found = getattr(config, f"{modality}_token_id", None)
    return int(getattr(config, f"{modality}_token_index") if found is None else found)


def _shortened(update: Any, directive: Directive, item: Any) -> Any:
    """Return an update with as many placeholders as tokens stay, and let the pixels carry what they are chosen by."""
    placeholders = update.content.full
    count = tokens_to_keep(directive.budget, len(placeholders))
    if count == len(placeholders):
        return update
    for name, tensor in directive.tensors(count, len(placeholders)).items():
        # Fields that are shared keep vLLM from putting images into one batch that are chosen by something else.
        item[name] = MultiModalFieldElem(data=tensor, field=MultiModalSharedField(batch_size=1, keep_on_cpu=True))
    return replace(update, content=PromptUpdateDetails.from_seq(placeholders[:count]))
