"""What pytest does not import: modules that only lmms-eval or vLLM can load, where it is not installed."""

from importlib.util import find_spec

NEEDS = {
    "lmms_eval": [f"integrations/iwp_lmms_eval/{name}.py" for name in ("digits", "evaluation", "measuring", "model")],
    "vllm": ["integrations/iwp_vllm/engine", "tests/vllm"],
}

collect_ignore_glob = [path for package, paths in NEEDS.items() if find_spec(package) is None for path in paths]
