"""The command that holds a part of one's own against its contracts."""

from staa.attention import ATTENTIONS
from staa.cli.options import CheckOptions
from staa.cli.parse import parse
from staa.cli.signals import FAILED
from staa.cli.text import say
from staa.models import MODELS
from staa.neurons import NEURONS
from staa.recipes.find import find
from staa.testing import check as check_part


def check(args: list[str]) -> int:
    """hold a part of your own against its contracts"""
    options = parse(CheckOptions, args, "staa check")
    registries = {"neuron": NEURONS, "attention": ATTENTIONS, "model": MODELS}
    known = {name: (kind, make) for kind, registry in registries.items() for name, make in registry.items()}
    found = find(options.name, known, "neuron, attention or model", folder=None)
    kind, make = found if options.name in known else (None, found)
    broken = 0
    for finding in check_part(make, options.kind or kind):
        say(finding, style="red" if finding.holds is False else None)
        broken += finding.holds is False
    return FAILED if broken else 0
