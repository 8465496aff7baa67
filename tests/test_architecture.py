"""The house keeps its shape: budgets, layers, bare imports, public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flask_bandit

PACKAGE = Path(flask_bandit.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_LINES = 400
MAX_BODY = 40

PUBLIC = [
    "BanditError",
    "BanditMiddleware",
    "ConfigurationError",
    "LateChoiceError",
    "LifecycleError",
    "StorageCorruptError",
    "StorageError",
    "StorageTimeoutError",
    "TokenError",
    "UnknownArmError",
    "UnknownBanditError",
    "add_bandit",
    "bandit_changed",
    "choose_arm",
    "decision_made",
    "reward",
    "reward_and_redirect",
    "reward_endpt",
    "reward_recorded",
    "storage_failed",
    "storage_recovered",
    "suggest_arm_for",
]


def test_the_public_names_are_these() -> None:
    assert sorted(flask_bandit.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(flask_bandit, name).__doc__


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(module: Path) -> None:
    text = module.read_text()
    assert text.count("\n") <= MAX_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with why it exists"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                size = (body[-1].end_lineno or 0) - body[0].lineno + 1
                assert size <= MAX_BODY, f"{node.name} has a body of {size} lines"


def test_init_is_one_screen() -> None:
    assert (PACKAGE / "__init__.py").read_text().count("\n") <= 60


OPTIONAL = [
    "ZEO",
    "ZODB",
    "alembic",
    "babel",
    "crawleruseragents",
    "flask_admin",
    "flask_debugtoolbar",
    "flask_login",
    "gunicorn",
    "hypothesis",
    "limits",
    "psycopg",
    "pygal",
    "pytest",
    "redis",
    "rich",
    "scipy",
    "selenium",
    "sqlalchemy",
    "vowpalwabbit",
    "wtforms",
]


@pytest.mark.parametrize(
    "statement",
    [
        "import flask_bandit",
        "import flask_bandit.bandits",
        "import flask_bandit.algorithms",
        "import flask_bandit.learning",
        "import flask_bandit.storage",
        "import flask_bandit.web.cli",
        "import example.app",
    ],
)
def test_a_bare_install_imports(statement: str) -> None:
    """No optional package is needed: each is made impossible to import first."""
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in OPTIONAL)
    program = f"import sys\n{blocked}{statement}\n"
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=PACKAGE.parent, capture_output=True
    )


def test_the_shipped_test_suites_are_not_loaded_by_an_app() -> None:
    program = (
        "import sys, flask_bandit.engine, flask_bandit.web.extension\n"
        "assert not [m for m in sys.modules if m.startswith('flask_bandit.testing')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_nothing_is_pickled(module: Path) -> None:
    names = {
        alias.name
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert not names & {"pickle", "marshal", "shelve", "dill"}
