"""Forecasters: a window of a series of K nodes in, the steps that follow out.

    f(nodes, window, horizon, *, time_features=0, …) -> nn.Module:  x [B, L, K], time [B, L, F] or None -> [B, P, K]

with L the window, P the horizon, K the nodes and F the time features. Inside, spikes are [T, M, d]: T steps of the spiking
network, which are not the series', M rows (sample, node, patch) and d features.
"""

from staa.forecasters.baselines import GRU, LastValue, Linear
from staa.forecasters.ispikformer import ISpikformer
from staa.forecasters.parts import ClosedForm, LearnsGraph
from staa.forecasters.spikestag import SpikeSTAG
from staa.registry import Registry

FORECASTERS = Registry(
    "forecaster",
    "staa.forecasters.FORECASTERS",
    {"spikestag": SpikeSTAG, "ispikformer": ISpikformer, "gru": GRU, "linear": Linear, "last-value": LastValue},
)

__all__ = ["FORECASTERS", "ClosedForm", "LearnsGraph"]
