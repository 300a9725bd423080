"""What a step frees stays with the process, until the last."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
from kfp_bonsai.shared.core.heap import give_freed_memory_back, keep_freed_memory
import numpy as np

def faults(steps=50):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        blocks = [np.ones(2**21, np.float32) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 2**20

before = faults()
keep_freed_memory()
faults(2)
after, kept = faults(), held()
give_freed_memory_back()
print(before, after, kept, held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_are_not_cleared_by_the_kernel_again():
    """Training spends a tenth of its time and more on page faults, and nobody sees it; or the next stage lacks it."""
    run = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    before, after, kept, left = map(int, run.stdout.split())
    assert after < before / 5
    assert left < kept - 20  # of 32 MiB
