"""The distribution functions that the statistics need: the only module that imports SciPy.

Loaded when results are first read, so that an app starts without it. Must not import Flask.
"""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError
from ..model import FloatArray

try:
    from scipy import special
except ImportError as error:
    raise ConfigurationError(
        "the statistics need SciPy, which is not installed: pip install 'Flask-Bandit[analysis]'"
    ) from error

_special: Any = special


def beta_quantile(a: FloatArray, b: FloatArray, chance: Any) -> FloatArray:
    """Return where Beta(a, b) has so much mass below."""
    result: FloatArray = _special.betaincinv(a, b, chance)
    return result


def beta_cdf(a: FloatArray, b: FloatArray, x: Any) -> FloatArray:
    """Return the mass of Beta(a, b) below x."""
    result: FloatArray = _special.betainc(a, b, x)
    return result


def log_beta(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the logarithm of the beta function."""
    result: FloatArray = _special.betaln(a, b)
    return result


def student_quantile(dof: FloatArray, chance: Any) -> FloatArray:
    """Return where Student's t has so much mass below."""
    result: FloatArray = _special.stdtrit(dof, chance)
    return result


def student_cdf(dof: FloatArray, x: FloatArray) -> FloatArray:
    """Return the mass of Student's t below x."""
    result: FloatArray = _special.stdtr(dof, x)
    return result


def normal_quantile(chance: Any) -> FloatArray:
    """Return where the standard normal distribution has so much mass below."""
    result: FloatArray = _special.ndtri(chance)
    return result


def normal_cdf(x: FloatArray) -> FloatArray:
    """Return the mass of the standard normal distribution below x."""
    result: FloatArray = _special.ndtr(x)
    return result


def chi_squared_tail(dof: int, statistic: float) -> float:
    """Return the chance of a larger value."""
    return float(_special.chdtrc(dof, statistic))


def bernoulli_divergence(p: FloatArray, q: FloatArray) -> FloatArray:
    """Return kl(p, q), the relative entropy of two coins; infinite where q excludes p."""
    result: FloatArray = _special.rel_entr(p, q) + _special.rel_entr(1.0 - p, 1.0 - q)
    return result
