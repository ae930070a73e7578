"""Commands on data and recipes."""

from pathlib import Path

from rich.table import Column, Table

from staa.analysis.pictures import draw_recording
from staa.cli.options import DataOptions, RecipesOptions, ShowOptions
from staa.cli.parse import parse
from staa.cli.text import say, show
from staa.cli.waiting import waiting
from staa.data import DOWNLOADS, inventory, read_events
from staa.data.events.folder import parse_sensor
from staa.files import check_writable
from staa.recipes import RECIPES


def recipes(args: list[str]) -> int:
    """list the recipes"""
    parse(RecipesOptions, args, "staa recipes")
    table = Table(Column("recipe", no_wrap=True), "network", "T", "length", "expect", box=None, pad_edge=False)
    rows = []
    for r in RECIPES.values():
        network = r.model.name + (f" ×{r.model.width:g}" if r.model.width != 1 else "")
        length = f"{r.max_steps} steps" if r.max_steps else f"{r.epochs} epochs"
        rows.append([r.name, network, r.model.steps or "any", length, r.expect])
    show(table, rows)
    say("", "staa train NAME --help lists every setting; staa train my_file.py:recipe takes one of your own.")
    return 0


def data(args: list[str]) -> int:
    """download a data set, or draw a recording"""
    if args[:1] == ["show"]:
        return _show(args[1:])
    options = parse(DataOptions, args, "staa data")
    if options.name not in DOWNLOADS:
        raise ValueError(f"unknown data set {options.name!r}; known: {', '.join(DOWNLOADS)}")
    with waiting() as work:
        folder = DOWNLOADS[options.name](options.data, work.tell_bytes)
        there = inventory(options.name, options.data)
    say(f"{options.name} is in {folder}: {there}")
    return 0


def _show(args: list[str]) -> int:
    options = parse(ShowOptions, args, "staa data show")
    path = options.out or Path(f"{options.file.stem}.png")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"--out is a PNG to write, such as {path.stem or 'picture'}.png; got {path}")
    check_writable(path)
    with waiting():
        events = read_events(options.file, parse_sensor(options.sensor))
    if events.sensor is None:
        height, width = int(events.y.max()) + 1, int(events.x.max()) + 1
        say(f"the file doesn't say its sensor: taken as {height}x{width}, which holds all its events")
        events = events._replace(sensor=(height, width))
    with waiting("drawing"):
        draw_recording(events, path, options.file.name)
    say(f"{options.file} drawn in {path}")
    return 0
