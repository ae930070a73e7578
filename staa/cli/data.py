"""Commands on data."""

from pathlib import Path

from staa.analysis.pictures import draw_recording
from staa.cli.flags import in_flags
from staa.cli.options import ConvertOptions, DataOptions, DescribeOptions, ShowOptions
from staa.cli.parse import parse
from staa.cli.text import say
from staa.cli.waiting import waiting
from staa.data import DOWNLOADS, describe, inventory, read_events, read_series
from staa.data.events.cache import telling
from staa.data.events.doubt import doubt
from staa.data.events.folder import parse_sensor
from staa.data.events.read import read_pieces
from staa.data.events.recording import Told
from staa.data.events.repair import Repair
from staa.data.events.save import cut, save_pieces
from staa.files import check_new, check_writable, naming
from staa.registry import unknown


def data(args: list[str]) -> int:
    """download a data set, draw or convert a recording, or describe a series"""
    if args[:1] == ["show"]:
        return _show(args[1:])
    if args[:1] == ["convert"]:
        return _convert(args[1:])
    if args[:1] == ["describe"]:
        return _describe(args[1:])
    options = parse(DataOptions, args, "staa data")
    if options.name not in DOWNLOADS:
        raise ValueError(unknown("data set", options.name, DOWNLOADS))
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
        events = read_events(
            options.file, parse_sensor(options.sensor), unit=options.unit, stream=options.stream, upright=options.upright
        )
    if events.sensor is None:
        height, width = int(events.y.max()) + 1, int(events.x.max()) + 1
        say(f"the file doesn't say its sensor: taken as {height}x{width}, which holds all its events")
        events = events._replace(sensor=(height, width))
    if doubts := doubt(len(events.t), int(events.t[0]), int(events.t[-1]), events.sensor):
        say(f"{options.file}: {doubts}")
    with waiting("drawing"):
        draw_recording(events, path, options.file.name)
    say(f"{options.file} drawn in {path}")
    return 0


def _convert(args: list[str]) -> int:
    options = parse(ConvertOptions, args, "staa data convert")
    if options.out.suffix.lower() != ".npz":
        raise ValueError(f"a recording is written as .npz, got {options.out}: call it {options.out.stem or 'recording'}.npz")
    start, end = options.cut or (0.0, 1.0)
    if not 0 <= start < end < 1e12:
        raise ValueError(
            f"--cut takes the first and the last second to keep, counted from the first event; got {start:g} {end:g}"
        )
    check_new(options.out)
    repair = Repair(options.repair, options.file)
    told = Told(options.unit, options.stream, options.upright, repair=options.repair)
    pieces = telling(read_pieces(options.file, parse_sensor(options.sensor), repair, told), options.file.name)
    with waiting("converting"):
        try:
            saved = save_pieces(options.out, pieces if options.cut is None else cut(pieces, start, end))
        except ValueError as error:
            raise ValueError(naming(options.file, error)) from error
    if repair.repaired():
        say(f"{options.file}: {repair.told()}")
    if doubts := doubt(*saved):
        say(f"{options.file}: {doubts}")
    seconds = (saved.last - saved.first) / 1e6
    say(f"{options.file}: {saved.count:,} events of {seconds:,.4g} s written to {options.out}")
    if saved.sensor is None:
        say("neither the file nor --sensor says the size of the sensor, so height and width are left out")
    return 0


def _describe(args: list[str]) -> int:
    options = parse(DescribeOptions, args, "staa data describe")
    with waiting():
        lines = describe(read_series(options.file, **vars(options.series)))
    say(options.file, *(in_flags(line, DescribeOptions) for line in lines))
    return 0
