"""The shop as a careful app serves it: the dashboard under a strict policy, and an audit log.

Each answer tells which process gave it, and what that process knows of the bandits' life.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, request

from example import app as shop

POLICY = (
    "default-src 'self'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the shop.

    :param config: as for the shop
    """
    logging.basicConfig(level=logging.INFO)
    app = shop.create_app(config)

    def tell(response: Response) -> Response:
        engine = app.extensions["bandit"].engine
        known = {name: engine.control(name) for name in engine.bandits}
        if request.path.startswith("/admin/"):
            # The shop's own pages have colours in attributes.
            response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Worker"] = str(os.getpid())
        response.headers["X-Known"] = json.dumps(
            {name: [control.state, control.version] for name, control in known.items()}
        )
        return response

    # What is registered first is called last, so it replaces the shop's own policy.
    app.after_request_funcs.setdefault(None, []).insert(0, tell)
    return app
