"""Several processes that train one network: which of them this one is, its part of a batch, and what they agree on.

A process is alone unless RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say otherwise, as torchrun sets them. Alone, nothing
here costs anything, and no process group is made.
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(hours=1)  # for which a process waits for what another sends; one that died is noticed at once
MEETING = timedelta(minutes=10)  # for which it waits for the others to come
LOOK = 0.2  # seconds between two looks at whether the first process has prepared the data
BEGAN, PREPARED, TOLD = "staa/began", "staa/prepared", "staa/told"


class Elsewhere(RuntimeError):  # noqa: N818
    """Another process of the run has failed, and says why."""


@dataclass(frozen=True)
class Group:
    """The processes that train a network together; by default this one alone.

    All of them call its methods, in the same order. The first one, of rank 0, writes and prints.
    """

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum of all processes' x, the same bits in each; without a gradient."""
        if self.alone:
            return x
        import torch.distributed as dist

        x = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    def each(self, x: Tensor) -> Tensor:
        """All processes' x, one after the other."""
        import torch.distributed as dist

        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    def anywhere(self, *flags: bool) -> list[bool]:
        """Of each flag, whether it is set in any process. They travel between processors, so that no GPU is waited for."""
        return list(flags) if self.alone else self.total(torch.tensor(flags, dtype=torch.int32)).bool().tolist()

    def as_first(self, f: Callable[[], T]) -> T:
        """What f gives in the first process, which alone calls it. Raises what f raises there, in the others `Elsewhere`."""
        if self.alone:
            return f()
        import torch.distributed as dist

        said: list[Any] = [None]
        if not self.first:
            dist.broadcast_object_list(said, device=torch.device("cpu"))
            if said[0] is None:
                raise Elsewhere("the first process of this run has failed")
            return said[0][0]
        try:
            said = [(f(),)]
        finally:
            dist.broadcast_object_list(said, device=torch.device("cpu"))
        return said[0][0]

    def after_first(self, f: Callable[[], T]) -> T:
        """What f gives, in the first process and only then in the others: what it keeps on disk is made once."""
        if self.alone:
            return f()
        store = _store()
        while not self.first and not store.check([PREPARED]):
            time.sleep(LOOK)  # not in a call of torch's, which lets no signal through
        found = f()
        if self.first:
            store.set(PREPARED, "1")
        return found

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by the first process's."""
        if self.alone:
            return
        import torch.distributed as dist

        for x in tensors:
            dist.broadcast(x, 0)

    def part(self, whole: int, pieces: int = 1) -> "Part | None":
        """This process's part of a batch of so many samples that is taken in pieces; None for all of it. Raises ValueError if
        some process would have none."""
        return None if self.alone else Part(self, whole, pieces)


ALONE = Group()


@dataclass(frozen=True)
class Part:
    """What a process takes of each batch: of each of its pieces, neighbours in the batch.

    Args:
        group: The processes.
        whole: Samples of a batch.
        pieces: Pieces that it is taken in, one after the other.
    """

    group: Group
    whole: int
    pieces: int = 1

    def __post_init__(self) -> None:
        if min(len(piece) for piece in self._pieces) < self.group.world:
            what = f"`batch_size` {self.whole}" + (f" in {self.pieces} pieces" if self.pieces > 1 else "")
            raise ValueError(
                f"{what} gives some of {self.group.world} processes no sample: make it at least "
                f"{self.group.world * self.pieces}, or take fewer processes"
            )

    @cached_property
    def _pieces(self) -> Sequence[Tensor]:
        return torch.arange(self.whole).chunk(self.pieces)

    @cached_property
    def by_piece(self) -> list[Tensor]:
        """Places in a batch, from 0."""
        return [piece.tensor_split(self.group.world)[self.group.rank] for piece in self._pieces]

    @property
    def sizes(self) -> list[int]:
        """Of each piece: how many samples this process takes."""
        return [len(piece) for piece in self.by_piece]

    @property
    def shares(self) -> list[float]:
        """Of each piece: which share of its samples that is."""
        return [len(mine) / len(piece) for mine, piece in zip(self.by_piece, self._pieces, strict=True)]

    def places(self, *, with_before: bool = False) -> Tensor:
        """Places of its samples in a batch; with_before: each neighbourhood with the one before it in the batch, which it is
        mixed with, the last before the first."""
        before = [torch.cat([(piece[:1] - 1) % self.whole, piece]) for piece in self.by_piece]
        return torch.cat(before if with_before else self.by_piece)

    def kept(self) -> Tensor:
        """Which of the places with those before are its own."""
        return torch.cat([torch.arange(len(piece) + 1) > 0 for piece in self.by_piece])


@cache
def joined() -> Group:
    """The processes of this run, met and connected at the first call. Raises ValueError for an environment that makes no sense,
    RuntimeError if the others don't come."""
    try:
        world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    except ValueError as error:
        raise ValueError(
            f"WORLD_SIZE and RANK in the environment must be whole numbers ({error}); torchrun sets them"
        ) from error
    if world == 1:
        return ALONE
    import torch.distributed as dist

    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    if gpus:
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo", store=_store(), rank=rank, world_size=world, timeout=PATIENCE
    )
    return Group(rank, world)


def leave() -> None:
    """Part from the others, once all have come to the end."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def several() -> bool:
    """Whether this process is said to be one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def local_rank() -> int:
    """Which of the processes on this machine it is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """How many processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def own_device(device: str | None) -> str | None:
    """The device of this process, one of several. Raises ValueError if there are not as many GPUs as processes here."""
    if device not in (None, "cuda", "cpu"):
        raise ValueError(f"several processes take a GPU each, or the CPU: `device` must be cuda or cpu, got {device!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device is None and count == 0):
        return "cpu"
    if local_world() > count:
        raise ValueError(
            f"{local_world()} processes need as many GPUs, and this machine has {count}: start fewer, or take `device=cpu`"
        )
    return f"cuda:{local_rank()}"


def tells_first() -> bool:
    """Whether no other process has told an error yet, so that this one is to tell its own."""
    try:
        return _store().add(TOLD, 1) == 1
    except Exception:  # the store is gone, and with it whoever could have told
        return True


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    import torch.distributed as dist

    lost = getattr(dist, "DistError", ())
    return isinstance(error, lost) or (type(error) is RuntimeError and ("gloo" in str(error) or "NCCL" in str(error)))


def began() -> str | None:
    """What `begin` was told by an earlier process that torchrun has restarted as this one."""
    store = _launcher()
    return store.get(BEGAN).decode() if store is not None and store.check([BEGAN]) else None


def begin(what: str) -> None:
    """Have the launcher remember what has begun, for processes that it starts in the place of these."""
    store = _launcher()
    if store is not None:
        store.set(BEGAN, what)


@cache
def _launcher() -> Any:
    """What torchrun keeps as long as it runs; None without it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    import torch.distributed as dist

    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=MEETING
    )


@cache
def _store() -> Any:
    """Where the processes meet; those that torchrun restarts meet anew."""
    import torch.distributed as dist

    try:
        store = _launcher() or next(iter(dist.rendezvous("env://", timeout=MEETING)))[0]  # type: ignore[attr-defined]
    except (ValueError, KeyError) as error:
        raise ValueError(f"WORLD_SIZE is set, but the processes can't meet ({error}): start them with torchrun") from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"staa/{attempt}", store)  # type: ignore[attr-defined]
