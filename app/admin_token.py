"""The admin token of `classifier up`, in a file that only its owner can read.

`up` makes it once; the `classifier dead` commands on the same machine find it there.
"""

import os
import secrets
from pathlib import Path

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.core.setting_groups import SHORTEST_TOKEN

FILE_NAME = "admin.token"
_RANDOM_BYTES = 32


def find_admin_token(settings: Settings) -> str | None:
    """ADMIN_TOKEN, else the token in the data folder, else ``None``.

    Raises :class:`ConfigurationError` when the file can't be read or its token is too short.
    """
    setting = settings.admin.token
    if setting and (token := setting.get_secret_value().strip()):
        return token
    path = _path(settings)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _describe(path, error) from None
    if 0 < len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(
            f"{path} holds fewer than {SHORTEST_TOKEN} characters: delete it, and `classifier up` "
            "makes a new one"
        )
    return token or None


def keep_admin_token(settings: Settings) -> str:
    """The same, making the file where there is none yet. The caller holds the data folder.

    Raises :class:`ConfigurationError` when the file can't be read or written.
    """
    token = find_admin_token(settings)
    if token is None:
        token = secrets.token_urlsafe(_RANDOM_BYTES)
        _write(_path(settings), token)
    return token


def _write(path: Path, token: str) -> None:
    try:
        # One that is empty was left behind by a full disk.
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{token}\n")
    except OSError as error:
        raise _describe(path, error) from None


def _path(settings: Settings) -> Path:
    return settings.data_dir / FILE_NAME


def _describe(path: Path, error: OSError | ValueError) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) else "it holds no token"
    return ConfigurationError(f"can't use {path}: {reason}; correct it or set ADMIN_TOKEN")
