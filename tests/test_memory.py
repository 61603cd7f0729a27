"""How much memory there is: MemAvailable, and the limits of control groups around the process."""

from types import SimpleNamespace

import jax
import pytest

from equipot import memory

GIB = 2**30
MEMINFO = f"MemTotal: 99999999 kB\nMemAvailable:   {8 * GIB // 1024} kB\n"


def host(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return memory.available_on_host(folder)


JOB = "sys/fs/cgroup/slurm/job_1"


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": GIB}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": 3 * GIB, "sys/fs/cgroup/memory.current": GIB}, 2 * GIB),
        # The step has no limit of its own, the job around it has.
        (
            {
                "proc/self/cgroup": "0::/slurm/job_1/step_0\n",
                f"{JOB}/step_0/memory.max": "max",
                f"{JOB}/step_0/memory.current": GIB,
                f"{JOB}/memory.max": 4 * GIB,
                f"{JOB}/memory.current": 2 * GIB,
                f"{JOB}/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            },
            3 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GIB,
                "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB // 2,
            },
            3 * GIB // 2,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 2 * GIB}, 0),
    ],
)
def test_the_least_of_what_is_said(tmp_path, files, expected):
    assert host(tmp_path, {"proc/meminfo": MEMINFO, **files}) == expected


def test_nobody_says(tmp_path):
    assert host(tmp_path, {}) is None


def test_an_accelerator_says_what_is_left():
    device = lambda stats: SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert memory.available(device({"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert memory.available(device({})) is None and memory.available(device(None)) is None


def test_this_machine_has_some():
    assert memory.available(jax.local_devices(backend="cpu")[0]) is None or memory.available_on_host() > 2**20
