"""The layout: public names, no name for two things, short files. Who may import whom is import-linter's (pyproject.toml)."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import staa

SOURCE = Path(staa.__file__).parent
PUBLIC = {
    "staa": "RECIPES Augment Data Early Loss Model Optim Recipe Run Stream attention data estimate_energy export forecast "
    "from_pretrained layers load models neurons ops predict pretrained read_log record reference stream train",
    "staa.attention": "ATTENTIONS DTA STAA TNA TXA ChannelGate GlobalContext PositionEncoding StepAttention TemporalAttention",
    "staa.build": "TASKS Task check_recipe task_of",
    "staa.cli": "main",
    "staa.convert": "CONVERTERS dta_snn fsta_snn load_converted read_state seqsnn_ispikformer spikingjelly_ms_resnet "
    "spikingjelly_vgg",
    "staa.data": "DATASETS DOWNLOADS SERIES Batches Events Normaliser Samples SeriesSource Source TimeSeries WindowBatches "
    "cifar cifar10dvs describe diffusion_ring digits_events download_cifar dvsgesture event_folder forecast_source "
    "image_folder inventory load_cifar nmnist read_events read_graph read_series saccade_events split_by_hash to_frames",
    "staa.export.nir": "Parity from_nir nir_graph parity read_nir save_nir",
    "staa.export": "to_nir to_onnx to_program",
    "staa.forecasters": "FORECASTERS",
    "staa.hub": "from_pretrained pretrained pretrained_names push",
    "staa.layers": "PerStep Site Passive Window fold_batch_norm note per_step",
    "staa.losses": "LOSSES FORECAST_LOSSES mean_cross_entropy mean_binary_cross_entropy tet mean_squared_error "
    "mean_absolute_error rate_penalty",
    "staa.models": "FORECASTERS MODELS MSResNet ResNet ispikformer ms_resnet18 ms_resnet34 resnet18 resnet19 resnet20 "
    "resnet34 spikestag vggsnn",
    "staa.neurons": "NEURONS LIF AdaptiveLIF Integrator ParametricLIF",
    "staa.ops": "SURROGATES Surrogate arctan direct fast_sigmoid fire integrate latency lif lif_reference rate rectangle "
    "sigmoid triangle",
    "staa.recipes": "RECIPES",
    "staa.runs": "Run evaluate_run prolong run starting_from",
    "staa.streaming": "freeze_norms recompute stream",
}
LONGEST = 300
LONGER: dict[str, int] = {}
"""Files that may be longer, and how long: a limit only shrinks. Kernels are not counted."""
KERNELS = ("_triton.py", "_kernels.c")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_can_be_imported(module):
    found = importlib.import_module(module)
    assert [name for name in PUBLIC[module].split() if not hasattr(found, name)] == []


def packages():
    yield staa
    for found in pkgutil.walk_packages(staa.__path__, "staa."):
        if found.ispkg:
            yield importlib.import_module(found.name)


def test_no_name_is_both_a_module_and_what_it_holds():
    """`from staa.x import y` would give one of the two, by what was imported first."""
    both = []
    for package in packages():
        for found in pkgutil.iter_modules(package.__path__):
            value = vars(package).get(found.name)
            if value is not None and not isinstance(value, ModuleType):
                both.append(f"{package.__name__}.{found.name}")
    assert not both


def test_what_the_package_exports_is_no_file_of_its_own():
    """`staa.train` could be the function or the file: a name in `__all__` is a file only if it is that file."""
    files = {found.name for found in pkgutil.iter_modules(staa.__path__)}
    assert [name for name in staa.__all__ if name in files and not isinstance(getattr(staa, name), ModuleType)] == []


def test_files_are_short():
    lengths = {
        str(path.relative_to(SOURCE)): len(path.read_text().splitlines())
        for path in SOURCE.rglob("*.[pc]*")
        if path.suffix in (".py", ".c") and not path.name.endswith(KERNELS)
    }
    assert len(lengths) > 50
    long = {name: length for name, length in lengths.items() if length > LONGEST}
    assert not {name: length for name, length in long.items() if length > LONGER.get(name, LONGEST)}
    assert {name: long.get(name) for name in LONGER} == LONGER, "it is shorter now: lower its limit here"


def test_importing_the_package_imports_nothing_slow():
    """No command, no pictures, no tables: they come when they are asked for."""
    slow = ("rich.progress", "matplotlib", "pandas", "sklearn", "h5py", "torchvision", "staa.cli")
    code = f"import sys, staa; print(*[name for name in {slow!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    assert told.split() == []
