"""iSpikformer, SeqSNN's spiking iTransformer (Lv et al., ICML 2024): a node is a word."""

from typing import Literal

import torch
from torch import Tensor, nn

from staa.forecasters.parts import ENCODERS, Forecaster, LinearNeuron, NeuronFactory, Shape, SpikingAttention, normalised
from staa.neurons import NEURONS


class ISpikformer(Forecaster):
    """iSpikformer, a spiking iTransformer: each node's whole window is a token.

        S = LIF(encoder(z));  h = LIF(BN(Linear(S)));  blocks of spiking self-attention among the nodes
        forecast = Linear(h at the last of the T steps)                         shared by the nodes

    z is x, normalised. Time features are F nodes more, normalised alike, which the head leaves out.

    Args:
        nodes: K, the series that are forecast together.
        window: L, steps of the series that are seen.
        horizon: P, steps that are forecast.
        time_features: F, such as minute and weekday; 0: none.
        width: Features of a node, a multiple of heads.
        steps: T of the spiking network, which are not the series'.
        neuron: Makes each neuron, neuron(channels) and, for attention, neuron(channels, threshold=0.5). SeqSNN's fires at 1,
            which by chance of the first weights leaves layers silent; at ½ all fire from the first step of training on.
        heads: Attention heads.
        attention_scale: Factor of Q Kᵀ V before its neuron; None: a BatchNorm in its place. SeqSNN's fires if nodes × width of
            a head is a few thousand; with few nodes or narrow heads it does not.
        blocks: Attention blocks.
        encoder: Currents of the first neuron: "conv", a convolution over three steps, "delta", a step's change, or "repeat",
            the values as they are.
        instance_norm: Normalise each window of a node by its own mean and deviation, √(variance + 1e-5), and undo it on the
            forecast.

    Shapes:
        x [B, L, K], time [B, L, F] or None -> forecast [B, P, K]

    Raises:
        ValueError: If a size is no whole number of at least 1, heads do not divide the width, or the encoder is unknown.

    Source:
        SeqSNN, Lv et al., ICML 2024. Initialised as in its code: linear layers N(0, 0.02²) with a bias of 0; convolution and
        head as PyTorch makes them. The delta encoder is not: its weights begin at ±2, since at 0.02 nothing fires.
    """

    def __init__(
        self,
        nodes: int,
        window: int,
        horizon: int,
        *,
        time_features: int = 0,
        width: int = 64,
        steps: int = 4,
        neuron: NeuronFactory = NEURONS["seqsnn"],
        heads: int = 8,
        attention_scale: float | None = 0.125,
        blocks: int = 2,
        encoder: Literal["conv", "delta", "repeat"] = "conv",
        instance_norm: bool = True,
    ):
        super().__init__()
        self.shape = Shape(nodes, window, horizon, time_features, width=width, steps=steps, heads=heads, blocks=blocks)
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be {', '.join(ENCODERS)}, got {encoder!r}")
        self.instance_norm = instance_norm
        self.encoder, self.neuron = ENCODERS[encoder](steps), neuron(window)
        self.embed = LinearNeuron(window, width, neuron)
        self.blocks = nn.ModuleList(SpikingAttention(width, heads, neuron, scale=attention_scale) for _ in range(blocks))
        for part in (*self.embed.modules(), *self.blocks.modules()):
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        self.head = nn.Linear(width, horizon)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(self, x, time)
        z = x if time is None else torch.cat([x, time], 2)
        z, mean, deviation = normalised(z) if self.instance_norm else (z, 0.0, 1.0)
        c = self.encoder(z).flatten(1, 2)  # [T, B·(K + F), L]
        h = self.embed(self.neuron(c)).unflatten(1, (len(x), -1))
        for block in self.blocks:
            h = block(h)
        forecast = self.head(h[-1]).transpose(1, 2) * deviation + mean
        return forecast[..., : x.shape[2]]


ispikformer = ISpikformer
