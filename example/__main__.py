"""Starts the shop: on gunicorn with several workers if it is installed, else on Flask's server."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec

from .app import DEFAULT_STORAGE, create_app

HOST = "127.0.0.1"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m example", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=4, help="processes, with gunicorn")
    parser.add_argument(
        "--storage-uri",
        default=os.environ.get("MAB_STORAGE_URI") or DEFAULT_STORAGE,
        help="where the counts are kept (default: MAB_STORAGE_URI, else %(default)s)",
    )
    parser.add_argument(
        "--debug", action="store_true", help="Flask's server with debugger and toolbar"
    )
    return parser.parse_args()


def main() -> None:
    """Say which page to open, then serve until stopped."""
    args = arguments()
    os.environ["MAB_STORAGE_URI"] = args.storage_uri
    with_gunicorn = not args.debug and find_spec("gunicorn") is not None
    server = f"gunicorn with {args.workers} workers" if with_gunicorn else "Flask's own server"
    # Flask's reloader starts this program a second time; once said is enough.
    if "WERKZEUG_RUN_MAIN" not in os.environ:
        announce(args, server)
    if with_gunicorn:
        run_gunicorn(args.port, args.workers)
    else:
        create_app({"DEBUG": args.debug}).run(HOST, args.port, debug=args.debug)


def announce(args: argparse.Namespace, server: str) -> None:
    """Print what to open and what to do next."""
    shop = f"http://{HOST}:{args.port}"
    url = "" if args.port == 5000 else f" --url {shop}"
    port = "" if args.port == 5000 else f" --port {args.port}"
    has_dashboard = find_spec("flask_admin") is not None
    dashboard = f"  The dashboard:       {shop}/admin/bandits/\n" if has_dashboard else ""
    python = min(sys.executable, os.path.relpath(sys.executable), key=len)
    toolbar = "" if args.debug else f"  With the toolbar:    {python} -m example --debug{port}\n"
    print(
        f"\n  The shop is open:    {shop}/\n"
        f"  How it is going:     {shop}/results\n"
        f"{dashboard}"
        f"  Send it visitors:    {python} -m example.visitors{url}\n"
        f"{toolbar}"
        f"  Counts are kept in:  {args.storage_uri}\n"
        f"  Served by:           {server}; stop it with Ctrl-C\n",
        flush=True,
    )


def run_gunicorn(port: int, workers: int) -> None:
    """Become gunicorn."""
    # Threads, since browsers open connections ahead and would keep a whole worker waiting.
    command = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{port}"]
    command += ["--workers", str(workers), "--threads", "4", "--log-level", "warning"]
    # Ctrl-C reaches a worker from the terminal and from gunicorn: at times it hangs on both.
    command += ["--graceful-timeout", "3"]
    os.execv(sys.executable, [*command, "example.app:create_app()"])


if __name__ == "__main__":
    main()
