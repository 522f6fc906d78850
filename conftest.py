"""What pytest does not import: modules of the plugin for vLLM that only vLLM can load."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("vllm") else ["integrations/iwp_vllm/engine", "tests/vllm"]
