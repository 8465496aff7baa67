"""In-app bandit experiments for Flask."""

__version__ = "0.1.0"
