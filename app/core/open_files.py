"""The limit of open files, of which every connection is one."""

import resource


def raise_file_limit() -> int | None:
    """Raise this process's limit as far as the system lets it. Returns it; ``None``: no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return None if hard == resource.RLIM_INFINITY else hard
