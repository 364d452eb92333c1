"""The limit of open files, of which every connection is one."""

import contextlib
import resource


def raise_file_limit() -> int | None:
    """Raise this process's limit as far as the system lets it. Returns it; ``None``: no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # macOS has no hard limit, and takes none that is beyond its kernel's.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return None if soft == resource.RLIM_INFINITY else soft
