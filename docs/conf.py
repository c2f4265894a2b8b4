"""The documentation site: ``python -m sphinx -W docs docs/_build/html`` with the extra ``docs``.

The pages are Markdown by myst-nb. The notebooks in ``examples/`` are executed while the site is built, so that their
output is that of the present code, and an error in a cell ends the build. A page that has not changed since the last
build keeps its output; without ``docs/_build`` all are executed anew, which takes some minutes. With
``YOLOJAX_DOCS_EXECUTE=off`` none is, and the pages show no output.
"""

import os
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
nb_execution_mode = "off" if os.environ.get("YOLOJAX_DOCS_EXECUTE") == "off" else "cache"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
os.environ["PYTHONPATH"] = os.pathsep.join([str(DOCS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Links into the repository lead to files that are no pages of the site; docstrings begin with any level of heading.
suppress_warnings = ["myst.xref_missing", "myst.header"]
highlight_language = "none"

html_theme = "furo"
html_title = "yolojax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
