"""Registration of the models, and the check of an engine before it starts."""

from typing import Any

import vllm
from vllm import ModelRegistry
from vllm.config import CUDAGraphMode
from vllm.logger import init_logger
from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

from iwp_vllm.options import Options
from iwp_vllm.places import on_equal_axes
from iwp_vllm.refusals import has_graphs, refusal

__all__ = ["MODELS", "REFUSAL", "EngineCheck", "register_models"]

MODELS = {
    "LlavaOnevisionForConditionalGeneration": "iwp_vllm.engine.llava_onevision:PrunedLlavaOnevision",
    "Qwen2_5_VLForConditionalGeneration": "iwp_vllm.engine.qwen2_5_vl:PrunedQwen25VL",
}
"""By the name of an architecture; imported when such a model is loaded."""

SERIES = "0.32."
REFUSAL = "iwp_refusal"
"""Where the model's configuration carries why this engine cannot prune."""

logger = init_logger("vllm.iwp")


class EngineCheck:
    """Asked by vLLM about the configuration of an engine, in the process of the user."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Leave the model's configuration as it is."""

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Refuse an engine that is asked to prune and cannot; note the reason for requests of one that is not asked.

        Raises
        ------
        TypeError
            If the options are wrong.
        ValueError
            If the options are wrong, or the model has no such layer.
        NotImplementedError
            If the engine cannot prune; the message says why.
        """
        config = vllm_config.model_config.hf_config
        given = getattr(config, "iwp", None)
        graphs = vllm_config.compilation_config
        if given is not None:
            on_equal_axes(vllm_config.model_config.hf_text_config)
        if given is not None and vllm_config.model_config.uses_mrope and has_graphs(vllm_config):
            # vLLM's own choice, which it makes after this, would be refused.
            graphs.cudagraph_mode = CUDAGraphMode.PIECEWISE if graphs.cudagraph_mode is None else graphs.cudagraph_mode
        reason = refusal(vllm_config, Options.of_engine(given).rule.layer)
        if reason is not None and given is not None:
            if reason.startswith("`layer`"):
                raise ValueError(reason)
            raise NotImplementedError(reason)
        setattr(config, REFUSAL, reason)


def register_models() -> None:
    """Put the pruning models in the place of vLLM's own; see `iwp_vllm.register`."""
    if not vllm.__version__.startswith(SERIES):
        logger.error("iwp_vllm is made for vLLM %sx, found %s: nothing will be pruned", SERIES, vllm.__version__)
        return
    for architecture, place in MODELS.items():
        ModelRegistry.register_model(architecture, place)
        MODELS_CONFIG_MAP[architecture] = EngineCheck
    for architecture in ModelRegistry.get_supported_archs():
        if architecture.endswith("ForConditionalGeneration") and architecture not in MODELS:
            MODELS_CONFIG_MAP[architecture] = _refusing(MODELS_CONFIG_MAP.get(architecture, VerifyAndUpdateConfig))


def _refusing(own: Any) -> Any:
    """Return a check of an architecture that refuses pruning, and else is vLLM's own."""
    if hasattr(own, "iwp_refuses"):
        return own

    class Refusing(own):
        """Refuses pruning of a model that this plugin does not know."""

        iwp_refuses = True

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            """Refuse, or ask vLLM's own check.

            Raises
            ------
            NotImplementedError
                If the engine is asked to prune.
            """
            if getattr(vllm_config.model_config.hf_config, "iwp", None) is not None:
                found = vllm_config.model_config.architecture
                msg = f"iwp_vllm prunes {' and '.join(MODELS)}, not {found}, whose tokens reach the decoder otherwise"
                raise NotImplementedError(msg)
            own.verify_and_update_config(vllm_config)

    return Refusing
