import os
import subprocess
import sys

import jax
import pytest

from equipot import allocator

PROGRAM = """
import resource, threading
import numpy as np
import equipot
done = {call}
def faults():
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(100 * 2**20, np.uint8)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(done, after - before)
faults()
thread = threading.Thread(target=faults)
thread.start()
thread.join()
"""
KEEP = "equipot.keep_freed_memory()"


def faults(call, **environment):
    """What was returned and the page faults of a later use of 100 MiB, in the main thread and in another."""
    inherited = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM.format(call=call)]
    out = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)
    return [(done == "True", int(count)) for done, count in map(str.split, out.stdout.splitlines())]


@pytest.mark.skipif(not allocator._has_glibc(), reason="needs glibc")
def test_freed_memory_is_kept():
    kept, lost = faults(KEEP), faults("False")
    assert all(done for done, _ in kept)
    # Without it every page is asked for again, be it a huge one of 2 MiB.
    assert min(count for _, count in lost) > 20 + 10 * max(count for _, count in kept)


def test_the_environment_decides():
    for name, value in (("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000"), ("MALLOC_ARENA_MAX", "4")):
        assert not any(done for done, _ in faults(KEEP, **{name: value}))


@pytest.mark.skipif(not allocator._has_glibc(), reason="needs glibc")
def test_it_must_come_before_jax_starts(monkeypatch):
    jax.devices()
    for name in [n for n in os.environ if n == "GLIBC_TUNABLES" or n.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    with pytest.warns(UserWarning, match="comes too late"):
        assert not allocator.keep_freed_memory()


def test_nothing_is_done_elsewhere(monkeypatch):
    monkeypatch.setattr(allocator, "_has_glibc", lambda: False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("mallopt was looked for"))
    assert not allocator.keep_freed_memory()
