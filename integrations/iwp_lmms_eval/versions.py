"""The versions of packages that answers depend on, and with them scores."""

from importlib.metadata import version

__all__ = ["measured_versions"]


def measured_versions() -> dict[str, str]:
    """Return the versions that are installed, by the names of their distributions."""
    return {name: version(name) for name in ("iwp", "lmms-eval", "transformers", "torch")}
