"""Who is counted: what a request's method and headers say about the person behind it."""

from __future__ import annotations

from enum import Enum

from flask import Request


class Counting(Enum):
    """How a request's choices count."""

    COUNTED = "counted"
    PENDING = "prefetch"
    """Shown later, perhaps: the arm is kept and counted by the next real request."""
    UNCOUNTED = "head"
    """Gets an arm, is not counted, and nothing is kept."""


def counting_of(request: Request) -> Counting:
    """Tell how the choices of this request count."""
    if request.method in ("HEAD", "OPTIONS"):
        return Counting.UNCOUNTED
    # From the environ: looking for a header that is not there costs an exception each.
    headers = request.environ.get
    purpose = headers("HTTP_SEC_PURPOSE") or headers("HTTP_PURPOSE") or headers("HTTP_X_MOZ")
    if purpose and "prefetch" in purpose.lower():
        return Counting.PENDING
    return Counting.COUNTED
