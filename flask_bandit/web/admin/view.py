"""The dashboard's pages, as a view of Flask-Admin (extra ``admin``); loaded only when it is used.

The one module that imports Flask-Admin. What a bandit's page says is made by ``context.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    redirect,
    request,
    stream_with_context,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_admin import BaseView, expose
from flask_admin.form import SecureForm

from ...control import ARCHIVED
from ...engine import logger
from ...errors import ConfigurationError, LifecycleError, StorageError, UnknownBanditError
from ..actions import Action
from ..identity import StorageAwayError
from ..pages import BanditPage, read_page, read_pages
from ..reports import BanditReport, Stored, report
from ..state import AppState, app_state
from . import files
from .access import may_enter, person
from .actions import (
    CHOSEN_LATER,
    IS_OFF,
    OFF,
    OFFERS,
    SEEN,
    WEIGHT,
    Offer,
    arms_of,
    note,
    offered,
    perform,
    sample,
)
from .context import bandit_context, index_context
from .log import LogFilter, LogPage, parse_filter, parse_position, read_log_page
from .models import serving_context
from .numbers import Numbers

NO_MODEL = "no model was judged to be better than what serves; train one and evaluate it first"
LATEST = 10
"""Decisions on a bandit's own page."""
_HERE = Path(__file__).parent
_View = TypeVar("_View", bound=Callable[..., Any])


def _route(url: str, *methods: str) -> Callable[[_View], _View]:
    marked: Callable[[_View], _View] = expose(url, methods or ("GET",))
    return marked


class _TokenForm(SecureForm):  # type: ignore[misc]
    """Nothing but a token that is bound to the session; good for 30 minutes."""

    class Meta(SecureForm.Meta):  # type: ignore[misc]
        # Not the name that Flask-WTF has for its own.
        csrf_field_name = "bandits_token"


class BanditAdmin(BaseView):  # type: ignore[misc]
    """Shows an app's bandits, what was decided and earned, and does to them what operators may.

    ``admin.add_view(BanditAdmin(access=...))``, where ``admin`` is the app's ``Admin`` of
    Flask-Admin.

    :param access: returns True if whoever sends the request may see and do everything. Without it
        the dashboard is open in debug mode and answers 403 otherwise
    :param who: returns who it is, for the history and the audit log. By default the user of
        Flask-Login, the user name of Basic authentication, or the address
    :param name: what the menu calls it
    :param endpoint: how the endpoints of its views begin
    :param url: where it is; by default the endpoint below Flask-Admin's own URL
    :param category: of the menu
    :raises ConfigurationError: ``access`` or ``who`` cannot be called
    """

    def __init__(
        self,
        access: Callable[[], Any] | None = None,
        who: Callable[[], Any] | None = None,
        name: str = "Bandits",
        endpoint: str = "bandits",
        url: str | None = None,
        category: str | None = None,
    ) -> None:
        for argument, given in (("access", access), ("who", who)):
            if given is not None and not callable(given):
                raise ConfigurationError(
                    f"{argument} is {given!r}; give a function that is asked at each request, such "
                    f"as {argument}=lambda: current_user.is_admin"
                )
        super().__init__(
            name=name,
            category=category,
            endpoint=endpoint,
            url=url,
            static_folder=str(_HERE / "static"),
            # Said, since Flask-Admin would give its own.
            static_url_path="/assets",
        )
        self._access = access
        self._who = who
        self._has_warned = False

    def create_blueprint(self, admin: Any) -> Blueprint:
        """Return the blueprint, with templates of its own."""
        blueprint: Blueprint = super().create_blueprint(admin)
        blueprint.template_folder = str(_HERE / "templates")
        blueprint.after_request(self._keep_private)
        return blueprint

    def is_accessible(self) -> bool:
        """Return whether whoever sends the request may enter; the menu asks too."""
        return may_enter(self._access)

    def inaccessible_callback(self, name: str, **kwargs: Any) -> ResponseReturnValue:
        """Answer strangers with 403."""
        if self._access is not None:
            abort(403, "You may not see the bandits.")
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The dashboard is closed, because the app does not say who may enter: write "
                "BanditAdmin(access=...) with a function that returns True or False"
            )
        abort(403, "The dashboard is closed: the app does not say who may enter.")

    def render(self, template: str, **kwargs: Any) -> str:
        """Return a page in the layout of Flask-Admin."""
        page: str = super().render(
            template,
            is_open_in_debug=self._access is None,
            is_enabled=app_state().config.enabled,
            bandit_url=self._url,
            **kwargs,
        )
        # Its layout names no language, and a screen reader has to guess; and it says twice what a
        # <nav> is.
        return page.replace("<html>", '<html lang="en">', 1).replace(' role="navigation"', "", 1)

    @_route("/")
    def index(self) -> ResponseReturnValue:
        """Show all bandits."""
        pages = tuple(read_pages(app_state()))
        with_archived = "archived" in request.args
        shown = [page for page in pages if with_archived or page.report.state != ARCHIVED]
        return self.render(
            "bandit_admin/index.html",
            **index_context(shown, _numbers()),
            archived=len(pages) - len(shown),
        )

    @_route("/bandit")
    def bandit(self) -> ResponseReturnValue:
        """Show all about a bandit."""
        state, page = app_state(), _page()
        found = page.report
        context = self._bandit_context(page)
        return self.render(
            "bandit_admin/bandit.html",
            **context,
            name=found.name,
            offers=offered(found, bool(context["model_choices"])),
            log=read_log_page(state.storage, LogFilter(found.name, found.version), size=LATEST),
            arms=[each.arm for each in found.arms],
            asked={"version": str(found.version)},
            is_first=True,
            files=files,
        )

    @_route("/live")
    def live(self) -> ResponseReturnValue:
        """Return what changes on a bandit's page, without the page around it."""
        try:
            page = _page()
        except StorageError as error:
            return Response(f"The storage is down: {error}", 503, mimetype="text/plain")
        return self.render("bandit_admin/_bandit.html", **self._bandit_context(page))

    @_route("/log")
    def log(self) -> ResponseReturnValue:
        """Show the decisions of a bandit, the newest first."""
        state = app_state()
        found = _report(state)
        shown, problem = LogPage((), None, None), ""
        try:
            wanted, before = _filter(state, found), parse_position(request.args)
        except ValueError as error:
            problem = str(error)
        else:
            shown = read_log_page(state.storage, wanted, before)
        page = self.render(
            "bandit_admin/log.html",
            name=found.name,
            arms=[each.arm for each in found.arms],
            report=found,
            numbers=_numbers(),
            asked={key: request.args[key] for key in _ASKED if request.args.get(key)},
            log=shown,
            problem=problem,
            is_first=not request.args.get("before"),
            files=files,
        )
        return page, 400 if problem else 200

    @_route("/log.<any(csv, jsonl):ending>")
    def export(self, ending: str) -> ResponseReturnValue:
        """Send the decisions of a bandit as a file, the oldest first."""
        state = app_state()
        found = _report(state)
        try:
            entries = _filter(state, found).entries(state.storage)
        except ValueError as error:
            abort(400, str(error))
        # Read before the answer begins, so that an outage can still be told. In a later one the
        # connection breaks, and nobody takes half a file for all of it.
        first = tuple(islice(entries, 1))
        media_type, chunks = files.FORMATS[ending]
        response = Response(stream_with_context(chunks(chain(first, entries))), mimetype=media_type)
        response.headers.set(
            "Content-Disposition", "attachment", filename=files.file_name(found.name, ending)
        )
        return response

    @_route("/do/<action>", "GET", "POST")
    def do(self, action: str) -> ResponseReturnValue:
        """Ask whether something shall be done to a bandit, and do it."""
        if action not in OFFERS:
            abort(404)
        state = app_state()
        found = _report(state)
        form = _TokenForm(request.form)
        if request.method == "POST":
            return self._perform(state, found, OFFERS[action], form)
        try:
            planned = Action(
                state, [found.name], action, sample(found, action), "", state.config.storage_timeout
            )
        except LifecycleError as error:
            return self._confirm(found, OFFERS[action], None, str(error), 409)
        if action in CHOSEN_LATER:
            return self._confirm(found, OFFERS[action], form)
        if found.name not in planned.changing:
            return self._confirm(found, OFFERS[action], None, f"it is {found.state} already")
        becomes = planned.visitors(found.name, planned.changing[found.name])
        return self._confirm(found, OFFERS[action], form, becomes=becomes)

    def _perform(
        self, state: AppState, found: BanditReport, offer: Offer, form: _TokenForm
    ) -> ResponseReturnValue:
        by, name = person(self._who), found.name
        if not form.validate():
            note(by, offer.action, name, None, "refused, the form's token is wrong")
            problem = "the form is too old, or it was sent by another site; look at it and send it"
            return self._confirm(found, offer, form, f"{problem} once more", 400)
        # Somebody who presses twice does not want to reset twice.
        if request.form.get("version") != str(found.version):
            problem = f"it was reset meanwhile, and is version {found.version} now; look again"
            return self._confirm(found, offer, form, problem, 409)
        try:
            told, is_changed = perform(state, found, offer.action, request.form, by)
        except LifecycleError as error:
            return self._confirm(found, offer, form, str(error), 409)
        except ValueError as error:
            return self._confirm(found, offer, form, str(error), 400)
        flash(told, "success" if is_changed else "info")
        return redirect(self._url(name), 303)

    def _confirm(
        self,
        found: BanditReport,
        offer: Offer,
        form: _TokenForm | None,
        problem: str = "",
        status: int = 200,
        becomes: str = "",
    ) -> ResponseReturnValue:
        arms = arms_of(found)
        models: dict[str, Any] = {}
        if offer.action == "deploy" and form is not None:
            asked = request.form.get("model") or request.args.get("model")
            models = serving_context(read_page(app_state(), found.name), _numbers(), asked)
            if not models["choices"]:
                form, problem = None, problem or NO_MODEL
        page = self.render(
            "bandit_admin/confirm.html",
            name=found.name,
            found=found,
            offer=offer,
            form=form,
            problem=problem,
            becomes=becomes,
            arms=[each for each in found.arms if each.arm in arms],
            weight_field=WEIGHT,
            off_field=OFF,
            seen_field=SEEN,
            is_off_seen=IS_OFF,
            sent=request.form,
            **models,
        )
        return page, status

    def _bandit_context(self, page: BanditPage) -> dict[str, Any]:
        shown, name = page.report, page.report.name
        version = None if shown.is_current else shown.version
        return {
            **bandit_context(page, _numbers()),
            "live_url": url_for(".live", name=name, version=version),
        }

    def _url(self, name: str, version: int | None = None) -> str:
        # A name may be anything, also "a/b" and "..", so it is no part of the path.
        return url_for(f"{self.endpoint}.bandit", name=name, version=version)

    def _run_view(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a view; Flask-Admin's own would run it again after a TypeError."""
        try:
            return fn(self, *args, **kwargs)
        except UnknownBanditError as error:
            abort(404, str(error))
        except StorageError as error:
            logger.error("The dashboard cannot be shown: %s", error)
            return self.render("bandit_admin/away.html", error=str(error)), 503

    def _keep_private(self, response: Response) -> Response:
        if request.endpoint != f"{self.endpoint}.static":
            response.headers["Cache-Control"] = "no-store"
            response.headers["X-Robots-Tag"] = "noindex, nofollow"
            response.headers["X-Content-Type-Options"] = "nosniff"
            # No other site may put these buttons under its own.
            response.headers.setdefault("X-Frame-Options", "SAMEORIGIN")
        return response


_ASKED = ("version", "arm", "subject", "since", "until")
"""The names of what a log can be filtered by."""


def _numbers() -> Numbers:
    return Numbers.best_of(request.accept_languages)


def _page() -> BanditPage:
    text, version = request.args.get("version", ""), None
    if text:
        try:
            version = int(text)
        except ValueError:
            abort(404, f"{text!r} is no version")
    return read_page(app_state(), request.args.get("name", ""), version)


def _report(state: AppState) -> BanditReport:
    stored = Stored.read(state.bandits, state.storage, state.config.storage_timeout)
    return report(stored, request.args.get("name", ""))


def _filter(state: AppState, found: BanditReport) -> LogFilter:
    def known_as(subject: str) -> tuple[Collection[str], Collection[str]]:
        """Return the user's pseudonyms, and what they had decided before they signed in."""
        person = state.subject(subject)
        ids: set[str] = set()
        for version in found.versions:
            try:
                ids |= person.decision_ids(found.name, version, state.engine.attempt())
            except StorageAwayError:
                raise StorageError("the storage is down, so the subject cannot be found") from None
        return state.pseudonyms(subject), ids

    wanted = parse_filter(found.name, request.args, known_as)
    if wanted.version is not None and wanted.version not in found.versions:
        abort(404, f"{found.name!r} has no version {wanted.version}")
    return wanted
