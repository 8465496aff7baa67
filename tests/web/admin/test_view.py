"""The dashboard's pages: what is on them, odd names, outages, and how it is put into an app."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import Any

import pytest
from flask import Flask, url_for
from flask_admin import Admin, BaseView, expose

import flask_bandit
from flask_bandit import BanditMiddleware
from flask_bandit.bandits import Bandit
from flask_bandit.errors import ConfigurationError, StorageError
from flask_bandit.storage import MemoryBanditStorage
from flask_bandit.storage.base import BanditStorage
from flask_bandit.testing.storage_samples import decision, decisions
from flask_bandit.web.actions import Action
from flask_bandit.web.admin import BanditAdmin
from flask_bandit.web.pages import BanditPage, read_page
from flask_bandit.web.state import app_state
from tests.web.conftest import make_app, set_cookies

from .conftest import ROOT, admin_app, do, open_to_all

HOSTILE = "</script><script>alert(1)</script>"
ODD = [
    "a/b",
    "..",
    ".",
    "log.csv",
    "do/reset",
    "a b",
    "a?b=c&d",
    "#1",
    "\u00e9\U0001f3b2",
    "",
    "%2f",
]
PAGES = ("", "bandit?name=btn", "live?name=btn", "log?name=btn", "do/pause?name=btn")


def visit(app: Flask, times: int = 20) -> None:
    for number in range(times):
        client = app.test_client()
        client.get("/btn")
        if number % 2:
            client.get("/btn/click")


def test_the_list_leads_to_each_bandit(storage: BanditStorage) -> None:
    app = admin_app("btn", "search", storage=storage)
    storage.commit(decisions(decision("d", bandit="gone")))
    visit(app)
    page = app.test_client().get(ROOT)
    assert page.status_code == 200
    links = {html.unescape(link) for link in re.findall(r'href="([^"]*/bandit\?[^"]*)"', page.text)}
    assert links == {f"{ROOT}bandit?name={name}" for name in ("btn", "search", "gone")}


def test_archived_bandits_are_shown_on_demand() -> None:
    app = admin_app("btn", "search")
    client = app.test_client()
    do(client, "archive", "search")
    client.get(f"{ROOT}bandit?name=search")  # what was done is told once
    page = client.get(ROOT).text
    assert "name=search" not in page
    assert "Show 1 archived too" in page
    assert "name=search" in client.get(f"{ROOT}?archived=1").text


def test_a_bandits_page(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    visit(app)
    page = app.test_client().get(f"{ROOT}bandit?name=btn").text
    assert "<h1><bdi>btn</bdi></h1>" in page
    assert f'data-live="{ROOT}live?name=btn"' in page
    newest = list(storage.iter_log("btn"))[-1].decision
    assert f"<code>{newest.id}</code>" in page
    assert page.count("<tr>") >= 10


def test_what_changes_on_a_page_comes_alone() -> None:
    app = admin_app()
    visit(app)
    client = app.test_client()
    live = client.get(f"{ROOT}live?name=btn")
    assert live.status_code == 200
    assert live.mimetype == "text/html"
    assert "<html" not in live.text
    assert "<main" not in live.text
    assert live.text.strip()
    page = client.get(f"{ROOT}bandit?name=btn").text
    first_line = live.text.strip().splitlines()[0]
    assert first_line in page


def test_an_older_version(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    visit(app, 5)
    client = app.test_client()
    do(client, "reset")
    page = client.get(f"{ROOT}bandit?name=btn&version=1")
    assert page.status_code == 200
    assert f'data-live="{ROOT}live?name=btn&amp;version=1"' in page.text
    assert client.get(f"{ROOT}live?name=btn&version=1").status_code == 200
    # Nobody has come to version 2 yet.
    newest = list(storage.iter_log("btn"))[-1].decision
    assert f"<code>{newest.id}</code>" in page.text
    assert newest.id not in client.get(f"{ROOT}bandit?name=btn").text
    for page_name in ("bandit", "live", "log", "log.csv"):
        for version in (0, 3, 10**30, -1):
            url = f"{ROOT}{page_name}?name=btn&version={version}"
            assert client.get(url).status_code == 404
    for page_name in ("bandit", "live"):
        assert client.get(f"{ROOT}{page_name}?name=btn&version=abc").status_code == 404


def test_what_is_done_later_changes_nothing_of_an_older_version() -> None:
    app = admin_app()
    visit(app, 30)
    client = app.test_client()
    do(client, "pause")
    do(client, "resume")
    do(client, "reset")
    before = read_state_page(app, 1)
    arms = [each.arm for each in before.report.arms]
    do(client, "declare", arm=arms[1])
    do(client, "reopen")
    with app.app_context():
        Action(app_state(app), ["btn"], "weights", {arms[0]: None}).do("btn")
    after = read_state_page(app, 1)
    assert after.results == before.results
    assert [mark.what.split()[0] for mark in after.marks] == ["pause", "resume", "reset"]
    assert [mark.what.split()[0] for mark in read_state_page(app, 2).marks] == [
        "reset",
        "declare",
        "reopen",
        "weights",
    ]
    text = client.get(f"{ROOT}bandit?name=btn&version=1").text
    assert 'class="state' not in text


def read_state_page(app: Flask, version: int) -> BanditPage:
    with app.app_context():
        return read_page(app_state(app), "btn", version)


def test_who_did_something_before_the_first_visitor_is_told() -> None:
    app = admin_app()
    client = app.test_client()
    do(client, "pause")
    assert "pause (by ann)" in client.get(f"{ROOT}bandit?name=btn").text


@pytest.mark.parametrize(
    "path", ["bandit", "bandit?name=nothing", "live?name=nothing", "log?name=", "log.csv?name=x"]
)
def test_unknown_bandits(path: str) -> None:
    answer = admin_app().test_client().get(ROOT + path)
    assert answer.status_code == 404
    assert "there is no bandit" in answer.text


def test_a_misspelt_name_is_told_and_not_run() -> None:
    answer = admin_app().test_client().get(f"{ROOT}bandit", query_string={"name": HOSTILE})
    assert answer.status_code == 404
    assert "<script>" not in answer.text


@pytest.mark.parametrize("name", ODD)
def test_odd_names(storage: BanditStorage, name: str) -> None:
    app = admin_app(storage=storage)
    storage.commit(decisions(decision("d1", bandit=name)))
    client = app.test_client()
    listed = client.get(ROOT).text
    links = [html.unescape(link) for link in re.findall(r'href="([^"]*/bandit\?[^"]*)"', listed)]
    (link,) = [link for link in links if link != f"{ROOT}bandit?name=btn"]
    page = client.get(link)
    assert page.status_code == 200
    urls = re.findall(r'(?:href|data-live)="([^"]*/bandits/(?:live|log|do)[^"]*)"', page.text)
    assert len(urls) >= 4
    for url in map(html.unescape, urls):
        answer = client.get(url)
        assert answer.status_code == 200, url
        if "/log" in url:
            assert "d1" in answer.text
    assert do(client, "archive", name).status_code == 303
    assert storage.read_control()[name]["state"] == "archived"


def test_hostile_texts_are_shown_as_texts(storage: BanditStorage) -> None:
    bandit = Bandit()
    bandit.add_arm(HOSTILE)
    bandit.add_arm('" onload="alert(1)')
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, MAB_STORAGE_ENGINE=storage, TESTING=True)
    mab = BanditMiddleware(app)
    mab.add_bandit(HOSTILE, bandit)
    Admin(app).add_view(BanditAdmin(open_to_all, who=lambda: HOSTILE))
    made = decision(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        subject=HOSTILE,
        policy_version=HOSTILE,
        context={HOSTILE: HOSTILE},
        propensities={HOSTILE: 0.5, '" onload="alert(1)': 0.5},
    )
    storage.commit(decisions(made))
    client = app.test_client()
    query = {"name": HOSTILE, "subject": HOSTILE, "arm": '" onload="alert(1)', "since": HOSTILE}
    do(client, "weights", HOSTILE, **{f"weight:{HOSTILE}": "2"})
    paths = ("", "bandit", "live", "log", "do/declare", "do/weights", "do/reset")
    for path in paths:
        for asked in (query, {"name": HOSTILE}):
            page = client.get(ROOT + path, query_string=asked).text
            assert "<script>alert" not in page, path
            assert ' onload="' not in page, path
            assert path == "" or html.escape(HOSTILE) in page or "</html>" not in page, path


@pytest.mark.parametrize("path", PAGES)
def test_headers(path: str) -> None:
    answer = admin_app().test_client().get(ROOT + path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"


def test_the_app_has_the_last_word_on_headers() -> None:
    app = admin_app()

    @app.after_request
    def deny(response: Any) -> Any:
        response.headers["X-Frame-Options"] = "DENY"
        return response

    assert app.test_client().get(ROOT).headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_works_under_a_strict_policy(path: str) -> None:
    """Nothing in it that ``default-src 'self'`` would stop, nor anything from elsewhere."""
    app = admin_app()
    visit(app)
    page = app.test_client().get(ROOT + path).text
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=|javascript:", page)
    for url in re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]*)"', page):
        assert url.startswith("/admin/"), url


@pytest.mark.parametrize("path", [path for path in PAGES if not path.startswith("live")])
def test_a_page_is_whole(path: str) -> None:
    page = admin_app().test_client().get(ROOT + path).text
    assert page.count('<html lang="en">') == page.count("</html>") == 1
    assert page.count("<main") == page.count("</main>") == page.count("<h1>") == 1
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_styles_and_scripts_are_served() -> None:
    client = admin_app().test_client()
    page = client.get(f"{ROOT}bandit?name=btn").text
    own = re.findall(r'"(/admin/bandits/assets/[^"]*)"', page)
    assert len(own) >= 2
    for url in own:
        with client.get(url) as answer:
            assert answer.status_code == 200
            assert answer.get_data()
            assert answer.headers.get("Cache-Control") != "no-store"


def test_the_dashboard_is_no_visitor(storage: BanditStorage) -> None:
    app = admin_app(storage=storage)
    client = app.test_client()
    for path in PAGES:
        assert not set_cookies(client.get(ROOT + path))
    do(client, "pause")
    assert not storage.read_counts()


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [*PAGES, "log.csv?name=btn", "log.jsonl?name=btn"])
def test_other_methods(path: str, method: str) -> None:
    answer = admin_app().test_client().open(ROOT + path, method=method)
    assert answer.status_code == 200
    assert answer.text == ""


# The storage is down.


class Down(MemoryBanditStorage):
    down = False

    def read_counts(self, timeout: float | None = None) -> Any:
        if self.down:
            raise StorageError("no route to <host>")
        return super().read_counts(timeout)


@pytest.mark.parametrize("path", [*PAGES, "log.csv?name=btn", "log.jsonl?name=btn"])
def test_an_outage_is_told_and_over_when_it_is_over(path: str) -> None:
    storage = Down()
    client = admin_app(storage=storage).test_client()
    storage.down = True
    answer = client.get(ROOT + path)
    assert answer.status_code == 503
    if path.startswith("live"):
        assert answer.mimetype == "text/plain"
        assert answer.text == "The storage is down: no route to <host>"
    else:
        assert "no route to &lt;host&gt;" in answer.text
        assert "<h1>The storage is down</h1>" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    storage.down = False
    assert client.get(ROOT + path).status_code == 200


def test_an_outage_of_the_log_alone() -> None:
    class NoLog(MemoryBanditStorage):
        def iter_log(self, *args: Any, **kwargs: Any) -> Any:
            raise StorageError("the disk is broken")
            yield  # told when the first decision is asked for, as most storages do

    client = admin_app(storage=NoLog()).test_client()
    for path in ("log?name=btn", "log.csv?name=btn", "log.jsonl?name=btn"):
        assert client.get(ROOT + path).status_code == 503


def test_an_outage_while_a_subject_is_looked_up() -> None:
    class NoDecisions(MemoryBanditStorage):
        def get_decisions(self, *args: Any, **kwargs: Any) -> Any:
            raise StorageError("the disk is broken")

    client = admin_app(storage=NoDecisions()).test_client()
    assert client.get(f"{ROOT}log?name=btn&subject=user-42").status_code == 503


# How it is put into an app.


def test_an_app_that_has_flask_admin() -> None:
    class Own(BaseView):  # type: ignore[misc]
        @expose("/")  # type: ignore[untyped-decorator]
        def index(self) -> str:
            return str(self.render("admin/index.html"))

    app = make_app(TESTING=True)
    admin = Admin(app, name="Shop", url="/backstage")
    admin.add_view(Own(name="Own", endpoint="own"))
    admin.add_view(BanditAdmin(access=open_to_all))
    client = app.test_client()
    page = client.get("/backstage/bandits/").text
    assert "<title>Bandits - Shop</title>" in page
    assert 'href="/backstage/own/"' in page
    assert 'href="/backstage/bandits/"' in client.get("/backstage/own/").text


def test_an_app_whose_extensions_come_later() -> None:
    admin = Admin()
    admin.add_view(BanditAdmin(access=open_to_all))
    app = Flask("shop")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    admin.init_app(app)
    BanditMiddleware(app)
    assert app.test_client().get(ROOT).status_code == 200


def test_two_apps_show_their_own_bandits() -> None:
    apps = [admin_app("one"), admin_app("two")]
    pages = [app.test_client().get(ROOT).text for app in apps]
    assert ["name=one" in page for page in pages] == [True, False]
    assert ["name=two" in page for page in pages] == [False, True]


def test_a_dashboard_at_the_root_of_the_site() -> None:
    app = Flask("ops")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    BanditMiddleware(app)
    Admin(app).add_view(BanditAdmin(access=open_to_all, url="/"))
    client = app.test_client()
    page = client.get("/")
    assert page.status_code == 200
    (style,) = re.findall(r'"([^"]*dashboard\.css)"', page.text)
    with client.get(style) as answer:
        assert answer.status_code == 200


def test_an_app_below_a_prefix() -> None:
    client = admin_app().test_client()
    page = client.get(f"{ROOT}bandit?name=btn", environ_overrides={"SCRIPT_NAME": "/shop"}).text
    assert 'data-live="/shop/admin/bandits/live?name=btn"' in page


def test_links_to_it_can_be_made() -> None:
    app = admin_app()
    with app.test_request_context():
        assert url_for("bandits.index") == ROOT
        assert url_for("bandits.bandit", name="btn") == f"{ROOT}bandit?name=btn"


def test_an_app_without_bandits() -> None:
    app = Flask("plain")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True)
    Admin(app).add_view(BanditAdmin(access=open_to_all))
    client = app.test_client()
    assert client.get("/admin/").status_code == 200
    with pytest.raises(ConfigurationError, match="call BanditMiddleware"):
        client.get(ROOT)


def test_an_app_with_no_bandit_yet() -> None:
    app = Flask("plain")
    app.config.update(SECRET_KEY="k" * 32, TESTING=True, MAB_STORAGE_ENGINE=MemoryBanditStorage())
    BanditMiddleware(app)
    Admin(app).add_view(BanditAdmin(access=open_to_all))
    assert app.test_client().get(ROOT).status_code == 200


def test_a_nonce_is_on_each_script_and_style() -> None:
    app = make_app(TESTING=True)
    admin = Admin(app, csp_nonce_generator=lambda: "n0nce")
    admin.add_view(BanditAdmin(access=open_to_all))
    page = app.test_client().get(f"{ROOT}bandit?name=btn").text
    tags = re.findall(r"<(?:script|link)[^>]*>", page)
    assert len(tags) > 5
    assert all('nonce="n0nce"' in tag for tag in tags)


@pytest.mark.parametrize("missing", ["flask_admin", "babel", "pygal"])
def test_without_the_extra_an_error_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import flask_bandit.web.admin\n"
        "from flask_bandit.errors import ConfigurationError\n"
        "try:\n"
        "    flask_bandit.web.admin.BanditAdmin\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'Flask-Bandit[admin]'" in ran.stdout


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'BanditPage'"):
        flask_bandit.web.admin.BanditPage  # noqa: B018


def test_it_says_that_bandits_are_switched_off() -> None:
    for enabled in (True, False):
        client = admin_app(MAB_ENABLED=enabled).test_client()
        for path in ("", "bandit?name=btn", "do/pause?name=btn"):
            assert ("switched off by" in client.get(ROOT + path).text) is not enabled
