"""Serves the page on localhost: python serve.py MODEL.onnx [--port 8000]."""

from __future__ import annotations

import argparse
import functools
import http.server
from pathlib import Path
from typing import Any

JAVASCRIPT = Path(__file__).resolve().parents[1]


class Handler(http.server.SimpleHTTPRequestHandler):
    """/javascript/... is this package, /models/model.onnx is the file."""

    def __init__(self, *args: Any, model: Path, **options: Any) -> None:
        self.model = model
        super().__init__(*args, **options)

    def translate_path(self, path: str) -> str:
        """Where a path of the page lies on disk."""
        parts = path.split("?")[0].strip("/").split("/")
        if parts == ["models", "model.onnx"]:
            return str(self.model)
        if parts[0] == "javascript" and ".." not in parts:
            return str(JAVASCRIPT.joinpath(*parts[1:]))
        return str(JAVASCRIPT / "nothing")

    def guess_type(self, path: Any) -> str:
        """Browsers refuse modules of another type, whatever this machine's list of types says."""
        known = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
        return known.get(Path(path).suffix) or super().guess_type(path)

    def log_message(self, *args: Any) -> None:
        """Say nothing about every file."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    handler = functools.partial(Handler, model=arguments.model.resolve())
    with http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), handler) as server:
        print(f"http://localhost:{server.server_address[1]}/javascript/demo/index.html", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
