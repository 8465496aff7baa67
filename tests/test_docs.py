"""Runs every Python example of the documents and holds the reference against the code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.rest import CodeBlockParser, DocTestParser

from flask_bandit.web.config import BanditConfig

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.rst"), *DOCS.rglob("*.rst")])
_python = PythonEvaluator()


def _save(example: Example) -> None:
    """Add a block that has a file name as its caption to that file."""
    caption = example.region.lexemes["options"].get("caption")
    if caption:
        path = Path(caption)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{example.parsed}\n\n")


def _run(example: Example) -> None:
    _save(example)
    _python(example)


def _parse(path: Path) -> Document:
    return Document.parse(
        str(path),
        DocTestParser(),
        CodeBlockParser("python", _run),
        CodeBlockParser("toml", _save),
        CodeBlockParser("json", _save),
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in a directory of its own, from which modules can be imported and then forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        file = getattr(sys.modules[name], "__file__", None)
        if file and str(tmp_path) in file:
            del sys.modules[name]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_examples_run(path: Path, workplace: Path) -> None:
    document = _parse(path)
    document.namespace["__name__"] = "example_of_the_docs"
    for example in document.examples():
        example.evaluate()


def test_readme_has_an_example() -> None:
    assert list(_parse(ROOT / "README.rst").examples())


def test_every_setting_is_in_the_reference_and_no_other() -> None:
    text = (DOCS / "reference" / "configuration.rst").read_text(encoding="utf-8")
    documented = re.findall(r"^``(MAB_[A-Z_]+)``$", text, re.MULTILINE)
    assert sorted(documented) == sorted(f"MAB_{f.name.upper()}" for f in fields(BanditConfig))


def test_no_document_names_a_setting_that_does_not_exist() -> None:
    known = {f"MAB_{f.name.upper()}" for f in fields(BanditConfig)}
    known.add("MAB_COOKIE_TLL")  # misspelt on purpose, to show the message
    named = {
        (key, str(path.relative_to(ROOT)))
        for path in DOCUMENTS
        for key in re.findall(r"MAB_[A-Z]+(?:_[A-Z]+)*", path.read_text(encoding="utf-8"))
    }
    assert {(key, path) for key, path in named if key not in known} == set()


@pytest.mark.parametrize(
    "module",
    [
        "flask_bandit",
        "flask_bandit.algorithms",
        "flask_bandit.bandits",
        "flask_bandit.storage",
        "flask_bandit.testing",
    ],
)
def test_every_public_name_is_in_the_reference_and_no_other(module: str) -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in (DOCS / "reference").glob("*.rst"))
    pattern = rf"^\.\. auto\w+:: {re.escape(module)}\.([A-Za-z_]\w*)$"
    documented = set(re.findall(pattern, text, re.MULTILINE))
    assert documented == set(import_module(module).__all__)
