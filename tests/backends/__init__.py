"""The plugin registry and the conformance of the kernels that plugins bring."""
