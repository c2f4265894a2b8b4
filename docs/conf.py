"""The documentation site: ``python -m sphinx -W docs docs/_build/html`` with the extra ``docs``.

The pages are Markdown by myst-nb. Nothing is executed here, because the tests execute the programs on the pages.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import api_pages  # noqa: E402

import yolojax  # noqa: E402

api_pages.write(DOCS / "api")

project, author, copyright = "yolojax", "The yolojax authors", "the yolojax authors"
version = release = yolojax.__version__

extensions = ["myst_nb"]
exclude_patterns = ["_build"]
nb_execution_mode = "off"
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Links into the repository lead to files that are no pages of the site; docstrings begin with any level of heading.
suppress_warnings = ["myst.xref_missing", "myst.header"]
highlight_language = "none"

html_theme = "furo"
html_title = "yolojax"
