"""The modules that import vLLM. Only vLLM itself loads them."""
