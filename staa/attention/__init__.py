"""Attention modules: (steps, channels) -> nn.Module that says what it acts on and whether it is causal."""

from functools import partial

from staa.attention.staa import STAA, ChannelGate, GlobalContext, PositionEncoding, StepAttention

ATTENTIONS = {
    "staa": STAA,
    "gc": partial(STAA, position=None, step=None, dropout=0.0),
    "gc-pe": partial(STAA, step=None, dropout=0.0),
    "gc-pe-sa": partial(STAA, dropout=0.0),
    "staa-causal": partial(STAA, causal=True),
}

__all__ = ["ATTENTIONS", "STAA", "ChannelGate", "GlobalContext", "PositionEncoding", "StepAttention"]
