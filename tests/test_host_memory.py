"""Free memory within the limits of containers."""

import pytest

from utils.host_memory import free_memory

MIB = 2**20


@pytest.fixture
def system(tmp_path):
    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return free_memory(tmp_path)

    return write


MEMORY = {"proc/meminfo": "MemTotal:  8192 kB\nMemAvailable:    4096 kB\n"}


def test_without_limits(system):
    assert system({}) is None
    assert system(MEMORY) == 4 * MIB
    assert system({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}) == 4 * MIB


def test_the_tightest_limit_around_counts_and_cached_files_do_not(system):
    group = {"proc/self/cgroup": "0::/a/b\n"}
    for name, limit, used, cached in (("a/b", 9, 1, 0), ("a", 3, 2, 1)):
        group[f"sys/fs/cgroup/{name}/memory.max"] = f"{limit * MIB}\n"
        group[f"sys/fs/cgroup/{name}/memory.current"] = f"{used * MIB}\n"
        group[f"sys/fs/cgroup/{name}/memory.stat"] = f"anon 7\ninactive_file {cached * MIB}\n"
    assert system(MEMORY | group) == 2 * MIB


def test_the_first_version_of_control_groups(system):
    group = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/job\n"}
    group["sys/fs/cgroup/memory/memory.limit_in_bytes"] = f"{2 * MIB}"
    group["sys/fs/cgroup/memory/memory.usage_in_bytes"] = f"{3 * MIB}"
    group["sys/fs/cgroup/memory/memory.stat"] = f"total_inactive_file {MIB}\n"
    assert system(MEMORY | group) == 0
