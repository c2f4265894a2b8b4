"""The documentation site: ``python -m sphinx -W -b html docs docs/_build/html`` with the extra ``docs``.

The pages are Markdown by myst-nb. Nothing is executed here, because the tests execute the programs on the pages.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import api_pages  # noqa: E402

import yolojax  # noqa: E402

project, author, copyright = "yolojax", "The yolojax authors", "the yolojax authors"
version = release = yolojax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/README.md"]
nb_execution_mode = "off"
myst_enable_extensions = ["deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
# Links from the pages into the repository (experiments, examples, source) lead to files that are no pages of the site.
suppress_warnings = ["myst.xref_missing", "myst.header"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": False}
default_role = "any_or_code"
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "yolojax"
html_static_path = []


def setup(app):
    """Writes the pages of the reference, and makes single backquotes code where they name nothing of the site."""
    from docutils import nodes

    def as_code(name, rawtext, text, lineno, inliner, options=None, content=()):
        return [nodes.literal(rawtext, text)], []

    app.add_role("any_or_code", as_code)
    api_pages.write(Path(__file__).parent / "api")
