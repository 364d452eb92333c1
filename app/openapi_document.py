"""``docs/openapi.json``: the contract as a file, so that a change of it shows in a review.

``python -m app.openapi_document`` writes it; a test compares.
"""

import json
from pathlib import Path

from app.core.config import Settings
from app.main import create_app

DOCUMENT_PATH = Path(__file__).parents[1] / "docs" / "openapi.json"


def render_document() -> str:
    """The OpenAPI document of the service with its default settings."""
    return json.dumps(create_app(Settings()).openapi(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    DOCUMENT_PATH.write_text(render_document(), encoding="utf-8")
