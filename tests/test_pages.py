import subprocess
import sys

import pytest

from staa.pages import keep_pages

FAULTS = """
import resource, sys, torch
from staa.pages import keep_pages
if sys.argv[1] == "keep" and not keep_pages():
    sys.exit(3)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(6):
    before = faults()
    torch.ones(40 << 20, dtype=torch.uint8)
    after = faults()
print(after - before)
"""


def test_pages_of_large_tensors_are_kept():
    """A tensor of 40 MiB is 10,240 pages, mapped afresh each time unless they are kept."""
    found = {}
    for what in ("keep", "usual"):
        done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True)
        if done.returncode == 3:
            pytest.skip("no glibc")
        found[what] = int(done.stdout)
    assert found["keep"] < 100
    assert found["usual"] > 5000


def test_it_can_be_undone():
    assert keep_pages() == keep_pages(False)
