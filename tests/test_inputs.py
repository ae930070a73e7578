"""What is called with an input it can't take says so itself, before torch does."""

import traceback
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import staa
from staa.attention import ATTENTIONS, PositionEncoding
from staa.forecasters import FORECASTERS
from staa.layers import PerStep, Site, fold_batch_norm, per_step
from staa.models import MODELS
from staa.neurons import LIF, NEURONS
from staa.ops import direct, integrate, latency, lif, rate
from staa.streaming import recompute, stream

SOURCE = str(Path(staa.__file__).parent)
T, N, C, SIZE = 4, 2, 8, 16
FRAMES = torch.rand(T, N, C, SIZE, SIZE)
WINDOWS, TIME = torch.rand(3, 12, 5), torch.rand(3, 12, 2)
WRONG = {
    "array": lambda x: x.numpy(),
    "list": lambda x: x.tolist(),
    "none": lambda x: None,
    "integers": lambda x: x.long(),
    "bytes": lambda x: x.byte(),
    "truths": lambda x: x > 0.5,
    "complex": lambda x: x.to(torch.complex64),
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "elsewhere": lambda x: x.to("meta"),
    "of rank 1": lambda x: x.flatten(),
    "of rank 2": lambda x: x.flatten(1),
    "of more ranks": lambda x: x[None, None],
    "without steps": lambda x: x[:0],
    "of other channels": lambda x: x.transpose(2, -1)[:, :, :3],
}
LOOK = ("rate", "latency")
"""They look at the values, which a tensor on meta has not."""


def on_spikes(attention, x):
    return attention(x, x) if attention.acts_on == "spikes" else attention(x)


def network(**options):
    return MODELS["resnet20"](3, in_channels=C, width=0.1, **options)


CALLS = {
    **{f"neuron {name}": (NEURONS[name](C), FRAMES) for name in NEURONS},
    **{f"attention {name}": (partial(on_spikes, ATTENTIONS[name](T, C)), FRAMES) for name in ATTENTIONS},
    "position": (PositionEncoding(T, C), FRAMES),
    "site": (Site(LIF()), FRAMES),
    **{
        f"model {name}": (MODELS[name](3, in_channels=C, width=0.1, **({"size": SIZE} if name == "vggsnn" else {})), FRAMES)
        for name in MODELS
    },
    **{f"forecaster {name}": (FORECASTERS[name](5, 12, 3), WINDOWS) for name in FORECASTERS},
    **{
        f"time of {name}": (partial(FORECASTERS[name](5, 12, 3, time_features=2), WINDOWS), TIME)
        for name in FORECASTERS
        if name != "last-value"
    },
    "lif": (partial(lif, decay=0.5), FRAMES),
    "lif, its membrane": (partial(lif, FRAMES, decay=0.5), FRAMES[0]),
    "lif, its scale": (lambda p: lif(FRAMES, decay=0.5, scale=p), FRAMES),
    "integrate": (partial(integrate, decay=0.5), FRAMES),
    "direct": (partial(direct, steps=T), FRAMES),
    "rate": (partial(rate, steps=T), FRAMES),
    "latency": (partial(latency, steps=T), FRAMES),
    "per_step": (partial(per_step, torch.clone), FRAMES),
    "PerStep": (PerStep(nn.Identity()), FRAMES),
    "fold_batch_norm": (lambda x: fold_batch_norm(x, nn.BatchNorm2d(C)), FRAMES),
    "stream": (partial(stream, network(steps=None).eval()), FRAMES),
    "recompute": (lambda x: recompute(network(steps=None).eval(), x, 2), FRAMES),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_input_is_taken_or_refused_in_our_words(name):
    call, right = CALLS[name]
    for kind, wrong in WRONG.items():
        if kind == "elsewhere" and name in LOOK:
            continue
        try:
            with torch.no_grad():
                call(wrong(right))
        except Exception as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            ours = isinstance(error, ValueError | TypeError) and raised_in.startswith(SOURCE)
            message = f"{kind}: {type(error).__name__} of {raised_in}: {error}"
            assert ours, message


@pytest.mark.parametrize("name", CALLS)
def test_the_right_input_is_taken(name):
    call, right = CALLS[name]
    with torch.no_grad():
        call(right)


def test_what_is_no_tensor_is_refused():
    for call, right in CALLS.values():
        for kind in ("array", "list"):
            with pytest.raises(TypeError, match="must be a tensor"):
                call(WRONG[kind](right))
