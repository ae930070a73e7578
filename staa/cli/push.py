"""The command that copies a run to a hub."""

from staa.cli.parse import parse
from staa.cli.run_options import PushOptions
from staa.cli.text import say
from staa.cli.waiting import waiting
from staa.hub import push as push_run


def push(args: list[str]) -> int:
    """copy a run to a hub, for others"""
    options = parse(PushOptions, args, "staa push")
    with waiting("copying the run to the hub"):
        there = push_run(options.run, options.name, public=options.public, licence=options.licence, update=options.update)
    seen = "all" if options.public else "you and your organisation alone"
    say(f"{options.run} → {there}, to be read by {seen}", f'in Python: staa.from_pretrained("{options.name}")')
    return 0
