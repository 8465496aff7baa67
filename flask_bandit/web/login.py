"""Flask-Login's current user as the subject; loaded only in apps that use that extension."""

from __future__ import annotations

from typing import Any

from flask_login import current_user


def signed_in_user() -> Any:
    """Return the signed-in user's id, ``None`` for an anonymous visitor."""
    return current_user.get_id() if current_user.is_authenticated else None
