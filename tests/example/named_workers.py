"""The shop, where each answer tells which process gave it."""

from __future__ import annotations

import os

from flask import Flask, Response

from example import app as shop


def create_app() -> Flask:
    """Make the shop."""
    app = shop.create_app()

    @app.after_request
    def name_worker(response: Response) -> Response:
        response.headers["X-Worker"] = str(os.getpid())
        return response

    return app
