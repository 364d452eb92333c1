"""What makes two jobs the same: the image's bytes, the options, and whose they are."""

import base64
import hashlib


class ContentDigest:
    """The SHA-256 of one upload, taken while it arrives."""

    def __init__(self, owner: str, options: str = "") -> None:
        """``options``: as :meth:`AnswerOptions.to_json` writes them."""
        # First, and each ended by a byte that it can't hold: no two owners ever share an answer.
        self._hash = hashlib.sha256(f"{owner}\0{options}\0".encode(), usedforsecurity=False)

    def update(self, data: bytes) -> None:
        """Take the next bytes of the image."""
        self._hash.update(data)

    def value(self) -> str:
        """The whole digest in 43 characters."""
        return base64.urlsafe_b64encode(self._hash.digest()).decode().rstrip("=")
