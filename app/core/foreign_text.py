"""Text of others, such as names of files and classes, made harmless for those who look at it.

A terminal obeys control characters: they move the cursor, change titles, and some terminals type
what an answer to them holds. Others turn the order of letters around.
"""

import json
import re
from typing import Any

# C0 and C1, line and paragraph separators, surrogates, and what changes a text's direction.
_HARMFUL = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROL = re.compile(f"[{_HARMFUL}]")
# JSON escapes the first by itself, and line breaks between its parts are its own.
_CONTROL_IN_JSON = re.compile(f"[{_HARMFUL.removeprefix(chr(0) + '-' + chr(0x1f))}]")

# With these a spreadsheet's formula begins; a full-width one counts as well.
_FORMULA = re.compile("[=+@\uff1d\uff0b\uff20\uff0d-]")


def escape_controls(text: str) -> str:
    """Return the text as a terminal may show it, in one line: ``\\x1b`` in four letters."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def render_json(document: Any, indent: int | None = None) -> str:
    """JSON that says the same and that a terminal may show."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return _CONTROL_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_cell(text: str) -> str:
    """Return the text as a spreadsheet may open it: a formula gets an apostrophe in front."""
    shown = escape_controls(text)
    return f"'{shown}" if len(text) > 1 and _FORMULA.match(text) else shown
