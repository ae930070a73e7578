"""DTA-SNN's dual temporal-channel-wise attention (Kim et al., WACV 2025, arXiv 2503.10052), on the spikes of one neuron.

Two looks at the current X [T, N, C, H, W] of a neuron, `TXA` and `TNA`, are multiplied into a gate for its spikes S:

    out = σ(Y_na ⊙ Y_xa) ⊙ S          graded spikes in (0, 1), zero where S is
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention.gates import check_fixed, check_shape
from staa.layers import Window
from staa.ops.checks import check_counts, check_input, check_tensor
from staa.ops.notes import note


class TXA(nn.Module):
    """T-XA, the same attention over time and over channels, crossed.

        m = mean of x over H, W                                        [T, N, C]
        a_t = σ(conv(T → T, 3)(m))        steps are the convolution's channels, it slides along C
        a_c = σ(conv(C → C, 6)(m))        channels are the convolution's channels, it slides along T
        y = (x + g_t a_t) ⊙ (x + g_c a_c)

    Without bias. Padded to the same length, for the kernel of 6 by two before and three behind. g_t and g_c are learned, 1 at
    first. It sees the whole window, so it is not causal.

    Args:
        steps: T.
        channels: C.

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype, T or C, or an argument is no whole number of at least 1.

    Source:
        DTA-SNN, Kim et al., WACV 2025, arXiv 2503.10052.
    """

    def __init__(self, steps: int, channels: int):
        super().__init__()
        check_fixed(self, steps, channels=channels)
        self.over_channels = nn.Conv1d(steps, steps, 3, padding="same", bias=False)
        self.over_time = nn.Conv1d(channels, channels, 6, bias=False)
        self.time_gain = nn.Parameter(torch.ones(()))
        self.channel_gain = nn.Parameter(torch.ones(()))
        self.channels, self.window = channels, Window(steps, "TXA")
        self.causal = self.per_step = steps == 1

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        check_shape(self, x, self.channels)
        self.window(x)
        mean = x.mean((3, 4))
        of_time = self.over_channels(mean.transpose(0, 1)).sigmoid().transpose(0, 1)
        of_channels = self.over_time(F.pad(mean.permute(1, 2, 0), (2, 3))).sigmoid().permute(2, 0, 1)
        note(self, time_gate=of_time, channel_gate=of_channels)
        return (x + self.time_gain * of_time[..., None, None]) * (x + self.channel_gain * of_channels[..., None, None])


class TNA(nn.Module):
    """T-NA, a local and a global attention on the merged axis of steps and channels.

        Z = x as [N, D, H, W], D = T·C, index t·C + c
        E = GELU(conv1×1(Z))
        L = conv1×1(dilated depthwise k₂(depthwise k₁(E)))       k₁ = 2δ − 1, k₂ = ⌊K/δ⌋ + (⌊K/δ⌋ mod 2) − 1
        G = W₂ ReLU(W₁ mean of E over H, W)                      no bias, no sigmoid; D // max(D // 16, 4) hidden units
        y = conv1×1(G ⊙ L ⊙ E) + Z

    Initialised as PyTorch does. It sees the whole window, so it is not causal.

    Args:
        steps: T.
        channels: C.
        kernel: K. 7 as in the official code, with which k₂ = 1; 21 gives k₂ = 7.
        dilation: δ, at most K.
        ltca: False leaves L out (an ablation).
        gtca: False leaves G out (an ablation).

    Shapes:
        x [T, N, C, H, W] -> y of the same shape

    Raises:
        ValueError: If x has another rank, dtype, T or C, a size is no whole number of at least 1, the dilation exceeds the
            kernel, or T·C is below 4 with G.

    Source:
        DTA-SNN, Kim et al., WACV 2025, arXiv 2503.10052, and its code.
    """

    def __init__(self, steps: int, channels: int, *, kernel: int = 7, dilation: int = 3, ltca: bool = True, gtca: bool = True):
        super().__init__()
        check_fixed(self, steps, channels=channels)
        check_counts(kernel=kernel, dilation=dilation)
        if dilation > kernel:
            raise ValueError(f"dilation must be from 1 to the kernel's {kernel}, got {dilation}")
        merged = steps * channels
        near, far = 2 * dilation - 1, kernel // dilation + kernel // dilation % 2 - 1
        self.embed = nn.Conv2d(merged, merged, 1)
        self.ltca = self.gtca = None
        if ltca:
            self.ltca = nn.Sequential(
                nn.Conv2d(merged, merged, near, padding="same", groups=merged),
                nn.Conv2d(merged, merged, far, padding="same", groups=merged, dilation=dilation),
                nn.Conv2d(merged, merged, 1),
            )
        if gtca:
            hidden = merged // max(merged // 16, 4)
            if hidden < 1:
                raise ValueError(f"steps · channels must be at least 4 for global attention, got {steps} · {channels}")
            self.gtca = nn.Sequential(nn.Linear(merged, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, merged, bias=False))
        self.project = nn.Conv2d(merged, merged, 1)
        self.channels, self.window = channels, Window(steps, "TNA")
        self.causal = self.per_step = steps == 1

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self)
        check_shape(self, x, self.channels)
        self.window(x)
        merged = x.transpose(0, 1).flatten(1, 2)
        embedded = F.gelu(self.embed(merged))
        attended = embedded
        if self.ltca is not None:
            local = self.ltca(embedded)
            note(self, local_gate=self._by_step(local, x))
            attended = local * attended
        if self.gtca is not None:
            of_all = self.gtca(embedded.mean((2, 3)))
            note(self, global_gate=self._by_step(of_all, x))
            attended = of_all[..., None, None] * attended
        return self._by_step(self.project(attended) + merged, x)

    def _by_step(self, merged: Tensor, x: Tensor) -> Tensor:
        """[N, T·C, ...] as [T, N, C, ...]."""
        return merged.unflatten(1, (x.shape[0], x.shape[2])).transpose(0, 1)


class DTA(nn.Module):
    """Dual temporal-channel-wise attention on the spikes of one neuron, the stem's:

        out = σ(T-NA(current) ⊙ T-XA(current)) ⊙ spikes

    Graded spikes come out, in (0, 1), and zero where there is none. It sees the whole window, so it is not causal, and its
    parameters depend on T.

    Args:
        steps: T.
        channels: C.
        kernel: Of `staa.attention.TNA`.
        dilation: Of `staa.attention.TNA`.
        crossed: Makes T-XA, crossed(steps, channels); None leaves it out (an ablation).
        merged: Makes T-NA, merged(steps, channels); None leaves it out (an ablation), but not both.

    Shapes:
        current, spikes [T, N, C, H, W] -> out of the same shape

    Raises:
        ValueError: If an argument is no whole number of at least 1, the kernel is smaller than the dilation, or both parts are
            None.

    Source:
        DTA-SNN, Kim et al., WACV 2025, arXiv 2503.10052, and its code.
    """

    acts_on = "spikes"
    default_sites = "stem"

    def __init__(
        self,
        steps: int,
        channels: int,
        *,
        kernel: int = 7,
        dilation: int = 3,
        crossed: Callable[[int, int], nn.Module] | None = TXA,
        merged: Callable[[int, int], nn.Module] | None = TNA,
    ):
        super().__init__()
        if crossed is None and merged is None:
            raise ValueError("crossed and merged must not both be None: for no attention, give the network attention=None")
        check_fixed(self, steps, channels=channels)
        self.steps, self.channels = steps, channels
        self.causal = self.per_step = steps == 1
        self.crossed: Any = None if crossed is None else crossed(steps, channels)
        self.merged: Any = None
        if merged is TNA:
            self.merged = TNA(steps, channels, kernel=kernel, dilation=dilation)
        elif merged is not None:
            self.merged = merged(steps, channels)

    def forward(self, current: Tensor, spikes: Tensor) -> Tensor:
        """The spikes, graded by a gate of the current that made them.

        Args:
            current: What the neuron was charged with.
            spikes: What it fired.

        Shapes:
            current, spikes [T, N, C, H, W] -> graded spikes of the same shape

        Raises:
            ValueError: If current or spikes has another rank, dtype, T or C.
            TypeError: If one of them is no tensor.
        """
        check_tensor(current, "the current")
        check_tensor(spikes, "spikes")
        if spikes.shape != current.shape:
            raise ValueError(f"spikes must have the current's shape {list(current.shape)}, got {list(spikes.shape)}")
        parts = [part(current) for part in (self.merged, self.crossed) if part is not None]
        gate = (parts[0] if len(parts) == 1 else parts[0] * parts[1]).sigmoid()
        note(self, gate=gate)
        return gate * spikes

    def extra_repr(self) -> str:
        return f"steps={self.steps}, channels={self.channels}"
