"""BatchNorm whose statistics in training are those of all processes that train together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from staa.ops.joint import moments
from staa.parallel import ALONE, Group


class SyncNorm(_BatchNorm):
    """BatchNorm of [N, C, ...] over all dimensions but C and over all processes of `group`, which may have different N.

    Its running statistics are those of one process with the whole batch. In evaluation it is torch's own. A network's become
    such by `sync`, in place: weights, names and hooks stay.
    """

    group: Group = ALONE

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"BatchNorm takes [N, C, ...], got shape {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(input, *statistics, self.weight, self.bias, self.running_mean is None, 0.0, self.eps)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance, count = moments(wide, [dim for dim in range(input.ndim) if dim != 1], self.group)
        self.update(mean.detach(), variance.detach(), count)
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shape = [1, -1, *[1] * (input.ndim - 2)]
        y = (wide - mean.view(shape)) * scale.view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(input.dtype)

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Take a batch's mean and biased variance, of so many values, into the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), share)


def sync(model: nn.Module, group: Group) -> None:
    """Make each BatchNorm of a network a `SyncNorm`; alone, look only whether that could be done.

    Raises ValueError if there is none, or one that is not exactly torch's own, and then changes nothing.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    if not norms:
        raise ValueError("this network has no BatchNorm, and takes no `sync_norm`: leave it out")
    for name, norm in norms.items():
        if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            raise ValueError(
                f"{name} is a {type(norm).__name__}, whose statistics `sync_norm` can't take over all processes: leave it out"
            )
    for norm in norms.values() if not group.alone else ():
        norm.__class__ = SyncNorm
        norm.group = group  # type: ignore[assignment]
