"""The functions of SciPy that are used, and what happens without it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from flask_bandit.analysis import distributions as d

ONE, TWO = np.array([1.0]), np.array([2.0])


def test_they_agree_with_closed_forms() -> None:
    assert d.beta_cdf(TWO, ONE, 0.3) == pytest.approx(0.09)
    assert d.beta_quantile(TWO, ONE, 0.09) == pytest.approx(0.3)
    assert d.log_beta(TWO, TWO) == pytest.approx(math.log(1 / 6))
    assert d.student_cdf(ONE, ONE) == pytest.approx(0.75)
    assert d.student_quantile(ONE, 0.75) == pytest.approx(1.0)
    assert d.chi_squared_tail(2, 3.0) == pytest.approx(math.exp(-1.5))


def test_divergence_of_coins() -> None:
    half, none = np.array([0.5]), np.array([0.0])
    assert d.bernoulli_divergence(half, half) == 0.0
    assert d.bernoulli_divergence(none, half) == pytest.approx(math.log(2))
    assert d.bernoulli_divergence(half, none) == math.inf


def test_without_scipy_the_error_says_what_to_install() -> None:
    program = (
        "import sys\n"
        "sys.modules['scipy'] = None\n"
        "from flask_bandit.analysis.digest import Digest\n"
        "from flask_bandit.analysis.reading import Question, read_results\n"
        "from flask_bandit.errors import ConfigurationError\n"
        "try:\n"
        "    read_results({}, Digest(), Question(('a',), True))\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'Flask-Bandit[analysis]'" in done.stdout, done.stderr
