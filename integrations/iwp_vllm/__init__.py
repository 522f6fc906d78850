"""Visual-token pruning inside vLLM, a plugin that vLLM loads by itself.

Tokens are dropped before the first decoder layer, since vLLM's KV cache holds the same tokens in all layers. Which of
them stay is chosen from the image alone, or by the question: then the layers before the one that chooses run over the
prompt beside the KV cache. Everything that a choice depends on is part of the hash by which vLLM caches an image.

Nothing is pruned unless it is asked for, of all requests with ``hf_overrides={"iwp": {"budget": 0.222}}`` or of one
with ``mm_processor_kwargs={"iwp_budget": 0.222}``.
"""

__all__ = ["register"]


def register() -> None:
    """Put the pruning models in the place of vLLM's own, under the same names.

    The entry point of ``vllm.general_plugins``: vLLM calls it in each of its processes, any number of times. Other
    versions of vLLM than 0.32 are left as they are, and the log says so.
    """
    from iwp_vllm.engine.registration import register_models  # noqa: PLC0415 - vLLM is imported by vLLM alone

    register_models()
