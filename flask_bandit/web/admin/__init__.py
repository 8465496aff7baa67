"""The dashboard: a view for Flask-Admin (extra ``admin``).

``BanditAdmin`` is loaded when it is asked for, so that nothing else needs what the extra brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...plugins import import_object

if TYPE_CHECKING:
    from .view import BanditAdmin

__all__ = ["BanditAdmin"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_object("flask_bandit.web.admin.view:BanditAdmin", "admin")
