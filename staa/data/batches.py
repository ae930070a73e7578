"""Batches of one part of a data set, which can start anywhere."""

import atexit
import random
import signal
import weakref
from collections.abc import Callable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from staa.data.draws import keys_of
from staa.data.early import Shrink
from staa.data.source import Samples
from staa.parallel import ALONE, Group, Part

Augment = Callable[[Tensor, np.ndarray], Tensor]
Mix = Callable[[Tensor, Tensor, torch.Generator, torch.Generator], tuple[Tensor, Tensor]]


class Batches:
    """Batches of samples, on a device. The order of epoch e depends on (seed, e) alone, the augmentation of sample i on
    (seed, e, i), and the mixing of batch k on (seed, e, k), so an epoch can be entered anywhere. Once an epoch has begun, no
    batch makes the host wait for a GPU.

    With worker processes: they begin with the first epoch and wait between epochs, until `close`, an error, or until the last
    reference to these batches is gone.

    The last batch of a training epoch is dropped if it is not full, so that BatchNorm always sees batch_size samples (unless
    there are fewer samples in all).

    Args:
        samples: The samples of one part of a data set.
        batch_size: Samples of a batch, at least 1.
        prepare: Turns a stored batch into the network's input.
        augment: (a stored batch, the samples' keys of `staa.data.draws`) -> a stored batch, as
            `staa.data.augment.make_augment` makes it; None: nothing.
        mix: (input, labels, CPU generators of the batch and of the epoch) -> (input, probabilities), as
            `staa.data.augment.make_mix` makes it; None: nothing.
        shrink: (input, number of the batch since the first epoch) -> a smaller input (`staa.data.early`); None: nothing.
        seed: Of the order and all random numbers; None: in order and without augmentation, for evaluation.
        device: Where the batches are.
        workers: None keeps samples in memory on the device and augments them there; else they are read and augmented on the CPU
            by so many processes, 0 being this one. The number changes nothing but the speed.
        group: The processes that share them: for training each takes its part of every batch, for evaluation they take whole
            batches in turn.
        pieces: Pieces that a batch is taken in, of each of which a process takes its part.

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
        group: Group = ALONE,
        pieces: int = 1,
    ):
        if len(samples) == 0 or batch_size < 1:
            raise ValueError(f"need samples and a batch size of at least 1, got {len(samples)} and {batch_size}")
        if isinstance(samples.x, Tensor) and workers is None:
            samples = Samples(samples.x.to(device), samples.y.to(device))
        self.samples, self.device, self.workers = samples, torch.device(device), workers
        self.batch_size = min(batch_size, len(samples))
        self.prepare, self.augment, self.mix, self.shrink, self.seed = prepare, augment, mix, shrink, seed
        self.group, self.part = group, None if seed is None else group.part(self.batch_size, pieces)
        places = None if self.part is None else self.part.places(with_before=mix is not None)
        self._kept = None if self.part is None or mix is None else self.part.kept().nonzero().flatten().to(device)
        self._stored = _Stored(samples, self.batch_size, augment, seed, places)
        self._loader: DataLoader[tuple[Any, Tensor]] | None = None
        self._asked: list[tuple[int, int]] = []  # of the workers, in this epoch
        self._turn = 0

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

        Raises:
            RuntimeError: If, with worker processes, it goes on after another epoch has begun.
        """
        asked = [(epoch, k) for k in turns_of(self.group, range(start, len(self)), self.part)]
        made = self._by_workers(asked) if self.workers else map(self._stored.__getitem__, asked)
        for (_, k), (x, y) in zip(asked, made, strict=True):
            if isinstance(x, Exception):
                self.close()
                raise x
            x, y = (_on(self.device, part) for part in (x, y))
            x = self.prepare(x)
            if self.mix is not None and self.seed is not None:
                x, y = self.mix(x, y, *(generator_of(self.seed, "cpu", "mix", epoch, *which) for which in ((k,), ())))
                if self._kept is not None:
                    x, y = x.index_select(-4, self._kept), y[self._kept]
            if self.shrink is not None and self.seed is not None:
                x = self.shrink(x, epoch * len(self) + k)
            yield x, y

    def _by_workers(self, asked: list[tuple[int, int]]) -> Iterator[tuple[Any, Tensor]]:
        """What the workers make of these. They finish what is left of an epoch that was given up, which is thrown away."""
        if self._loader is None:
            _at_work.add(self)
            self._loader = DataLoader(
                self._stored,
                batch_size=None,
                sampler=self._asked,
                num_workers=self.workers or 0,
                persistent_workers=True,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=_leave_signals_alone,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        self._asked[:] = asked
        self._turn += 1
        turn, made = self._turn, iter(self._loader)
        for _ in asked:
            if turn != self._turn:
                raise RuntimeError("another epoch of these batches has begun, or they were closed: take one epoch at a time")
            try:
                batch = next(made)
            except Exception:
                self.close()
                raise
            yield batch

    def close(self) -> None:
        """End the worker processes. A later epoch begins with new ones."""
        self._turn += 1
        iterator = None if self._loader is None else self._loader._iterator
        self._loader = None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # at once: the traceback of an error may hold it for long


_at_work: "weakref.WeakSet[Batches]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Before multiprocessing ends what is left, and DataLoader takes that for a failure."""
    for batches in list(_at_work):
        batches.close()


def _on(device: torch.device, x: Tensor) -> Tensor:
    """x on the device. From pinned memory alone is it sent without waiting for what the device still has to do."""
    x = x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x
    return x.to(device, non_blocking=True)


def generator_of(seed: int, device: torch.device | str, *what: object) -> torch.Generator:
    return torch.Generator(device).manual_seed(random.Random(f"{seed} {what}").getrandbits(63))


def order_of(count: int, seed: int | None, epoch: int) -> Tensor:
    """The order in which an epoch takes so many samples: at random, by the seed; without one as they are."""
    if seed is None:
        return torch.arange(count)
    return torch.randperm(count, generator=generator_of(seed, "cpu", "order", epoch))


def spread(count: int, among: Sized) -> Tensor:
    """Places of so many samples, or of all if there are fewer, spread evenly."""
    return torch.linspace(0, len(among) - 1, min(count, len(among))).long()


def turns_of(group: Group, numbers: range, part: Part | None) -> list[int]:
    """The batches that this process takes of these: all, of which it takes a part, or else each that its turn comes to."""
    return [k for k in numbers if part is not None or k % group.world == group.rank]


class _Stored(Dataset[tuple[Any, Tensor]]):
    """The stored batches by (epoch, number): all that a worker process needs, and nothing that it can't be sent.

    An error is returned, since a worker could only raise it wrapped in another.
    """

    def __init__(
        self, samples: Samples, batch_size: int, augment: Augment | None, seed: int | None, places: Tensor | None = None
    ):
        self.samples, self.batch_size, self.augment, self.seed, self.places = samples, batch_size, augment, seed, places
        self.size = batch_size if places is None else len(places)
        self.order: tuple[int, Tensor, np.ndarray | None] | None = None

    def order_of(self, epoch: int) -> tuple[Tensor, np.ndarray | None]:
        """The samples' order, and in training their keys in it; the last epoch's are kept."""
        if self.order is None or self.order[0] != epoch:
            order = order_of(len(self.samples), self.seed, epoch)
            if self.places is not None:  # of each batch, all of which are full
                whole = len(order) // self.batch_size * self.batch_size
                order = order[:whole].view(-1, self.batch_size)[:, self.places].flatten()
            keys = None if self.seed is None else keys_of(self.seed, epoch, order.numpy())
            self.order = epoch, order.to(self.samples.y.device), keys
        return self.order[1:]

    def __getitem__(self, which: tuple[int, int]) -> tuple[Any, Tensor]:
        epoch, k = which
        order, keys = self.order_of(epoch)
        part = slice(k * self.size, (k + 1) * self.size)
        chosen, keys = order[part], None if keys is None else keys[part]
        try:
            x = self.samples.take(chosen, keys)
            if self.augment is not None and keys is not None:
                x = self.augment(x, keys)
        except (ValueError, OSError) as error:
            return error, chosen
        return x, self.samples.y[chosen]


def _leave_signals_alone(_: int) -> None:
    """Ctrl-C and a termination reach worker processes too, but it is the main process that ends them."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
