"""What every data set becomes: a `Source` of three parts, and `Batches` of one part that can start anywhere."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Samples:
    """Inputs [N, ...] as stored (uint8) and labels [N] int64."""

    x: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} inputs but {len(self.y)} labels")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Source:
    """A data set, split: test is touched once, at the end of a run.

    classes, channels, size: of the labels and the input's C and H = W. prepare: a stored batch -> the network's input.
    augment: (a stored batch, generator) -> the same, or None. split: a digest of which sample is in which part.
    """

    train: Samples
    validation: Samples | None
    test: Samples
    classes: int
    channels: int
    size: int
    prepare: Callable[[Tensor], Tensor]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None
    split: str


class Batches:
    """Batches of samples held in memory on a device. Order and augmentation of batch k of epoch e depend on (seed, e, k)
    alone, so an epoch can be entered anywhere. seed=None: in order, without augmentation, for evaluation.

    The last batch of a training epoch is dropped when it is not full, so that BatchNorm always sees batch_size samples
    (unless there are fewer samples in all).
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        prepare: Callable[[Tensor], Tensor],
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ):
        if len(samples) == 0 or batch_size < 1:
            raise ValueError(f"need samples and a batch size of at least 1, got {len(samples)} and {batch_size}")
        self.x, self.y = samples.x.to(device), samples.y.to(device)
        self.batch_size = min(batch_size, len(samples))
        self.prepare, self.augment, self.seed = prepare, augment, seed

    def __len__(self) -> int:
        return len(self.y) // self.batch_size if self.seed is not None else -(-len(self.y) // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches start, start + 1, … of an epoch, as (input, labels)."""
        if self.seed is None:
            order = torch.arange(len(self.y))
        else:
            order = torch.randperm(len(self.y), generator=self._generator("cpu", "order", epoch))
        for k in range(start, len(self)):
            chosen = order[k * self.batch_size : (k + 1) * self.batch_size].to(self.y.device)
            x = self.x[chosen]
            if self.augment is not None and self.seed is not None:
                x = self.augment(x, self._generator(x.device, "augment", epoch, k))
            yield self.prepare(x), self.y[chosen]

    def _generator(self, device: torch.device | str, *what: object) -> torch.Generator:
        return torch.Generator(device).manual_seed(random.Random(f"{self.seed} {what}").getrandbits(63))


def random_crop(x: Tensor, generator: torch.Generator, *, padding: int, flip: bool = False) -> Tensor:
    """Pad each image of [N, C, H, W] with zeros, cut out a random H × W window; flip=True mirrors every other at random.

    One draw per image, all images at once, on the tensor's device.
    """
    n, _, height, width = x.shape

    def draw(high: int) -> Tensor:
        return torch.randint(high, (n, 1), generator=generator, device=x.device)

    rows = torch.arange(height, device=x.device) + draw(2 * padding + 1)
    columns = torch.arange(width, device=x.device) + draw(2 * padding + 1)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    image = torch.arange(n, device=x.device)[:, None, None]
    return F.pad(x, [padding] * 4)[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def split_by_hash(labels: Tensor, count: int, salt: str, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose `count` samples, stratified, by a hash of their index: (chosen, others), both sorted indices.

    Each class gives its share (largest remainders first) of the samples with the smallest sha256("salt/index"). The choice
    depends on the salt, the labels and the count alone: no random state, the same on every machine.
    """
    among = torch.arange(len(labels)) if among is None else among
    if not 0 <= count <= len(among):
        raise ValueError(f"can't choose {count} of {len(among)} samples")
    rank = {int(i): hashlib.sha256(f"{salt}/{int(i)}".encode()).digest() for i in among}
    classes = sorted(set(labels[among].tolist()))
    members = {c: sorted(among[labels[among] == c].tolist(), key=rank.__getitem__) for c in classes}
    share = {c: count * len(m) / len(among) for c, m in members.items()}
    take = {c: int(share[c]) for c in classes}
    for c in sorted(classes, key=lambda c: take[c] - share[c])[: count - sum(take.values())]:
        take[c] += 1
    chosen = sorted(i for c in classes for i in members[c][: take[c]])
    others = sorted(i for c in classes for i in members[c][take[c] :])
    return torch.tensor(chosen, dtype=torch.long), torch.tensor(others, dtype=torch.long)


def split_digest(**parts: Tensor) -> str:
    """sha256 of which indices are in which part: two runs with the same digest saw the same split."""
    digest = hashlib.sha256()
    for name, indices in parts.items():
        digest.update(f"{name} {len(indices)} ".encode() + indices.to(torch.int64).numpy().tobytes())
    return digest.hexdigest()
