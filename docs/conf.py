"""How Sphinx builds the site: `make docs`, strictly and offline."""

from functools import partial
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from iwp_core import __version__

logger = logging.getLogger(__name__)

project = "iwp"
author = "the iwp developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
exclude_patterns = ["figures"]

html_theme = "furo"
html_title = f"iwp {release}"
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3

# Docstrings say in words what an argument is; an annotation would repeat it, and link to private names.
autodoc_typehints = "none"
autodoc_member_order = "alphabetical"
autodoc_preserve_defaults = True
# Installed by `make test-ray` only.
autodoc_mock_imports = ["ray", "pyarrow"]
numpydoc_show_class_members = False
numpydoc_xref_param_type = False


def _mathml(self: Any, node: nodes.Element, *, as_block: bool) -> None:
    self.body.append(tex2mathml(node.astext(), as_block=as_block))
    raise nodes.SkipNode


def _rubrics(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Make headings in the text of a module rubrics: as sections, their labels would be twice on the site."""
    for place, line in enumerate(lines):
        if what == "module" and line and set(line) == {"-"}:
            lines[place - 1 : place + 1] = [f".. rubric:: {lines[place - 1]}", ""]


def _check_reference(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, and so fail a strict build, of a public name of a documented module that is on no page."""
    domain = env.domains.python_domain
    for module in domain.modules:
        for name in import_module(module).__all__:
            if f"{module}.{name}" not in domain.objects:
                logger.warning("%s.%s is public, and on no page of the reference: it has no docstring", module, name)


def setup(app: Sphinx) -> None:
    """Typeset formulas in MathML, which browsers know themselves: nothing is fetched, and no LaTeX is run."""
    app.connect("autodoc-process-docstring", _rubrics, priority=100)
    app.connect("env-check-consistency", _check_reference)
    inline, block = (partial(_mathml, as_block=as_block) for as_block in (False, True))
    app.add_html_math_renderer("mathml", inline_renderers=(inline, None), block_renderers=(block, None))
