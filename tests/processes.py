"""Processes of a test."""

import time


def wait_for(process, done, *, every=0.005):
    """Until done() while the process lives; every: seconds between two looks."""
    until = time.monotonic() + 120
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(every)
