"""Sphinx settings. Nothing is fetched from the network: no intersphinx, no remote images."""

from __future__ import annotations

from typing import Any

from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import flask_bandit

project = "Flask-Bandit"
author = "The Flask-Bandit contributors"
project_copyright = f"2026, {author}"
release = flask_bandit.__version__
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
root_doc = "index"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80

# A reference that leads nowhere is an error; other packages' objects are not linked.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(flask|werkzeug|numpy|sqlalchemy|blinker|collections|typing|pathlib|np|npt|os)\..*",
    ),
    (
        r"py:.*",
        r"(flask_bandit\.web\.(decorators\.(View|RewardingRedirect)|hooks\.Hook|contexts\.\w+)|flask_bandit\.engine\.Engine|flask_bandit\.features\._\w+|tuple\[str|BanditOptions|ContextualOptions|ContextSource|Any|Flask|Response|Callable|ClassVar|Iterable|Iterator|Mapping|Sequence)",
    ),
    (r"py:.*", r"(bool|bytes|dict|float|frozenset|int|list|object|str|tuple|type|None)"),
    (r"py:class", r"dict\[~.*|flask_bandit\.testing\.(proxy\.FaultProxy|forced\.Forcing)"),
    (r"py:exc", r"(ValueError|TypeError|KeyError|LookupError|RuntimeError|Exception|OSError)"),
    (r"py:class", r"(ValueError|LookupError|RuntimeError|Exception|NamedTuple|ABC|Protocol)"),
]

html_theme = "furo"
html_title = f"{project} {release}"


def resolve_short_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Any) -> Any:
    """Let a docstring name a class of another module without saying where it is."""
    if node.get("refdomain") != "py" or node.get("refspecific"):
        return None
    node["refspecific"] = True
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], node["reftarget"], node, content
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the above; Sphinx calls this."""
    app.connect("missing-reference", resolve_short_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
