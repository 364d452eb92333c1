"""Entity tags: who has the newest answer already is told so, and gets nothing twice (RFC 9110)."""

import re

from starlette.requests import Request

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def is_known(request: Request, entity_tag: str) -> bool:
    """Whether ``If-None-Match`` names the tag, quotes included, of the answer there would be.

    Weak tags and strong ones are the same there (RFC 9110, 13.1.2).
    """
    opaque = entity_tag.removeprefix("W/")
    for line in request.headers.getlist("if-none-match"):
        if line.strip() == "*" or opaque in _TAG.findall(line):
            return True
    return False
