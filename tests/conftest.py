import pytest
import torch

torch.set_num_threads(1)  # several test processes share the cores, and two pools of spinning threads starve each other


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pytest_collection_modifyitems(config, items):
    """A test marked oldest runs if -m names the mark, and never by the way."""
    if "oldest" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("oldest")])
        items[:] = [item for item in items if not item.get_closest_marker("oldest")]
