"""A run's report, as a page."""

from staa.analysis.report.page import write_report
from staa.cli.parse import parse
from staa.cli.run_options import ReportOptions
from staa.cli.text import say, warn
from staa.cli.waiting import waiting


def report(args: list[str]) -> int:
    """show a run on one page"""
    options = parse(ReportOptions, args, "staa report")
    with waiting():
        made = write_report(
            options.run,
            options.out,
            split=options.split,
            weights=options.weights,
            data_root=options.data,
            device=options.device,
            workers=options.workers,
            trust=options.trust_code,
        )
    for text in made.left_out:
        warn(f"left out: {text}", ReportOptions)
    say(f"report of {options.run}, {made.path.stat().st_size / 1e6:.2f} MB → {made.path}: open it in a browser")
    return 0
