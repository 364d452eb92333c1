"""A receiver of webhooks that trusts nothing it has not verified. Standard library only.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py 9000

Register http://…:9000/ with `POST /webhooks`; every verified event is printed.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300  # older requests may be recordings that somebody plays again
LARGEST_BODY_BYTES = 65_536


class VerificationError(Exception):
    """Raised when a request does not come from who knows the secret, or not just now."""


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> None:
    """Raises :class:`VerificationError` unless a signature matches and the time is about now."""
    message_id = headers.get("webhook-id") or ""
    timestamp = headers.get("webhook-timestamp") or ""
    if not timestamp.isdecimal():
        raise VerificationError("no timestamp")
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise VerificationError("the timestamp is too old or too new")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = message_id.encode() + b"." + timestamp.encode() + b"." + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())
    # While a secret is being replaced there are several signatures.
    for item in (headers.get("webhook-signature") or "").split():
        version, _, signature = item.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), expected):
            return
    raise VerificationError("no signature matches")


class Receiver(BaseHTTPRequestHandler):
    """Answers at once; work that takes time belongs behind the answer."""

    secret = ""
    seen: set[str] = set()  # an event may come more than once; keep these where they last

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if length > LARGEST_BODY_BYTES:
            self.answer(413)
            return
        body = self.rfile.read(length)
        try:
            verify(self.secret, self.headers, body)
        except VerificationError as error:
            self.log_message("refused: %s", error)
            self.answer(401)
            return
        message_id = self.headers["webhook-id"]
        if message_id not in self.seen:
            self.seen.add(message_id)
            print(json.dumps(json.loads(body)), flush=True)
        self.answer(204)

    def answer(self, status: int) -> None:
        """An answer without a body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Listen until stopped."""
    Receiver.secret = os.environ["WEBHOOK_SECRET"]
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
