"""How the site is built: ``scripts/docs`` (Sphinx, strict: a warning is an error)."""

import importlib.metadata
import re

project = "rnncore"
author = "The rnncore authors"
project_copyright = "The rnncore authors, Apache-2.0"
release = importlib.metadata.version("rnncore")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # generated pages begin where they begin

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature shows them where they were written
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
autodoc_mock_imports = ["sklearn"]  # which the environment of the documentation lacks
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False
nitpicky = False  # docstrings name private and third-party objects by their role

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"rnncore {release}"
html_copy_source = False

_ITEM = re.compile(r"^(\w[\w.]*(?:, \w[\w.]*)*): (\S.*)$")


def _items_to_lists(app, what, name, obj, options, lines):
    """Paragraphs such as ``name: what it is``, with their further lines indented, become lists.

    The docstrings explain the fields of a dataclass and the arguments of short functions so, without a heading.
    """
    found, in_item = [], False
    for number, line in enumerate(lines):
        item = _ITEM.match(line)
        if item and (in_item or not number or not lines[number - 1].strip()):
            found += [] if in_item else [""]
            found.append(f"* ``{item[1]}``: {item[2]}")
            in_item = True
        elif in_item and line.startswith(" "):
            found.append("  " + line.strip())
        else:
            if in_item and line.strip():
                found.append("")
            in_item = False
            found.append(line)
    lines[:] = found


def setup(app):
    """Called by Sphinx; before napoleon, which has the default priority."""
    app.connect("autodoc-process-docstring", _items_to_lists, priority=100)
