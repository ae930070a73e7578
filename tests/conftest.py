from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from interpreter import pytest_runtest_protocol, pytest_runtestloop, pytest_sessionfinish  # noqa: F401

torch.set_num_threads(1)  # several test processes share the cores, and two pools of spinning threads starve each other


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(config, items):
    """A test marked oldest runs if -m names the mark, and never by the way.

    Of the cases of a test marked some(n) every n-th runs with the others, the rest are slow. They are chosen by multiples of
    the golden ratio, so that the values of each parameter take turns.
    """
    seen = Counter()
    for item in items:
        if mark := item.get_closest_marker("some"):
            test = item.nodeid.partition("[")[0]
            if seen[test] * (5**0.5 - 1) / 2 % 1 * mark.args[0] >= 1:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1
    if "oldest" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("oldest")])
        items[:] = [item for item in items if not item.get_closest_marker("oldest")]


@pytest.fixture
def triton_kernels(monkeypatch):
    """Triton's kernels in the place of the CPU's."""
    from staa.ops import cuda, memory

    monkeypatch.setitem(memory.KERNELS, "cpu", cuda)


@pytest.fixture
def compiled(triton_kernels, monkeypatch, tmp_path):
    """(name, kernel) of each launch: its arguments, compiled to an H100's machine code and not launched."""
    import triton
    from triton.backends.compiler import GPUTarget

    found = []
    device = {"get_current_target": lambda: GPUTarget("cuda", 90, 32), "get_current_device": lambda: "an absent one"}
    monkeypatch.setattr(
        triton.runtime.driver, "_active", SimpleNamespace(**device, get_current_stream=lambda _: None), raising=False
    )
    monkeypatch.setattr(
        triton.runtime.jit.JITFunction,
        "__getitem__",
        lambda kernel, grid: (
            lambda *args, **options: found.append((kernel.fn.__name__, kernel.warmup(*args, grid=grid, **options)))
        ),
        raising=False,
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return found
