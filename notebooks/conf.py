"""Sphinx: this folder is the book. Built by ``./scripts/docs``."""

import importlib
import inspect
import logging
import re

from sphinx.ext import autosummary

import mpodis

project = "mpodis"
author = "The mpodis developers"
copyright = author
version = release = mpodis.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

logging.getLogger("qiskit").setLevel(logging.WARNING)  # Sphinx would show what its passes log

nb_execution_mode = "off"  # `./scripts/docs --all` sets "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
# sliders do nothing without a kernel: the page shows their figure, and loads no scripts for them
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = False
autosummary.WELL_KNOWN_ABBREVIATIONS += ("Eq.", "Eqs.", "Fig.", "Sec.")
default_role = "py:obj"  # `disentangle` in a docstring is a link
autodoc_typehints = "none"  # types stand in the docstrings
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"mpodis {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]


NAMES = re.compile(r"^```{names} (?P<module>[\w.]+)\n(?P<names>.*?)^```$", re.DOTALL | re.MULTILINE)


def entries(found):
    """A block of names as a table of what they are, and then an entry for each."""
    module = importlib.import_module(found["module"])
    names = found["names"].split()
    lines = ["```{eval-rst}", f".. currentmodule:: {found['module']}", "", ".. autosummary::"]
    lines += ["   :nosignatures:", "", *(f"   {name}" for name in names), ""]
    for name in names:
        value = getattr(module, name)
        if inspect.isclass(value):
            lines += [f".. autoclass:: {name}", "   :members:", "   :member-order: bysource", ""]
        elif callable(value):
            lines += [f".. autofunction:: {name}", ""]
        else:
            lines += [f".. autodata:: {name}", "   :no-value:", ""]
    return "\n".join([*lines, "```"])


def expand_names(app, page, source):
    source[0] = NAMES.sub(entries, source[0])


def plain_bars(app, what, name, obj, options, lines):
    """|M| in a docstring is a norm, not a substitution of reStructuredText."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``|:math:`.*?`)", line)
            lines[i] = "".join(
                part if part.startswith(("``", ":math:")) else re.sub(r"(?<!\\)\|", r"\|", part)
                for part in parts
            )


def keep_numbers_together(app, page, template, context, doctree):
    """Tables of numbers do not wrap; on a phone they scroll."""
    if page == "benchmarks" or (page.startswith("findings/") and not page.endswith("index")):
        app.add_css_file("numbers.css")


def setup(app):
    app.connect("html-page-context", keep_numbers_together)
    app.connect("source-read", expand_names)
    app.connect("autodoc-process-docstring", plain_bars, priority=400)
