"""SpikeSTAG (arXiv 2508.02069): spikes on a learned graph of nodes, in space and in time."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from staa.forecasters.day import DayEmbedding, check_phase
from staa.forecasters.parts import (
    Forecaster,
    LinearNeuron,
    NeuronFactory,
    NormedNeuron,
    Shape,
    SpikeEncoder,
    SpikingAttention,
    StepLinear,
    normalised,
)
from staa.forecasters.pieces import sequences_in_pieces
from staa.neurons import NEURONS
from staa.ops.checks import check_counts

Graph = Literal["adaptive", "identity"] | Tensor

EMBEDDING = 10  # numbers that describe a node
LIVELY = partial(NEURONS["seqsnn"], threshold=0.5)


class SpikeSTAG(Forecaster):
    """SpikeSTAG: spikes on a learned graph of nodes, in space and in time.

        z = (x − μ) / √(var + 1e-5)                         of each window and node; undone on the forecast
        A = softmax over rows of ReLU(E₁ E₂ᵀ)               adaptive matrix, E₁, E₂ [K, 10] learned
        e = Linear(patches of BN(Conv(z))) + Linear(time) + Linear(E₁) [+ Linear(N ⊙ (S + W))]      of a patch's last step
        h⁰ = LIF(BN(Linear(e)))                             OBS, observation
        hᵏ = LIF(BN(Wₖ [hᵏ⁻¹; A hᵏ⁻¹])),  k = 1 … hops      MSSA, spiking SAGE; G = LIF(BN(W [h⁰; …; hᴴ]))
        R = LIF(BN(Linear(LSTM(mean over T of G))))         along a node's patches, the same current at each of the T steps
        Q = spiking self-attention of G, Q Kᵀ V through a BatchNorm
        g = LIF(BN(Linear([R; Q])));  Y = g ⊙ Q + (1 − g) ⊙ R                   DSF, fusion
        forecast = Linear(mean over T of Y, patches side by side)               shared by the nodes

    Args:
        nodes: K, the series that are forecast together.
        window: L, steps of the series that are seen.
        horizon: P, steps that are forecast.
        time_features: F, such as minute and weekday; 0: none.
        width: Features d of a node, a patch and a step; a multiple of heads.
        steps: T of the spiking network, which are not the series'.
        neuron: Makes each neuron, neuron(channels) and neuron(channels, threshold=…). At a threshold of ½ each fires at 4 to 20
            % of its steps from the first step of training on, at 1 some do not.
        patch: Most steps of the series that make one token, which has the largest divisor of the window up to that; None: 1 for
            a window of up to 24, else 12.
        hops: Neighbourhoods aggregated one after the other, at least 0.
        graph: "adaptive", "identity" (no neighbours), or weights [K, K], whose rows are divided by their sums; a node without
            neighbours is its own.
        top_k: Neighbours kept of each row of the adaptive matrix; None: all.
        observe: False leaves out OBS's Linear.
        fusion: "both" by the gate, "lstm" or "attention" alone, or their "sum".
        spike_messages: A h, 1 at most, fires at ¼ before it is multiplied, so that every product has a binary side.
        tokens: Attention over a node's patches ("patch"), or over the nodes of a patch ("node").
        heads: Attention heads.
        attention_scale: Factor of Q Kᵀ V before its neuron; None: a BatchNorm in its place. With SeqSNN's 0.125 attention over
            a few patches never fires.
        day_slots: Steps of the series in a day, for an embedding of the time of day and the weekday of each node: N [K, 10], S
            [day_slots, 10] and W [7, 10], learned; `forward` then needs phase. 0: none.
        instance_norm: Normalise each window of a node by its own mean and deviation, √(variance + 1e-5), and undo it on the
            forecast.

    Shapes:
        x [B, L, K], time [B, L, F] or None, phase [B, L or more, 2] or None -> forecast [B, P, K]

    Raises:
        ValueError: If a size is no whole number of at least 1, heads do not divide the width, a word is unknown,
            a graph has another size or negative or infinite weights, or top_k comes without the adaptive matrix.

    Source:
        Hu et al., arXiv 2508.02069, from its abstract: equations and code are not public. The parts are the paper's; how they
        are put together is ours. Initialised as PyTorch does, E₁ and E₂ from N(0, 1).
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
        neuron: NeuronFactory = LIVELY,
        patch: int | None = None,
        hops: int = 2,
        graph: Graph = "adaptive",
        top_k: int | None = None,
        observe: bool = True,
        fusion: Literal["both", "lstm", "attention", "sum"] = "both",
        spike_messages: bool = False,
        tokens: Literal["patch", "node"] = "patch",
        heads: int = 2,
        attention_scale: float | None = None,
        day_slots: int = 0,
        instance_norm: bool = True,
    ):
        super().__init__()
        if patch is None:
            patch = 1 if window <= 24 else 12
        self.shape = Shape(nodes, window, horizon, time_features, width=width, steps=steps, patch=patch, heads=heads)
        patch = max(p for p in range(1, min(patch, window) + 1) if window % p == 0)
        check_counts(least=0, hops=hops, day_slots=day_slots)
        for name, value, known in (
            ("fusion", fusion, ("both", "lstm", "attention", "sum")),
            ("tokens", tokens, ("patch", "node")),
            ("graph", _word_of(graph), ("adaptive", "identity")),
        ):
            if value not in known:
                raise ValueError(
                    f"{name} must be {', '.join(known)}{' or weights [K, K]' if name == 'graph' else ''}, got {value!r}"
                )
        if top_k is not None and not (isinstance(graph, str) and graph == "adaptive" and 1 <= top_k <= nodes):
            raise ValueError(f"top_k must be from 1 to the {nodes} nodes, and graph adaptive, got top_k={top_k}")
        graph = _rows_of(graph, nodes) if isinstance(graph, Tensor) else graph
        self.patch, self.top_k, self.fusion, self.tokens = patch, top_k, fusion, tokens
        self.instance_norm = instance_norm
        self.node = nn.Parameter(torch.randn(nodes, EMBEDDING))
        learned = hops > 0 and isinstance(graph, str) and graph == "adaptive"  # without hops nothing would train it
        self.neighbour = nn.Parameter(torch.randn(nodes, EMBEDDING)) if learned else None
        self.register_buffer("graph", graph if isinstance(graph, Tensor) else None)
        self.encoder = SpikeEncoder(steps)
        self.of_patch, self.of_node = StepLinear(patch, width), nn.Linear(EMBEDDING, width)
        self.of_time = nn.Linear(time_features, width) if time_features else None
        self.day = DayEmbedding(nodes, day_slots, width) if day_slots else None
        self.observe = LinearNeuron(width, width, neuron) if observe else NormedNeuron(width, neuron)
        self.around = Around()
        self.messages = nn.ModuleList(neuron(width, threshold=0.25) if spike_messages else nn.Identity() for _ in range(hops))
        self.hops = nn.ModuleList(LinearNeuron(2 * width, width, neuron) for _ in range(hops))
        self.scales = LinearNeuron((hops + 1) * width, width, neuron)
        if fusion != "attention":
            self.lstm = nn.LSTM(width, width, batch_first=True)
            self.recall = LinearNeuron(width, width, neuron)
        if fusion != "lstm":
            self.attention = SpikingAttention(width, heads, neuron, scale=attention_scale)
        if fusion == "both":
            self.gate = LinearNeuron(2 * width, width, neuron)
        self.head = nn.Linear(window // patch * width, horizon)

    def adjacency(self) -> Tensor:
        """A [K, K]: what row i takes of each of its neighbours; rows add up to 1."""
        if isinstance(self.graph, Tensor):
            return self.graph
        if self.neighbour is None:
            return torch.eye(len(self.node), dtype=self.node.dtype, device=self.node.device)
        a = (self.node @ self.neighbour.T).relu().softmax(1)
        if self.top_k is not None:
            kept = torch.zeros_like(a).scatter(1, a.topk(self.top_k, 1).indices, 1.0)  # ReLU leaves ties: k of them, not all
            a = a * kept
            a = a / a.sum(1, keepdim=True)
        return a

    def forward(self, x: Tensor, time: Tensor | None = None, phase: Tensor | None = None) -> Tensor:
        """The forecast of each window.

        Args:
            x: Windows of the series, floats of the network's dtype, without gaps.
            time: Time features of their steps; None if the forecaster was built without any.
            phase: int64, (slot of the day, weekday from 0) of their steps, and of later ones, which are not looked at; None if
                the forecaster was built without day_slots.

        Shapes:
            x [B, L, K], time [B, L, F], phase [B, L or more, 2] -> forecast [B, P, K]

        Raises:
            ValueError: If x, time or phase has another shape than the forecaster was built for, or another dtype or device than
                its weights; if a slot or weekday is out of range.
            TypeError: If one of them is no tensor.
        """
        self.shape.check(self, x, time)
        check_phase(phase, x, self.day)
        batch, nodes, patches = len(x), x.shape[2], x.shape[1] // self.patch
        z, mean, deviation = normalised(x) if self.instance_norm else (x, 0.0, 1.0)
        rows = (batch, nodes, patches)
        y = self._fused(self._scales(self._embedded(z, time, phase), rows), rows).mean(0)  # [B·K·L', d]
        forecast = self.head(y.view(batch, nodes, -1)).transpose(1, 2)
        return forecast * deviation + mean

    def _embedded(self, z: Tensor, time: Tensor | None, phase: Tensor | None) -> Tensor:
        """e [T, B·K·L', d]."""
        c = self.encoder(z)  # [T, B, K, L]
        e = self.of_patch(c.unflatten(3, (-1, self.patch)))  # [T, B, K, L', d]
        e = e + self.of_node(self.node)[:, None]
        if self.of_time is not None and time is not None:
            e = e + self.of_time(time[:, self.patch - 1 :: self.patch])[:, None]
        if self.day is not None and phase is not None:
            e = e + self.day(phase[:, self.patch - 1 : z.shape[1] : self.patch])
        return e.flatten(1, 3)

    def _scales(self, e: Tensor, rows: tuple[int, int, int]) -> Tensor:
        """G [T, B·K·L', d]."""
        h = self.observe(e)
        neighbours, scales = self._neighbours(), [h]
        for message, hop in zip(self.messages, self.hops, strict=True):
            around = message(neighbours(h.view(len(h), *rows[:2], -1)).view(h.shape))
            h = hop(h, around)
            scales.append(h)
        return self.scales(*scales)

    def _neighbours(self) -> Callable[[Tensor], Tensor]:
        """A h of h [T, B, K, L' d]."""
        if self.graph is None and self.neighbour is None:
            return lambda h: h
        a = self.adjacency()
        return lambda h: self.around(h, a)

    def _fused(self, g: Tensor, rows: tuple[int, int, int]) -> Tensor:
        batch, nodes, patches = rows
        recalled = attended = None
        if self.fusion != "attention":
            sequence = sequences_in_pieces(self.lstm, g.mean(0).view(batch * nodes, patches, -1))
            recalled = self.recall(sequence.flatten(0, 1)[None], steps=len(g))
        if self.fusion != "lstm":
            by_node = g.view(len(g), batch * nodes, patches, -1)
            if self.tokens == "patch":
                attended = self.attention(by_node).view(g.shape)
            else:
                turned = g.view(len(g), batch, nodes, patches, -1).transpose(2, 3)
                attended = self.attention(turned.flatten(1, 2))
                attended = attended.unflatten(1, (batch, patches)).transpose(2, 3).reshape(g.shape)
        if recalled is None or attended is None:
            return attended if recalled is None else recalled  # type: ignore[return-value]
        if self.fusion == "sum":
            return recalled + attended
        return recalled + self.gate(recalled, attended) * (attended - recalled)  # gate ⊙ Q + (1 − gate) ⊙ R


class Around(nn.Module):
    """A h, what each node's neighbours say, of h [T, B, K, d] and A [K, K]."""

    per_step = True

    def forward(self, h: Tensor, a: Tensor) -> Tensor:
        return a @ h


def _word_of(graph: Graph) -> str:
    """The word that a graph is, "identity" for weights; of anything else its type, which no list of words has."""
    if isinstance(graph, str):
        return graph
    return "identity" if isinstance(graph, Tensor) else type(graph).__name__


def _rows_of(graph: Tensor, nodes: int) -> Tensor:
    """Weights [K, K] with rows that add up to 1."""
    if graph.shape != (nodes, nodes):
        raise ValueError(f"graph must be {nodes} × {nodes}, a row a node, got {' × '.join(map(str, graph.shape))}")
    if not bool((graph >= 0).all()) or not bool(graph.isfinite().all()):
        raise ValueError("graph must have weights that are finite and not negative")
    graph = graph.float()
    total = graph.sum(1, keepdim=True)
    return torch.where(total > 0, graph / total.clamp(min=torch.finfo(graph.dtype).tiny), torch.eye(nodes, device=graph.device))


spikestag = SpikeSTAG
