"""Forecasters: a window of a series of K nodes in, the steps that follow out.

    f(nodes, window, horizon, *, time_features=0, …) -> nn.Module:  x [B, L, K], time [B, L, F] or None -> [B, P, K]

with L the window, P the horizon, K the nodes and F the time features. Inside, spikes are [T, M, d]: T steps of the spiking
network, which are not the series', M rows (sample, node, patch) and d features.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from staa.neurons import NEURONS

Neuron = Callable[..., nn.Module]
Graph = Literal["adaptive", "identity"] | Tensor

EMBEDDING = 10  # numbers that describe a node
EPS = 1e-5


class Fire(nn.Module):
    """spikes = neuron(BatchNorm(Linear(x))) of x [T, M, in] -> [T, M, out]; BatchNorm over T and M.

    steps: x has one step, and its current is the same at each of so many.
    """

    def __init__(self, inputs: int, outputs: int, neuron: Neuron):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs)
        self.neuron = neuron(outputs)

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        current = self.norm(self.linear(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return self.neuron(current if steps is None else current.expand(steps, -1, -1))


class SpikeEncoder(nn.Module):
    """c = BatchNorm(Conv(z)): a series [B, L, K] as T currents [T, B, K, L], each a convolution over three steps of its own.

    SeqSNN's convolutional encoder (Lv et al., ICML 2024) without its neuron.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.conv = nn.Conv2d(1, steps, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(steps)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm(self.conv(z.transpose(1, 2)[:, None])).transpose(0, 1)


class DeltaEncoder(nn.Module):
    """c_t[l] = w_t BatchNorm(z[l] − z[l − 1]) + b_t: a series [B, L, K] as T currents [T, B, K, L]; the first change is 0.

    SeqSNN's delta encoder without its neuron. BatchNorm is over all changes.
    """

    def __init__(self, steps: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(1, steps)

    def forward(self, z: Tensor) -> Tensor:
        change = nn.functional.pad(z.diff(dim=1), (0, 0, 1, 0)).transpose(1, 2)
        return self.linear(self.norm(change[:, None]).movedim(1, -1)).movedim(-1, 0)


ENCODERS = {"conv": SpikeEncoder, "delta": DeltaEncoder}


class SpikingAttention(nn.Module):
    """Self-attention of spikes, without softmax, and an MLP, each added to what comes in (SeqSNN):

        Q, K, V = LIF(BN(Linear(x)));    O = LIF_½(0.125 (Q Kᵀ) V) for each head;    x' = x + LIF(BN(Linear(O)))
        y = x' + LIF(BN(Linear(LIF(BN(Linear(x'))))))                                  width → 4 width → width

    [T, G, S, d] -> the same: attention among the S tokens of each of G groups. LIF_½ fires at ½. A sum of spikes is a small
    whole number, not a spike. Q Kᵀ V is taken from the side that costs less.
    """

    def __init__(self, width: int, heads: int, neuron: Neuron):
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads need a width that they divide, got {width}: take fewer heads or another width")
        self.heads = heads
        self.query, self.key, self.value = (Fire(width, width, neuron) for _ in range(3))
        self.neuron = neuron(width, threshold=0.5)
        self.out = Fire(width, width, neuron)
        self.up, self.down = Fire(width, 4 * width, neuron), Fire(4 * width, width, neuron)

    def forward(self, x: Tensor) -> Tensor:
        steps, groups, tokens, width = x.shape
        flat = x.reshape(steps, groups * tokens, width)

        def by_head(part: Tensor) -> Tensor:
            return part.view(steps, groups, tokens, self.heads, width // self.heads).transpose(2, 3)

        q, k, v = (by_head(f(flat)) for f in (self.query, self.key, self.value))
        seen = q @ (k.transpose(-1, -2) @ v) if tokens > width // self.heads else (q @ k.transpose(-1, -2)) @ v
        mixed = (0.125 * seen).transpose(2, 3).reshape(flat.shape)
        flat = flat + self.out(self.neuron(mixed))
        return (flat + self.down(self.up(flat))).view(x.shape)


class SpikeSTAG(nn.Module):
    """A reimplementation of SpikeSTAG from its abstract (Hu et al., arXiv 2508.02069), whose equations and code are not public:
    which parts there are is the paper's, how they are put together is ours.

        z = (x − μ) / √(var + 1e-5)                         of each window and node; undone on the forecast
        A = softmax over rows of ReLU(E₁ E₂ᵀ)               adaptive matrix, E₁, E₂ [K, 10] learned
        e = Linear(patches of BN(Conv(z))) + Linear(time) + Linear(E₁)          time: of a patch's last step
        h⁰ = LIF(BN(Linear(e)))                             OBS, observation
        hᵏ = LIF(BN(Wₖ [hᵏ⁻¹; A hᵏ⁻¹])),  k = 1 … hops      MSSA, spiking SAGE; G = LIF(BN(W [h⁰; …; hᴴ]))
        R = LIF(BN(Linear(LSTM(mean over T of G))))         along a node's patches, the same current at each of the T steps
        Q = spiking self-attention of G
        g = LIF(BN(Linear([R; Q])));  Y = g ⊙ Q + (1 − g) ⊙ R                   DSF, fusion
        forecast = Linear(mean over T of Y, patches side by side)               shared by the nodes

    x [B, L, K], time [B, L, F] -> [B, P, K].

    width: features d. steps: T of the spiking network. patch: steps of the series that make one token; None: 1 up to a window
    of 24, else the largest divisor of the window up to 12. hops: neighbourhoods aggregated one after the other. graph:
    "adaptive", "identity" (no neighbours), or weights [K, K], whose rows are divided by their sums; a node without neighbours
    is its own. top_k: neighbours kept of each row of the adaptive matrix. observe: False leaves out OBS's Linear. fusion:
    "both" by the gate, one of the two alone, or their sum. spike_messages: A h, 1 at most, fires at ¼ before it is
    multiplied, so that every product has a binary side. tokens: attention over a node's patches, or over the nodes of a patch.

    Initialisation: PyTorch's own; E₁ and E₂ from N(0, 1).

    Raises ValueError for sizes below 1, a patch or heads that do not divide window or width, a graph of another size or with
    negative or infinite weights, and top_k without the adaptive matrix.
    """

    batch_first = True

    def __init__(
        self,
        nodes: int,
        window: int,
        horizon: int,
        *,
        time_features: int = 0,
        width: int = 64,
        steps: int = 4,
        neuron: Neuron = NEURONS["seqsnn"],
        patch: int | None = None,
        hops: int = 2,
        graph: Graph = "adaptive",
        top_k: int | None = None,
        observe: bool = True,
        fusion: Literal["both", "lstm", "attention", "sum"] = "both",
        spike_messages: bool = False,
        tokens: Literal["patch", "node"] = "patch",
        heads: int = 8,
        instance_norm: bool = True,
    ):
        super().__init__()
        if patch is None:
            patch = 1 if window <= 24 else max(p for p in range(1, 13) if window % p == 0)
        self.shape = _Shape(nodes, window, horizon, time_features, width=width, steps=steps, patch=patch, heads=heads)
        if window % patch:
            raise ValueError(f"patches of {patch} steps don't fill a window of {window}: take a divisor of it")
        if hops < 0:
            raise ValueError(f"hops is 0 or more, got {hops}")
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
            raise ValueError(f"top_k is from 1 to the {nodes} nodes, of the adaptive matrix alone; got {top_k}")
        graph = _rows_of(graph, nodes) if isinstance(graph, Tensor) else graph
        self.patch, self.top_k, self.fusion, self.tokens = patch, top_k, fusion, tokens
        self.instance_norm = instance_norm
        self.node = nn.Parameter(torch.randn(nodes, EMBEDDING))
        learned = hops > 0 and isinstance(graph, str) and graph == "adaptive"  # without hops nothing would train it
        self.neighbour = nn.Parameter(torch.randn(nodes, EMBEDDING)) if learned else None
        self.register_buffer("graph", graph if isinstance(graph, Tensor) else None)
        self.encoder = SpikeEncoder(steps)
        self.of_patch, self.of_node = nn.Linear(patch, width), nn.Linear(EMBEDDING, width)
        self.of_time = nn.Linear(time_features, width) if time_features else None
        self.observe = Fire(width, width, neuron) if observe else NormedNeuron(width, neuron)
        self.messages = nn.ModuleList(neuron(width, threshold=0.25) if spike_messages else nn.Identity() for _ in range(hops))
        self.hops = nn.ModuleList(Fire(2 * width, width, neuron) for _ in range(hops))
        self.scales = Fire((hops + 1) * width, width, neuron)
        if fusion != "attention":
            self.lstm = nn.LSTM(width, width, batch_first=True)
            self.recall = Fire(width, width, neuron)
        if fusion != "lstm":
            self.attention = SpikingAttention(width, heads, neuron)
        if fusion == "both":
            self.gate = Fire(2 * width, width, neuron)
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

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(x, time)
        batch, nodes, patches = len(x), x.shape[2], x.shape[1] // self.patch
        z, mean, deviation = _normalised(x) if self.instance_norm else (x, 0.0, 1.0)
        c = self.encoder(z)  # [T, B, K, L]
        e = self.of_patch(c.unflatten(3, (patches, self.patch)))  # [T, B, K, L', d]
        e = e + self.of_node(self.node)[:, None]
        if self.of_time is not None and time is not None:
            e = e + self.of_time(time[:, self.patch - 1 :: self.patch])[:, None]
        rows = (batch, nodes, patches)
        h = self.observe(e.flatten(1, 3))
        neighbours, scales = self._neighbours(), [h]
        for message, hop in zip(self.messages, self.hops, strict=True):
            around = message(neighbours(h.view(len(h), batch, nodes, -1)).view(h.shape))
            h = hop(torch.cat([h, around], 2))
            scales.append(h)
        g = self.scales(torch.cat(scales, 2))
        y = self._fused(g, rows).mean(0)  # [B·K·L', d]
        forecast = self.head(y.view(batch, nodes, -1)).transpose(1, 2)
        return forecast * deviation + mean

    def _neighbours(self) -> Callable[[Tensor], Tensor]:
        """A h of h [T, B, K, L' d]."""
        if self.graph is None and self.neighbour is None:
            return lambda h: h
        a = self.adjacency()
        return lambda h: a @ h

    def _fused(self, g: Tensor, rows: tuple[int, int, int]) -> Tensor:
        batch, nodes, patches = rows
        recalled = attended = None
        if self.fusion != "attention":
            sequence, _ = self.lstm(g.mean(0).view(batch * nodes, patches, -1))
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
        gate = self.gate(torch.cat([recalled, attended], 2))
        return gate * attended + (1 - gate) * recalled


class ISpikformer(nn.Module):
    """iSpikformer of SeqSNN (Lv et al., ICML 2024): every variate's whole window is a token.

        S = LIF(encoder(z));  h = LIF(BN(Linear(S)));  blocks of spiking self-attention among the variates
        forecast = Linear(h at the last of the T steps)                         shared by the nodes

    z is instance-normalised, as in `SpikeSTAG`. Time features are F variates more, normalised alike, which the head leaves
    out. encoder: "conv" (`SpikeEncoder`) or "delta" (`DeltaEncoder`). x [B, L, K], time [B, L, F] -> [B, P, K]. Raises
    ValueError for sizes below 1, heads that do not divide the width, and another encoder.

    Initialisation as in SeqSNN's code: weights of linear layers N(0, 0.02²), their biases 0; a convolution and the head, which
    is made outside of the network there, as PyTorch makes them.
    """

    batch_first = True

    def __init__(
        self,
        nodes: int,
        window: int,
        horizon: int,
        *,
        time_features: int = 0,
        width: int = 64,
        steps: int = 4,
        neuron: Neuron = NEURONS["seqsnn"],
        heads: int = 8,
        blocks: int = 2,
        encoder: Literal["conv", "delta"] = "conv",
        instance_norm: bool = True,
    ):
        super().__init__()
        self.shape = _Shape(nodes, window, horizon, time_features, width=width, steps=steps, heads=heads, blocks=blocks)
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be {' or '.join(ENCODERS)}, got {encoder!r}")
        self.instance_norm = instance_norm
        self.encoder, self.neuron = ENCODERS[encoder](steps), neuron(window)
        self.embed = Fire(window, width, neuron)
        self.blocks = nn.ModuleList(SpikingAttention(width, heads, neuron) for _ in range(blocks))
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        self.head = nn.Linear(width, horizon)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(x, time)
        z = x if time is None else torch.cat([x, time], 2)
        z, mean, deviation = _normalised(z) if self.instance_norm else (z, 0.0, 1.0)
        c = self.encoder(z).flatten(1, 2)  # [T, B·(K + F), L]
        h = self.embed(self.neuron(c)).unflatten(1, (len(x), -1))
        for block in self.blocks:
            h = block(h)
        forecast = self.head(h[-1]).transpose(1, 2) * deviation + mean
        return forecast[..., : x.shape[2]]


class GRU(nn.Module):
    """forecast = Linear(last hidden state of a GRU over the window), shared by the nodes; to compare with.

    gru(nodes, window, horizon, *, time_features=0, width=64, instance_norm=True). x [B, L, K], time [B, L, F] -> [B, P, K].
    Initialisation: PyTorch's own.
    """

    batch_first = True

    def __init__(
        self, nodes: int, window: int, horizon: int, *, time_features: int = 0, width: int = 64, instance_norm: bool = True
    ):
        super().__init__()
        self.shape = _Shape(nodes, window, horizon, time_features, width=width)
        self.instance_norm = instance_norm
        self.gru = nn.GRU(1 + time_features, width, batch_first=True)
        self.head = nn.Linear(width, horizon)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(x, time)
        batch, window, nodes = x.shape
        z, mean, deviation = _normalised(x) if self.instance_norm else (x, 0.0, 1.0)
        sequence = z.transpose(1, 2).reshape(batch * nodes, window, 1)
        if time is not None:
            sequence = torch.cat([sequence, time.repeat_interleave(nodes, 0)], 2)
        _, last = self.gru(sequence)
        return self.head(last[0]).view(batch, nodes, -1).transpose(1, 2) * deviation + mean


class LastValue(nn.Module):
    """forecast[p] = x[L − 1] for every p: what any forecaster has to beat."""

    batch_first = True

    def __init__(self, nodes: int, window: int, horizon: int, *, time_features: int = 0):
        super().__init__()
        self.shape = _Shape(nodes, window, horizon, time_features)
        self.register_buffer("horizon", torch.tensor(horizon))  # a module without a tensor has no device

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(x, time)
        return x[:, -1:].expand(-1, self.shape.horizon, -1)


class Linear(nn.Module):
    """Ridge regression in closed form: forecast = last value + Wᵀ a, a = [window − last value, time at its end, 1].

        W = argmin Σ |y − last value − Wᵀ a|² + ridge · rows · |W|²

    One W for all nodes, of a node's own window; across=True: of all nodes' windows as they are, a W for each node. `fit` sets
    W, which is 0 before. x [B, L, K], time [B, L, F] -> [B, P, K]. Raises ValueError where `a` has more than 20,000 numbers.
    """

    batch_first = True

    def __init__(
        self,
        nodes: int,
        window: int,
        horizon: int,
        *,
        time_features: int = 0,
        across: bool = False,
        ridge: float = 1e-3,
    ):
        super().__init__()
        self.shape = _Shape(nodes, window, horizon, time_features)
        if not 0 <= ridge < float("inf"):
            raise ValueError(f"ridge must be at least 0, got {ridge}")
        self.across, self.ridge = across, ridge
        inputs = window * (nodes if across else 1) + time_features + 1
        if inputs > 20_000:
            raise ValueError(
                f"least squares across {nodes} nodes and {window} steps has {inputs} inputs, 20,000 at most: set `across=False`"
            )
        self.register_buffer("weight", torch.zeros(inputs, horizon * (nodes if across else 1)))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(x, time)
        weight: Tensor = self.weight  # type: ignore[assignment]
        change = self._inputs(x, time) @ weight.to(x.dtype)  # [B, K, P], or [B, K P] across
        return x[:, -1:] + change.view(len(x), x.shape[2], -1).transpose(1, 2)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> None:
        """Least squares over batches of (inputs, y [B, P, K]); a row with a NaN in y counts for nothing.

        Raises ValueError where no row is left.
        """
        weight: Tensor = self.weight  # type: ignore[assignment]
        squares = weight.new_zeros(len(weight), len(weight), dtype=torch.float64)
        products, rows = weight.new_zeros(weight.shape, dtype=torch.float64), 0
        for (x, *time), y in batches:
            a = self._inputs(x.double(), *(part.double() for part in time)).flatten(0, -2)
            change = (y.double() - x[:, -1:].double()).transpose(1, 2).reshape(len(a), -1)
            known = change.isfinite().all(1)
            squares += a[known].T @ a[known]
            products += a[known].T @ change[known]
            rows += int(known.sum())
        if rows == 0:
            raise ValueError("no window has all its values ahead: fill the gaps (`series.gaps=interpolate`)")
        squares.diagonal().add_(self.ridge * rows)
        weight.copy_(torch.linalg.solve(squares, products))

    def _inputs(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """a [B, K, …], or [B, …] across."""
        if self.across:
            parts = [x.flatten(1), *([] if time is None else [time[:, -1]]), x.new_ones(len(x), 1)]
        else:
            own = (x - x[:, -1:]).transpose(1, 2)
            parts = [own, *([] if time is None else [time[:, -1:].expand(-1, x.shape[2], -1)]), torch.ones_like(own[..., :1])]
        return torch.cat(parts, -1)


class NormedNeuron(nn.Module):
    """spikes = neuron(BatchNorm(x)) of x [T, M, d]."""

    def __init__(self, width: int, neuron: Neuron):
        super().__init__()
        self.norm, self.neuron = nn.BatchNorm1d(width), neuron(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(self.norm(x.flatten(0, 1)).view(x.shape))


class _Shape:
    """Sizes of a forecaster, checked; and a check of what it is called with."""

    def __init__(self, nodes: int, window: int, horizon: int, time_features: int, **more: int):
        for name, value in {"nodes": nodes, "window": window, "horizon": horizon, **more}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if time_features < 0:
            raise ValueError(f"time_features must be at least 0, got {time_features}")
        self.nodes, self.window, self.horizon, self.time_features = nodes, window, horizon, time_features

    def check(self, x: Tensor, time: Tensor | None) -> None:
        """Raises ValueError for a window or time features of another shape, and windows of whole numbers."""
        if not x.is_floating_point():
            raise ValueError(f"this forecaster takes floating-point windows, got {x.dtype}")
        if x.ndim != 3 or x.shape[1:] != (self.window, self.nodes):
            raise ValueError(f"this forecaster takes windows [B, {self.window}, {self.nodes}], got {list(x.shape)}")
        expected = [len(x), self.window, self.time_features] if self.time_features else None
        given = None if time is None else list(time.shape)
        if given != expected:
            raise ValueError(f"this forecaster takes time features {expected}, got {given}")


def _normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, mean, deviation) of each window and node: z = (x − mean) / deviation, deviation = √(variance + 1e-5)."""
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    deviation = (variance + EPS).sqrt()
    return (x - mean) / deviation, mean, deviation


def _word_of(graph: Graph) -> str:
    """The word that a graph is, "identity" for weights; of anything else its type, which no list of words has."""
    if isinstance(graph, str):
        return graph
    return "identity" if isinstance(graph, Tensor) else type(graph).__name__


def _rows_of(graph: Tensor, nodes: int) -> Tensor:
    """Weights [K, K] with rows that add up to 1."""
    if graph.shape != (nodes, nodes):
        raise ValueError(f"the graph of {nodes} nodes is {nodes} × {nodes}, got {' × '.join(map(str, graph.shape))}")
    if not bool((graph >= 0).all()) or not bool(graph.isfinite().all()):
        raise ValueError("a graph's weights are finite and not negative")
    graph = graph.float()
    total = graph.sum(1, keepdim=True)
    return torch.where(total > 0, graph / total.clamp(min=torch.finfo(graph.dtype).tiny), torch.eye(nodes, device=graph.device))


spikestag, ispikformer = SpikeSTAG, ISpikformer
FORECASTERS = {"spikestag": spikestag, "ispikformer": ispikformer, "gru": GRU, "linear": Linear, "last-value": LastValue}
