"""Settings as they may be shown: without what is secret in them, even where they are wrong.

A password that was not encoded ends a URL's parts where it likes, so nothing here relies on how
the URL would be read: what could be a password is left out.
"""

import re
from urllib.parse import unquote

_HIDDEN = "***"
# Sentinels are separated by commas, too.
_COMMA = re.compile(r",(?=\s*[a-z]+://)")
_USER = re.compile(r"[\w.%+-]*")
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|credential|auth", re.IGNORECASE)
# A port is a number; what else follows a host is half of "user:password", whose host is missing.
_NO_PORT = re.compile(r":(?!\d{1,5}(?:,|$))[^,]*")


def redact(text: str) -> str:
    """The text, where it is a URL or some, with ``***`` for each password."""
    return ",".join(map(_redact_url, _COMMA.split(text)))


def redact_wrong(text: str) -> str:
    """A value that can't be used, as it is, or ``***`` if any part of it may be secret."""
    location = text.partition("://")[2] if "://" in text else text
    is_plain = not re.search(r"[@?#&\s]", text) and _redact_location(location) == location
    return text if is_plain else _HIDDEN


def _redact_url(text: str) -> str:
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text
    login, at, location = rest.rpartition("@")
    if not at:
        return f"{scheme}{mark}{_redact_location(location)}"
    if re.search(r"[?#]", login):
        # Where the password is, the query's or the login's, is anybody's guess.
        return f"{scheme}{mark}{_HIDDEN}"
    user, colon, _ = login.partition(":")
    shown = f"{user}:{_HIDDEN}" if colon and _USER.fullmatch(user) else _HIDDEN
    return f"{scheme}{mark}{shown}@{_redact_location(location)}"


def _redact_location(location: str) -> str:
    place, mark, query = location.partition("?")
    host, slash, path = place.partition("/")
    if "[" not in host and (found := _NO_PORT.search(host)):
        return f"{host[: found.start()]}:{_HIDDEN}"
    pairs = [_redact_pair(pair) for pair in query.split("&")] if mark else []
    return f"{host}{slash}{path}{mark}{'&'.join(pairs)}"


def _redact_pair(pair: str) -> str:
    key, equals, value = pair.partition("=")
    # A name may be encoded, too.
    is_secret = value and _SECRET_KEY.search(unquote(key))
    return f"{key}{equals}{_HIDDEN}" if is_secret else pair
