"""``flask bandit report``: one file that needs nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from flask_bandit.storage import MemoryBanditStorage, SQLiteBanditStorage
from flask_bandit.web.admin.standalone import standalone_report
from flask_bandit.web.cli_report import report_command
from tests.web.admin.made import made_page
from tests.web.admin.reading import Html
from tests.web.admin.test_charts import values
from tests.web.conftest import make_app, pulls


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An app whose button was seen by 12 visitors and pressed by 4 of them."""
    app = make_app(MAB_STORAGE_ENGINE=SQLiteBanditStorage(tmp_path / "bandits.db"), TESTING=True)
    for number in range(12):
        client = app.test_client()
        client.get("/btn", headers={"User-Agent": "Firefox"})
        if number % 3 == 0:
            client.post("/btn/click", headers={"User-Agent": "Firefox"})
    return app


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(report_command, list(arguments))


def test_a_report_has_the_numbers_of_the_storage(app: Flask, tmp_path: Path) -> None:
    seen = pulls(app)
    file = tmp_path / "report.html"
    result = run(app, "btn", "--html", str(file))
    assert result.exit_code == 0, result.output
    assert result.output == f"Wrote {file}: version 1 of btn.\n"
    html = Html(file.read_text(encoding="utf-8"))
    found = [float(tag.attributes["data-value"]) for tag in html.found("td", data_name="pulls")]
    assert sum(found) == seen == 12
    found = [float(tag.attributes["data-value"]) for tag in html.found("td", data_name="rewards")]
    assert sum(found) == 4
    charts = re.findall(r'<svg [^>]*class="chart".*?</svg>', file.read_text(), flags=re.DOTALL)
    assert len(charts) == 3 + 3
    assert values(charts[0], "area").keys() == {"green", "red", "blue"}


def test_a_report_needs_nothing_else() -> None:
    page = made_page({"green": 0.1, "</style><script>alert(1)</script>": 0.2}, 200, spans=4)
    text = standalone_report(page, "shop")
    html = Html(text)
    assert html.problems() == []
    assert not html.found("link")
    assert not html.found("img")
    assert not [tag for tag in html.tags if {"src", "href", "action"} & tag.attributes.keys()]
    assert "url(" not in text
    policy = html.found("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    assert policy.startswith("default-src 'none'")
    assert html.found("title")[0].text == "btn - shop"
    assert "UTC" in html.found("p", class_="read-at")[0].text


def test_a_report_in_another_language_and_of_an_older_version(app: Flask, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    with app.app_context():
        from flask_bandit.web.actions import Action
        from flask_bandit.web.state import app_state

        Action(app_state(), ["btn"], "reset", None, "ann").do("btn")
    assert run(app, "btn", "--html", str(file), "--version", "1", "--locale", "de").exit_code == 0
    text = Html(file.read_text(encoding="utf-8")).found("main")[0].text
    assert "This is an older version" in text
    assert re.search(r"\d,\d\d\s%", text)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["buttn"], "did you mean 'btn'?"), (["btn", "--version", "7"], "has no version 7")],
)
def test_what_is_not_there_is_said(
    app: Flask, tmp_path: Path, arguments: list[str], told: str
) -> None:
    result = run(app, *arguments, "--html", str(tmp_path / "report.html"))
    assert result.exit_code == 1
    assert told in result.output
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written_is_said(app: Flask, tmp_path: Path) -> None:
    result = run(app, "btn", "--html", str(tmp_path / "none" / "report.html"))
    assert result.exit_code == 1
    assert "No such file or directory" in result.output


def test_it_says_that_memory_is_empty(tmp_path: Path) -> None:
    app = make_app(MAB_STORAGE_ENGINE=MemoryBanditStorage())
    result = run(app, "btn", "--html", str(tmp_path / "report.html"))
    assert result.exit_code == 0
    assert "note: this app keeps its bandits in memory" in result.output


@pytest.mark.parametrize("missing", ["pygal", "babel"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from tests.web.conftest import make_app
from flask_bandit.web.cli_report import report_command
result = make_app().test_cli_runner().invoke(report_command, ["btn", "--html", "x.html"])
print(result.exit_code, result.output)
"""
    root = str(Path(__file__).parents[3])
    done: Any = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": root},
    )
    assert done.stdout.startswith("1 "), done.stderr
    assert "pip install 'Flask-Bandit[admin]'" in done.stdout
    assert not (tmp_path / "x.html").exists()
