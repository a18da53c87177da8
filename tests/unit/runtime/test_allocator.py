"""Freed memory is used again without page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from acestep_core.runtime import allocator

FAULTS = """
import resource, sys
import numpy
from acestep_core.runtime.allocator import keep_freed_memory
assert sys.argv[1] == "plain" or keep_freed_memory()
for _ in range(10):
    numpy.ones(5_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_freed_memory_is_used_again():
    assert faults("kept") < faults("plain") / 2


def faults(how: str) -> int:
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}  # a fault for each small page, as in PyTorch
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
