"""Visual-token pruning inside vLLM, a plugin that vLLM loads by itself.

Tokens are dropped before the first decoder layer, since vLLM's KV cache holds the same tokens in all layers. They are
chosen from the image alone, or by the question. In the second case, the layers before the one that chooses first run
over the prompt outside of the KV cache. Everything that a choice depends on is part of the hash by which vLLM caches an
image.

Nothing is pruned unless you ask for it: for all requests with ``hf_overrides={"iwp": {"budget": 0.222}}``, or for one
request with ``mm_processor_kwargs={"iwp_budget": 0.222}``.
"""

__all__ = ["register"]


def register() -> None:
    """Replace vLLM's own models by models that can prune, under the same names.

    This is the entry point of ``vllm.general_plugins``: vLLM calls it in each of its processes, any number of times. In
    other versions of vLLM than 0.32 nothing is replaced, and the log says so.
    """
    from iwp_vllm.engine.registration import register_models  # noqa: PLC0415 - vLLM is imported by vLLM alone

    register_models()
