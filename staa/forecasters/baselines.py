"""Forecasters to measure the others by: a GRU, the last value again, and least squares."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from staa.forecasters.parts import Forecaster, Shape, normalised


class GRU(Forecaster):
    """forecast = Linear(last hidden state of a GRU over the window), shared by the nodes, to compare others with.

    Args:
        nodes: K, the series that are forecast together.
        window: L, steps of the series that are seen.
        horizon: P, steps that are forecast.
        time_features: F, such as minute and weekday; 0: none.
        width: Hidden units.
        instance_norm: Normalise each window of a node by its own mean and deviation, √(variance + 1e-5), and undo it on the
            forecast.

    Shapes:
        x [B, L, K], time [B, L, F] or None -> forecast [B, P, K]

    Raises:
        ValueError: If a size is no whole number of at least 1.
    """

    def __init__(
        self, nodes: int, window: int, horizon: int, *, time_features: int = 0, width: int = 64, instance_norm: bool = True
    ):
        super().__init__()
        self.shape = Shape(nodes, window, horizon, time_features, width=width)
        self.instance_norm = instance_norm
        self.gru = nn.GRU(1 + time_features, width, batch_first=True)
        self.head = nn.Linear(width, horizon)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(self, x, time)
        batch, window, nodes = x.shape
        z, mean, deviation = normalised(x) if self.instance_norm else (x, 0.0, 1.0)
        sequence = z.transpose(1, 2).reshape(batch * nodes, window, 1)
        if time is not None:
            sequence = torch.cat([sequence, time.repeat_interleave(nodes, 0)], 2)
        _, last = self.gru(sequence)
        return self.head(last[0]).view(batch, nodes, -1).transpose(1, 2) * deviation + mean


class LastValue(Forecaster):
    """forecast[p] = x[L − 1] for every p: what any forecaster has to beat.

    Args:
        nodes: K, the series that are forecast together.
        window: L, steps of the series that are seen.
        horizon: P, steps that are forecast.
        time_features: F, such as minute and weekday; 0: none.

    Shapes:
        x [B, L, K], time [B, L, F] or None -> forecast [B, P, K]

    Raises:
        ValueError: If a size is no whole number of at least 1.
    """

    def __init__(self, nodes: int, window: int, horizon: int, *, time_features: int = 0):
        super().__init__()
        self.shape = Shape(nodes, window, horizon, time_features)
        self.register_buffer("horizon", torch.tensor(horizon))  # a module without a tensor has no device

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(self, x, time)
        return x[:, -1:].expand(-1, self.shape.horizon, -1)


class Linear(Forecaster):
    """Ridge regression in closed form: forecast = last value + Wᵀ a, a = [window − last value, time at its end, 1].

        W = argmin Σ |y − last value − Wᵀ a|² + ridge · rows · |W|²

    `fit` sets W, which is 0 before. An input that never changes there, as a dead sensor's, has a coefficient of 0; of several
    W that are as good, as for two sensors that are equal and no ridge, the smallest is taken.

    Args:
        nodes: K, the series that are forecast together.
        window: L, steps of the series that are seen.
        horizon: P, steps that are forecast.
        time_features: F, such as minute and weekday; 0: none.
        across: False: one W for all nodes, of a node's own window. True: a W for each node, of all nodes' windows as they are.
        ridge: Weight of the squared coefficients, at least 0.

    Shapes:
        x [B, L, K], time [B, L, F] or None -> forecast [B, P, K]

    Raises:
        ValueError: If a size is no whole number of at least 1, ridge is negative or infinite, or `a` has more than 20,000
            numbers.
    """

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
        self.shape = Shape(nodes, window, horizon, time_features)
        if not 0 <= ridge < float("inf"):
            raise ValueError(f"ridge must be a finite number of at least 0, got {ridge}")
        self.across, self.ridge = across, ridge
        inputs = window * (nodes if across else 1) + time_features + 1
        if inputs > 20_000:
            raise ValueError(
                f"least squares must have 20,000 inputs at most, got {inputs}, of {nodes} nodes and {window} steps: "
                f"set `across=False`"
            )
        self.register_buffer("weight", torch.zeros(inputs, horizon * (nodes if across else 1)))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        self.shape.check(self, x, time)
        weight: Tensor = self.weight  # type: ignore[assignment]
        change = self._inputs(x, time) @ weight.to(x.dtype)  # [B, K, P], or [B, K P] across
        return x[:, -1:] + change.view(len(x), x.shape[2], -1).transpose(1, 2)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[tuple[Tensor, ...], Tensor]]) -> None:
        """Set W by least squares; a row with a NaN in y counts for nothing.

        Args:
            batches: (inputs, y), inputs as `forward` takes them, (x,) or (x, time), and y what follows.

        Shapes:
            x [B, L, K], time [B, L, F], y [B, P, K]

        Raises:
            ValueError: If no row is left, or the squares of the values are infinite.
        """
        weight: Tensor = self.weight  # type: ignore[assignment]
        squares = weight.new_zeros(len(weight), len(weight), dtype=torch.float64)
        products, rows = weight.new_zeros(weight.shape, dtype=torch.float64), 0
        low = weight.new_full((len(weight),), float("inf"), dtype=torch.float64)
        high = -low
        for (x, *time), y in batches:
            a = self._inputs(x.double(), *(part.double() for part in time)).flatten(0, -2)
            change = (y.double() - x[:, -1:].double()).transpose(1, 2).reshape(len(a), -1)
            known = change.isfinite().all(1)
            a, change = a[known], change[known]
            if len(a) == 0:
                continue
            low, high = torch.minimum(low, a.amin(0)), torch.maximum(high, a.amax(0))
            squares += a.T @ a
            products += a.T @ change
            rows += len(a)
        if rows == 0:
            raise ValueError("no window has all its values ahead: fill the gaps (`series.gaps=interpolate`)")
        squares.diagonal().add_(self.ridge * rows)
        still = low == high
        still[-1] = False  # the 1
        changes = (~still).nonzero()[:, 0]
        squares, products = squares[changes][:, changes], products[changes]
        factor, failed = torch.linalg.cholesky_ex(squares)
        pivots = factor.diagonal()
        if not bool(squares.isfinite().all()):
            raise ValueError("least squares overflow: the series has a value that is far too large, remove it")
        if failed or bool(pivots.amin() <= 1e-7 * pivots.amax()):  # inputs that follow from each other
            found = torch.linalg.pinv(squares, hermitian=True, rtol=1e-12) @ products
        else:
            found = torch.cholesky_solve(products, factor)
        weight.zero_()
        weight[changes] = found.to(weight.dtype)

    def _inputs(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """a [B, K, …], or [B, …] across."""
        if self.across:
            parts = [x.flatten(1), *([] if time is None else [time[:, -1]]), x.new_ones(len(x), 1)]
        else:
            own = (x - x[:, -1:]).transpose(1, 2)
            parts = [own, *([] if time is None else [time[:, -1:].expand(-1, x.shape[2], -1)]), torch.ones_like(own[..., :1])]
        return torch.cat(parts, -1)
