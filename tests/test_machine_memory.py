"""How much memory the Redis of `classifier up` gets when nobody says."""

import os
from pathlib import Path

from app.embedded.machine_memory import choose_redis_memory, find_cgroup_limits

GIB = 1 << 30


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_quarter_of_the_machine_at_most() -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < choose_redis_memory() <= machine // 4


def test_the_limits_of_a_cgroup_and_of_those_around_it_count(tmp_path: Path) -> None:
    membership = write(tmp_path / "membership", "0::/pod/container\n")
    write(tmp_path / "fs/pod/container/memory.max", f"{2 * GIB}\n")
    write(tmp_path / "fs/pod/memory.max", f"{GIB}\n")
    write(tmp_path / "fs/memory.max", "max\n")
    assert sorted(find_cgroup_limits(membership, tmp_path / "fs")) == [GIB, 2 * GIB]


def test_cgroups_of_the_first_version_count(tmp_path: Path) -> None:
    membership = write(tmp_path / "membership", "5:cpu,cpuacct:/a\n4:memory:/a\n")
    write(tmp_path / "fs/memory/a/memory.limit_in_bytes", f"{GIB}\n")
    assert find_cgroup_limits(membership, tmp_path / "fs") == [GIB]


def test_a_container_that_sees_its_own_cgroup_only_finds_its_limit(tmp_path: Path) -> None:
    membership = write(tmp_path / "membership", "0::/outside/of/what/is/seen\n")
    write(tmp_path / "fs/memory.max", f"{GIB}\n")
    assert find_cgroup_limits(membership, tmp_path / "fs") == [GIB]


def test_without_cgroups_there_are_no_limits(tmp_path: Path) -> None:
    assert find_cgroup_limits(tmp_path / "nothing", tmp_path) == []
