"""A server that answers every request with one status."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
