"""Smaller inputs early in training: fewer time steps, smaller images. Both follow from the number of the step alone."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Shrink:
    """shrink(images [N, C, H, W], k) -> what the network is given at step k of training, from 0.

    In the first `few` steps that is a window of `steps` views of the images, [steps, N, C, H, W]; then they stay as they are,
    and the network repeats them itself. In the first `small` steps the images are resized to one of `sizes` after the other,
    each for an equal time; all of a batch at once, on their device, bilinear with antialiasing.

    Raises ValueError for an input with a time dimension of its own.
    """

    steps: int = 1
    few: int = 0
    sizes: tuple[int, ...] = ()
    small: int = 0

    def __call__(self, x: Tensor, k: int) -> Tensor:
        if x.ndim != 4:
            raise ValueError(
                f"only still images [N, C, H, W] can be smaller early in training, got {list(x.shape)}; remove `early.steps` "
                f"and `early.size`"
            )
        if k < self.small:
            side = self.sizes[k * len(self.sizes) // self.small]
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
        return x.expand(self.steps, *x.shape) if k < self.few else x

    def changes(self) -> list[int]:
        """The steps at which the network is given another shape than before, the first one among them."""
        count = len(self.sizes)
        return sorted({0, self.few, self.small, *(-(-i * self.small // count) for i in range(count))})


def make_shrink(
    *,
    total: int,
    full: int,
    steps: int | None = None,
    steps_share: float = 0.5,
    size: int | None = None,
    size_share: float = 0.5,
    size_stages: int = 2,
) -> Shrink | None:
    """What is smaller in training of `total` steps on images of `full` pixels a side; None if nothing is.

    A window of `steps` in the first round(steps_share · total) steps; size_stages sizes, from `size` on in even numbers of
    pixels and about evenly spaced, in the first round(size_share · total). Raises ValueError for a size that is not smaller.
    """
    if size is not None and size >= full:
        raise ValueError(f"`early.size` must be below the images' own {full} pixels, got {size}: lower or remove it")
    if steps is None and size is None:
        return None
    sizes = []
    if size is not None:
        sizes = [size, *(size + 2 * round((full - size) * i / size_stages / 2) for i in range(1, size_stages))]
    return Shrink(
        steps=1 if steps is None else steps,
        few=0 if steps is None else round(steps_share * total),
        sizes=tuple(sizes),
        small=0 if size is None else round(size_share * total),
    )
