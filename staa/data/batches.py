"""Batches of one part of a data set, which can start anywhere."""

import random
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from staa.data.early import Shrink
from staa.data.source import Samples

Augment = Callable[[Tensor, torch.Generator], Tensor]
Mix = Callable[[Tensor, Tensor, torch.Generator, torch.Generator], tuple[Tensor, Tensor]]


class Batches:
    """Batches of samples, on a device. Order and augmentation of batch k of epoch e depend on (seed, e, k) alone, so an epoch
    can be entered anywhere. Once an epoch has begun, no batch makes the host wait for a GPU.

    The last batch of a training epoch is dropped if it is not full, so that BatchNorm always sees batch_size samples (unless
    there are fewer samples in all).

    Args:
        samples: The samples of one part of a data set.
        batch_size: Samples of a batch, at least 1.
        prepare: Turns a stored batch into the network's input.
        augment: (a stored batch, generator) -> a stored batch, as `staa.data.augment.make_augment` makes it; None: nothing.
        mix: (input, labels, CPU generators of the batch and of the epoch) -> (input, probabilities), as
            `staa.data.augment.make_mix` makes it; None: nothing.
        shrink: (input, number of the batch since the first epoch) -> a smaller input (`staa.data.early`); None: nothing.
        seed: Of the order and all random numbers; None: in order and without augmentation, for evaluation.
        device: Where the batches are.
        workers: None keeps samples in memory on the device and augments them there; else they are read and augmented on the CPU
            by so many processes, 0 being this one. The number changes nothing but the speed.

    Raises:
        ValueError: If there are no samples, or batch_size is below 1; later, if a sample can't be read.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        *,
        prepare: Callable[[Tensor], Tensor],
        augment: Augment | None = None,
        mix: Mix | None = None,
        shrink: Shrink | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        workers: int | None = None,
    ):
        if len(samples) == 0 or batch_size < 1:
            raise ValueError(f"need samples and a batch size of at least 1, got {len(samples)} and {batch_size}")
        if isinstance(samples.x, Tensor) and workers is None:
            samples = Samples(samples.x.to(device), samples.y.to(device))
        self.samples, self.device, self.workers = samples, torch.device(device), workers
        self.batch_size = min(batch_size, len(samples))
        self.prepare, self.augment, self.mix, self.shrink, self.seed = prepare, augment, mix, shrink, seed

    def __len__(self) -> int:
        count = len(self.samples)
        return count // self.batch_size if self.seed is not None else -(-count // self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches start, start + 1, … of an epoch, as (input, labels), or (input, probabilities) if they are mixed.

        Args:
            epoch: Number of the epoch, from 0.
            start: Number of the first batch, from 0.

        Shapes:
            input [N, C, H, W] or [T, N, C, H, W], labels [N], probabilities [N, classes]
        """
        plan = _Plan(self, epoch)
        made: Iterable[tuple[Any, Tensor]] = (plan[k] for k in range(start, len(self)))
        if self.workers:
            made = DataLoader(
                plan,
                batch_size=None,
                sampler=range(start, len(self)),
                num_workers=self.workers,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=_leave_signals_alone,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        for k, (x, y) in enumerate(made, start):
            if isinstance(x, Exception):
                raise x
            x, y = (_on(self.device, part) for part in (x, y))
            x = self.prepare(x)
            if self.mix is not None and self.seed is not None:
                x, y = self.mix(x, y, *(generator_of(self.seed, "cpu", "mix", epoch, *which) for which in ((k,), ())))
            if self.shrink is not None and self.seed is not None:
                x = self.shrink(x, epoch * len(self) + k)
            yield x, y


def _on(device: torch.device, x: Tensor) -> Tensor:
    """x on the device. From pinned memory alone is it sent without waiting for what the device still has to do."""
    x = x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x
    return x.to(device, non_blocking=True)


def generator_of(seed: int, device: torch.device | str, *what: object) -> torch.Generator:
    return torch.Generator(device).manual_seed(random.Random(f"{seed} {what}").getrandbits(63))


class _Plan(Dataset[tuple[Any, Tensor]]):
    """The stored batches of one epoch, by number: all that a worker process needs, and nothing that it can't be sent.

    An error is returned, since a worker could only raise it wrapped in another.
    """

    def __init__(self, batches: Batches, epoch: int):
        self.samples, self.batch_size, self.count = batches.samples, batches.batch_size, len(batches)
        self.augment, self.seed, self.epoch = batches.augment, batches.seed, epoch
        self.order = torch.arange(len(batches.samples))
        if batches.seed is not None:
            self.order = torch.randperm(len(self.order), generator=generator_of(batches.seed, "cpu", "order", epoch))
        self.order = self.order.to(self.samples.y.device)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> tuple[Any, Tensor]:
        chosen = self.order[k * self.batch_size : (k + 1) * self.batch_size]
        generator = None
        if self.seed is not None:
            device = self.samples.x.device if isinstance(self.samples.x, Tensor) else "cpu"
            generator = generator_of(self.seed, device, "augment", self.epoch, k)
        try:
            x = self.samples.take(chosen, generator)
            if self.augment is not None and generator is not None:
                x = self.augment(x, generator)
        except (ValueError, OSError) as error:
            return error, chosen
        return x, self.samples.y[chosen]


def _leave_signals_alone(_: int) -> None:
    """Ctrl-C reaches worker processes too, but it is the main process that ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
