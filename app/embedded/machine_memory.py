"""The memory that the Redis of `classifier up` may use, unless somebody says how much."""

import os
from pathlib import Path

# Workers, the API and the disk cache share the rest.
_SHARE = 4

# An empty ledger takes two megabytes; with less than this there would be no room to speak of.
_LEAST_BYTES = 64 << 20

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def choose_redis_memory() -> int:
    """A quarter of the memory that this process may use, in bytes."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(min([physical, *find_cgroup_limits()]) // _SHARE, _LEAST_BYTES)


def find_cgroup_limits(membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS) -> list[int]:
    """The memory limits, in bytes, of the cgroups that this process is in.

    Source: the kernel's admin guide, cgroup-v2 (``memory.max``) and cgroup-v1
    (``memory.limit_in_bytes``). Within a container its own cgroup is the root of what it sees.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    limits = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                limits += _read_limit(folder / name)
    return limits


def _read_limit(file: Path) -> list[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return []
    # "max" where there is none.
    return [int(text)] if text.isdecimal() else []
