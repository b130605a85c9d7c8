"""How `make docs` builds the site: the Markdown pages from where they lie, and docs/api from the docstrings.

The whole repository is the source, so that a link or a picture leads to the same file here and in a checkout.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature

from batchmix import __version__

project = "batchmix"
version = release = __version__
html_title = f"batchmix {version}"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False  # LICENSE says it

root_doc = "README"
include_patterns = ["*.md", "docs/**", "results/article/**"]
exclude_patterns = [".*", "build", "data", "results/first", "runs", "src", "tests"]  # not even looked through

# Without intersphinx: its lists of names come from the network at each build, which fails without one.
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
myst_heading_anchors = 3  # the anchors that links such as #cutmix have on GitHub
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Stand-ins for all frameworks, installed or not: the pages are the same on every machine.
autodoc_mock_imports = [
    "fastai",
    "ignite",
    "keras",
    "lightning",
    "pytorch_lightning",
    "skorch",
    "timm",
    "torchmetrics",
    "torchvision",
    "transformers",
]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: f"batchmix.typing.{name}"
    for name in (
        *("BoxForm", "Cam", "Kernel", "Kind", "Kinds", "Layer", "Look", "LossFn", "Objects", "Per"),
        *("PerChoice", "PerGroup", "PerSample", "Policy", "Schedule"),
    )
}
maximum_signature_line_length = 88  # longer ones have an argument a line
strip_signature_backslash = True  # or an attribute such as mixer_ loses its last sign
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # the signature has the types
napoleon_use_ivar = True  # attributes as a list, like the arguments: a property among them has its own entry

CONTENTS = """

```{toctree}
:hidden:
:caption: Guides

docs/questions
docs/methods
docs/coming-from
docs/examples
docs/scale
```

```{toctree}
:hidden:
:caption: Reference

docs/api/methods
docs/api/beyond
docs/api/targets
docs/api/plans
docs/api/batches
docs/api/adapters
docs/api/study
docs/api/typing
```

```{toctree}
:hidden:
:caption: Measured

docs/article
docs/reports
docs/benchmarks
docs/two-cores
docs/records
```

```{toctree}
:hidden:
:caption: Project

ARCHITECTURE
CONTRIBUTING
CHANGELOG
```
"""

AS_NAMES = {
    r"TypeAliasForwardRef\('([\w.]+)'\)": r"\1",
    r"(?<![\w.~])batchmix\.typing\.": "~batchmix.typing.",  # the sign has the last part shown alone
    r"<class '(?:\w+\.)*(\w+)'>": r"\1",
    "<factory>": "...",
}


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-signature", mend_signature)


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The contents of the site belong to its first page, and would be noise in the README on GitHub."""
    if page == root_doc:
        source[0] += CONTENTS


def mend_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A class over a stand-in has the signature of its own ``__init__``; aliases and defaults are names."""
    if what == "class" and str(thing.__new__.__module__).startswith("sphinx."):
        own = signature(thing.__init__, bound_method=True, type_aliases=autodoc_type_aliases)
        arguments = stringify_signature(own, show_return_annotation=False, unqualified_typehints=True)
    for shown, meant in AS_NAMES.items():
        arguments = re.sub(shown, meant, arguments) if arguments else arguments
    return arguments, returns
