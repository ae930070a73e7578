"""Commands on this machine."""

import os
import shutil
import sys

import torch
from rich.table import Table

import staa
from staa.analysis.bench import bench as run_bench
from staa.cli.flags import in_flags
from staa.cli.options import BenchOptions, DoctorOptions
from staa.cli.parse import parse
from staa.cli.text import say, show
from staa.data import DOWNLOADS, inventory
from staa.machine import choose_device, choose_precision, keep_pages
from staa.runs.folder import neuron_path


def doctor(args: list[str]) -> int:
    """say what this machine has"""
    options = parse(DoctorOptions, args, "staa doctor")
    device = choose_device(None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    disk = shutil.disk_usage(".")
    cores = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    rows = {
        "staa": f"{staa.__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}",
        "device": f"{name} (the default of --device)",
        "processor": f"{cores}, {torch.backends.cpu.get_cpu_capability()}",
        "precision": f"{choose_precision('auto', device)} with --precision auto",
        "memory": f"freed pages are {'kept' if keeps_pages() and keep_pages() else 'given back'} (STAA_KEEP_PAGES=0 or 1)",
        "neuron": neuron_path(device),
        "disk": f"{disk.free / 2**30:.1f} GiB free here",
        "digits-events": "embedded, from scikit-learn",
    }
    for key in DOWNLOADS:
        try:
            rows[key] = inventory(key, options.data)
        except (OSError, ValueError) as error:
            rows[key] = in_flags(error, DoctorOptions)
    for key, value in rows.items():
        say(f"{key:<14} {value}")
    return 0


def bench(args: list[str]) -> int:
    """time a neuron and a training step here"""
    options = parse(BenchOptions, args, "staa bench")
    for title, rows in run_bench(choose_device(options.device), inference=options.inference):
        say(title, style="bold")
        table = Table(box=None, pad_edge=False, show_header=False)
        show(table, ((f"  {r[0]}", f"{r[1]:.2f} ms", f"× {r[2]:.2f} ({r[3]:.2f}–{r[4]:.2f})") for r in rows))
    say(f"medians and quartiles, run in turns; load {os.getloadavg()[0]:.1f}, torch uses {torch.get_num_threads()} threads")
    return 0


def keeps_pages() -> bool:
    return os.environ.get("STAA_KEEP_PAGES", "1") != "0"
