import pytest
import torch

torch.set_num_threads(1)  # several test processes share the cores, and two pools of spinning threads starve each other


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
