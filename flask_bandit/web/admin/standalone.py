"""A bandit's page as one file that needs nothing else: no server, no script, no request.

Must not import Flask-Admin: a report can be written where the dashboard is not installed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from ..pages import BanditPage
from .context import bandit_context
from .numbers import Numbers

_STYLE = "static/bandit_admin/dashboard.css"


def standalone_report(page: BanditPage, app_name: str, locale: str | None = None) -> str:
    """Return a bandit's page as HTML for a file.

    :param app_name: whose bandit it is
    :param locale: of its numbers, such as ``de``; English if left out
    """
    template = environment().get_template("bandit_admin/report.html")
    return template.render(
        app_name=app_name,
        css=Markup(_style()),
        **bandit_context(page, Numbers(locale)),
    )


@cache
def environment() -> Environment:
    """Return what renders the templates where there is no app."""
    return Environment(
        loader=PackageLoader("flask_bandit.web.admin"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _style() -> str:
    return files("flask_bandit.web.admin").joinpath(_STYLE).read_text(encoding="utf-8")
