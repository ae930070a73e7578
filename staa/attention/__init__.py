"""Attention modules: (steps, channels) -> nn.Module that says what it acts on and whether it is causal."""

from functools import partial

from staa.attention.dta import DTA, TNA, TXA
from staa.attention.gates import ChannelGate
from staa.attention.parts import GlobalContext, PositionEncoding, StepAttention
from staa.attention.staa import STAA
from staa.attention.ta import TemporalAttention
from staa.registry import Registry


def squeeze_excite(steps: int | None, channels: int, *, reduction: int = 4) -> ChannelGate:
    """Squeeze-and-excite over channels at each step: `staa.attention.ChannelGate`, built like the other attentions.

    Args:
        steps: Not needed; taken so that all attentions are built alike.
        channels: C.
        reduction: The hidden layer has max(8, C // reduction) units.
    """
    return ChannelGate(channels, reduction)


ATTENTIONS = Registry(
    "attention",
    "staa.attention.ATTENTIONS",
    {
        "staa": STAA,
        "gc": partial(STAA, position=None, step=None, dropout=0.0),
        "gc-pe": partial(STAA, step=None, dropout=0.0),
        "gc-pe-sa": partial(STAA, dropout=0.0),
        "staa-causal": partial(STAA, causal=True),
        "dta": DTA,
        "dta-txa": partial(DTA, merged=None),
        "dta-tna": partial(DTA, crossed=None),
        "dta-ltca": partial(DTA, crossed=None, merged=partial(TNA, gtca=False)),
        "dta-gtca": partial(DTA, crossed=None, merged=partial(TNA, ltca=False)),
        "ta": TemporalAttention,
        "ta-max": partial(TemporalAttention, maximum=True),
        "se": squeeze_excite,
    },
)

__all__ = [
    "ATTENTIONS",
    "DTA",
    "STAA",
    "TNA",
    "TXA",
    "ChannelGate",
    "GlobalContext",
    "PositionEncoding",
    "StepAttention",
    "TemporalAttention",
]
