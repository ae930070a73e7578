"""Checkpoints and weights that survive a crash; the checkpoint before the last is kept."""

import io
import json
import math
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from staa.attention import PositionEncoding
from staa.files import FORMAT, check_bytes, check_format, max_bytes, open_regular, read_bytes, write

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.safetensors"
NUMBER = "staa.format"  # where weights have the number of their format
MOMENTS: dict[type[Optimizer], set[str]] = {AdamW: {"step", "exp_avg", "exp_avg_sq"}, SGD: {"momentum_buffer"}}
"""What an optimizer keeps for a parameter that it has moved."""
ITEM = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
    "ComplexDouble": 16, "ComplexFloat": 8,
}  # fmt: skip
"""Bytes of one number in each kind of storage that a checkpoint may have."""
TENSORS = re.compile(rf"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch ({'|'.join(ITEM)})Storage")
"""What a checkpoint's pickle may name: with these alone nothing is called that could allocate by itself."""
PICKLE = "data.pkl"
PARTS = re.compile(
    r"data\.pkl|byteorder|version|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+", re.ASCII
)
"""What torch.save puts into an archive."""
ATOMS = {
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "GLOBAL", "EMPTY_DICT",
    "EMPTY_LIST", "EMPTY_TUPLE",
}  # fmt: skip
TAKES: dict[str, int | None] = {
    "APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1, "TUPLE": None, "TUPLE1": 1, "TUPLE2": 2,
    "TUPLE3": 3, "REDUCE": 2, "BINPERSID": 1,
}  # fmt: skip
"""Opcodes of a checkpoint's pickle: those that add a value, and how many values the others take (None: down to the mark)."""
DEEPEST = 4  # a tensor's arguments hold its storage's tuple and its sizes
PER_OPCODE = 64  # bytes of memory that one byte of a pickle can ask for: an empty dict's


def save_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write state to folder/last.pt; what was there becomes previous.pt. At any moment last.pt is a whole checkpoint.

    Raises RuntimeError, with the old checkpoint untouched, where the disk is full or not writable.
    """
    return write(folder / LAST, checkpoint_bytes(state), keep=folder / PREVIOUS)


def checkpoint_bytes(state: dict[str, Any]) -> memoryview:
    """A checkpoint's file: a full disk then meets a plain write, not a serializer half-way."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    return buffer.getbuffer()


def save_weights(path: Path, model: nn.Module) -> Path:
    """Write a model's state dict as safetensors, atomically; what is no tensor in it, as plain values. Weights that modules
    share are written for each. Raises RuntimeError as `save_checkpoint` does."""
    tensors, plain = {}, {}
    for key, value in model.state_dict().items():
        if isinstance(value, Tensor):
            tensors[key] = (
                value.detach().cpu().clone(memory_format=torch.contiguous_format)
            )  # safetensors refuses shared memory
        else:
            plain[key] = json.dumps(value)
    return write(path, to_safetensors(tensors, plain | {NUMBER: str(FORMAT)}))


def check_savable(model: nn.Module) -> None:
    """Raises ValueError for a state that a checkpoint can't hold: more than tensors and, from get_extra_state, plain values."""
    for key, value in model.state_dict().items():
        try:
            if not isinstance(value, Tensor) and json.loads(json.dumps(value)) != value:
                raise TypeError("it does not come back the same")
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{key} can't be saved ({error}): get_extra_state must give a tensor, or plain values as JSON has them"
            ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, no code), or the last one of a run folder, onto the CPU.

    Raises FileNotFoundError if there is none, ValueError if it is truncated or corrupt (every byte is checked), holds anything
    else, or would take more memory than `staa.files.max_bytes`.
    """
    path = path / LAST if path.is_dir() else path
    before = path.with_name(PREVIOUS)
    advice = f"; the checkpoint before it is there: resume {before}" if before != path and before.is_file() else ""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}{advice or ': give a run folder, or a checkpoint in one'}")
    data = read_bytes(path)
    pickled = 0
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = max(m.file_size for m in archive.infolist() if m.filename.endswith(PICKLE))
    check_bytes(PER_OPCODE * pickled, f"what {path} says of its tensors")
    try:
        sound = _repacked(data)
        del data
        state = _plain(torch.load(sound, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:  # whole, but it would run code
        raise ValueError(f"{path} is no checkpoint of staa: it holds more than tensors and plain values") from error
    except Exception as error:  # zipfile and torch raise whatever they stumble over
        raise ValueError(f"{path} is truncated or corrupt ({_brief(error)}){advice}") from error
    if type(state) is dict:
        check_format(state.pop("format", 0), path)
    if type(state) is not dict or "model" not in state or "step" not in state:
        raise ValueError(f"{path} is no checkpoint of staa: it has no model and step")
    _check_values(state, path)
    return state


def _repacked(data: bytes) -> io.BytesIO:
    """A checkpoint's members, checked and written anew. torch reads these bytes, so it can't find others than were checked.

    Raises BadZipFile for what `torch.save` does not write, UnpicklingError as `_check_pickle` does.
    """
    sound = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(sound, "w") as copy:
        members = archive.infolist()
        if not data.startswith(b"PK\x03\x04") or min((m.header_offset for m in members), default=0) != 0:
            raise zipfile.BadZipFile("something lies before its first part")
        if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > len(data):
            raise zipfile.BadZipFile("it is packed, which no checkpoint is")
        parts = {m.filename.partition("/")[2]: m for m in members}
        if len(parts) < len(members):
            raise zipfile.BadZipFile("two parts have one name")
        if odd := [name for name in parts if not PARTS.fullmatch(name)]:
            raise zipfile.BadZipFile(f"it has a part {odd[0]!r}")
        _check_pickle(archive.read(parts[PICKLE]), {name: m.file_size for name, m in parts.items()})
        for name, member in parts.items():
            copy.writestr(f"archive/{name}", archive.read(member))  # which compares the checksum
    sound.seek(0)
    return sound


def _check_pickle(data: bytes, sizes: Mapping[str, int]) -> Any:
    """Follow a checkpoint's pickle and return its plain values, with None for tensors and lists. Nothing in it is called.

    sizes: bytes of the archive's members, by name.

    Raises UnpicklingError for an opcode or a name that no checkpoint has, and for tuples that nest deeper than one's do: to
    hash a tuple nested deep enough overflows the stack. Raises BadZipFile for a tensor that claims more or fewer bytes than
    its member has: some versions of torch read past the end.
    """
    stack: list[tuple[Any, int]] = []  # values, as far as they are atoms and tuples, each with how deep its tuples nest
    below: list[list[tuple[Any, int]]] = []
    memo: dict[Any, tuple[Any, int]] = {}
    for op, arg, _ in pickletools.genops(data):
        name = op.name
        if name == "GLOBAL" and not TENSORS.fullmatch(str(arg)):
            raise pickle.UnpicklingError(f"it names {arg}")
        if name in ATOMS:
            stack.append(({} if name == "EMPTY_DICT" else arg, 0))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[arg] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[arg])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name in TAKES:
            taken = stack if TAKES[name] is None else [stack.pop() for _ in range(TAKES[name] or 0)][::-1]
            stack = below.pop() if TAKES[name] is None else stack
            if name.startswith("TUPLE"):
                depth = 1 + max((depth for _, depth in taken), default=0)
                if depth > DEEPEST:
                    raise pickle.UnpicklingError("it nests tuples too deep")
                stack.append((tuple(value for value, _ in taken), depth))
            elif name == "BINPERSID":
                ((_, kind, key, _, numel), _) = taken[0]
                if sizes.get(f"data/{key}") != numel * ITEM[kind.removeprefix("torch ").removesuffix("Storage")]:
                    raise zipfile.BadZipFile(f"a tensor's bytes, data/{key}, are not as many as it says")
                stack.append((None, 0))
            elif name == "REDUCE":
                stack.append((None, 0))
            elif name.startswith("SETITEM"):
                keys, values = taken[::2], taken[1::2]
                if any(type(key) not in (str, int) for key, _ in keys):
                    raise pickle.UnpicklingError("a key is neither text nor a whole number")
                if isinstance(stack[-1][0], dict):
                    stack[-1][0].update((key, value) for (key, _), (value, _) in zip(keys, values, strict=True))
        elif name not in ("PROTO", "STOP"):
            raise pickle.UnpicklingError(f"it has the opcode {name}")
    return stack[-1][0]


def _plain(state: Any) -> Any:
    """A state whose ordered dicts are plain ones, without the attributes that a pickle can give them (even `items`).

    Raises UnpicklingError for keys that are neither text nor a whole number.
    """
    holder = [state]
    made: dict[int, tuple[Any, dict[Any, Any]]] = {}  # the old ones too, so that no id is taken twice
    for value in _walk(holder):
        if isinstance(value, dict) and any(type(key) not in (str, int) for key in value):
            raise pickle.UnpicklingError("a key is neither text nor a whole number")
        if not isinstance(value, dict | list | tuple):
            continue
        for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if isinstance(inner, OrderedDict):
                if isinstance(value, tuple):
                    raise pickle.UnpicklingError("a tuple holds a dict")
                value[key] = made.setdefault(id(inner), (inner, dict.copy(inner)))[1]
    return holder[0]


def _walk(state: Any) -> Iterator[Any]:
    """A state and all that it holds, each once, outer before inner: what is yielded may be given other content on the spot.

    Not recursive, since a file can nest as deep as it likes.
    """
    waiting: list[Any] = [state]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value


def read_origin(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """A run's last checkpoint, or the one before if that is lost, and its plain values alone: its tensors are not read. None
    if there is no checkpoint. Raises ValueError for a broken one, or one of a newer version."""
    path = next((folder / name for name in (LAST, PREVIOUS) if (folder / name).is_file()), None)
    if path is None:
        return None
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                parts = {m.filename.partition("/")[2]: m for m in archive.infolist()}
                if parts[PICKLE].compress_type != zipfile.ZIP_STORED:
                    raise zipfile.BadZipFile("it is packed, which no checkpoint is")
                size = parts[PICKLE].file_size
                values = (
                    {}
                    if PER_OPCODE * size > max_bytes()
                    else _check_pickle(archive.read(parts[PICKLE]), {name: m.file_size for name, m in parts.items()})
                )
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path} is no checkpoint of staa: it holds more than tensors and plain values") from error
        except Exception as error:
            raise ValueError(f"{path} is truncated or corrupt ({_brief(error)})") from error
    check_bytes(PER_OPCODE * size, f"what {path} says of its tensors")
    values = values if isinstance(values, dict) else {}
    check_format(values.pop("format", 0), path)
    return path, values


def _brief(error: Exception) -> str:
    """The first line of what a library says, which may quote a file at length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_values(state: dict[str, Any], path: Path) -> None:
    """Raises ValueError for a checkpoint whose parts are not what they should be, or whose tensors say more than they hold."""
    kinds = {
        "model": dict, "average": dict, "optimizer": dict, "schedule": dict, "rates": dict, "report": dict, "step": int,
        "best_epoch": int, "best": float, "sums": Tensor, "recipe": str,
    }  # fmt: skip
    odd = [name for name, kind in kinds.items() if name in state and type(state[name]) is not kind]
    odd = [name for name in odd if not (kinds[name] is dict and isinstance(state[name], dict))]  # an OrderedDict
    odd += [name for name in ("step", "best_epoch") if name in state and name not in odd and not 0 <= state[name] < 2**62]
    odd += [
        name
        for name in ("model", "average")
        if name in state and name not in odd and not all(isinstance(key, str) for key in state[name])
    ]
    rates = [] if "rates" in odd else list(state.get("rates", {}).values())
    if not all(isinstance(r, list) and len(r) == 2 and all(type(n) in (int, float) for n in r) and r[1] > 0 for r in rates):
        odd.append("rates")
    report = {} if "report" in odd else state.get("report", {})
    if report and not (type(report.get("event")) is str and type(report.get("step")) is int and _is_plain(report)):
        odd.append("report")
    if odd:
        raise ValueError(f"{path} is no checkpoint of staa: its {odd[0]} makes no sense")
    for value in _walk(state):
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.untyped_storage().nbytes() < value.numel() * value.element_size()
        ):
            raise ValueError(f"{path} is no checkpoint of staa: a tensor of {_shape(value)} holds fewer numbers than it says")


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def check_resumable(
    state: dict[str, Any], folder: Path, *, model: nn.Module, optimizer: Optimizer, schedule: LRScheduler, average: bool
) -> None:
    """Raises ValueError if a checkpoint lacks a part that training goes on with, or holds one of other sizes or settings.

    optimizer, schedule: fresh ones of the recipe. The checkpoint's have their settings, but for the learning rate and `fused`.
    """
    parts = {"model", "optimizer", "schedule", "step", "best", "best_epoch", "sums", "rates", "report"}
    lacking = (parts | ({"average"} if average else set())) - state.keys()
    if lacking:
        raise ValueError(f"the checkpoint for {folder} lacks {', '.join(sorted(lacking))}: it is not whole")
    odd = _odd_optimizer(state["optimizer"], optimizer, state["step"]) or _odd_schedule(state, schedule)
    if odd:
        raise ValueError(
            f"the checkpoint for {folder} is not of this optimizer and schedule ({odd}): take another, or train anew"
        )
    names = {name.removesuffix(".neuron") for name, _ in model.named_modules()}
    sums, best, epoch = state["sums"], state["best"], state["best_epoch"]
    sound = {
        "sums": sums.dtype == torch.float64
        and not sums.requires_grad
        and sums.ndim <= 3
        and bool(sums.isfinite().all())
        and bool(sums.ndim or sums == 0),
        "rates": all(
            name in names and type(total) is float and _amount(total) and _count(n)
            for name, (total, n) in state["rates"].items()
        ),
        "best": math.isfinite(best) if epoch else best == -math.inf,
        "best_epoch": epoch <= state["step"],
    }
    if bad := [name for name, fine in sound.items() if not fine]:
        raise ValueError(f"the checkpoint for {folder} can't be gone on from: its {bad[0]} makes no sense; take another")


def fused_as(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state from a checkpoint, fused as this optimizer is: that depends on the device, which may be another."""
    groups = zip(state["param_groups"], optimizer.param_groups, strict=True)
    return {**state, "param_groups": [its | ({"fused": own["fused"]} if "fused" in own else {}) for its, own in groups]}


def _amount(value: Any) -> bool:
    """A finite number that is not negative; a tensor of such."""
    if isinstance(value, Tensor):
        return bool((value.isfinite() & (value >= 0)).all())
    return type(value) in (int, float) and 0 <= value < math.inf


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**53


def _odd_optimizer(its: dict[str, Any], fresh: Optimizer, step: int) -> str | None:
    """What in an optimizer's state is not as this fresh optimizer's would be after so many steps."""
    groups, moments, own = its.get("param_groups"), its.get("state"), fresh.state_dict()["param_groups"]
    if its.keys() != {"state", "param_groups"}:
        return "its parts"
    if not isinstance(groups, list) or len(groups) != len(own) or not all(isinstance(group, dict) for group in groups):
        return "param_groups"
    for mine, group in zip(own, groups, strict=True):
        if odd := _odd_setting(mine, group, free={"lr", "fused"}):
            return odd
        if type(group.get("fused")) not in (bool, type(None)):
            return "fused"
        if type(group["lr"]) is not float or not _amount(group["lr"]):
            return "lr"
    parameters = [p for group in fresh.param_groups for p in group["params"]]
    if not isinstance(moments, dict) or not all(type(k) is int and 0 <= k < len(parameters) for k in moments):
        return "state"
    needed, known = MOMENTS.get(type(fresh), set()), type(fresh) in MOMENTS
    for k, values in moments.items():
        if not isinstance(values, dict) or (values.keys() != needed if known else not values.keys() >= needed):
            return f"state of parameter {k}"
        for name, value in values.items():
            if not _fits(name, value, parameters[k], step):
                return f"{name} of parameter {k}"
    return None


def _fits(name: str, value: Any, parameter: Tensor, step: int) -> bool:
    """Whether an optimizer can have such a value for a parameter after so many steps."""
    if value is None:
        return name == "momentum_buffer"  # none yet
    if not isinstance(value, Tensor) or value.requires_grad or not bool(value.isfinite().all()):
        return False
    if name == "step":
        return value.ndim == 0 and value.is_floating_point() and 0 < float(value) <= step and float(value) == int(value)
    shapes = (parameter.shape,) if name in ("exp_avg", "exp_avg_sq", "momentum_buffer") else (parameter.shape, ())
    return value.shape in shapes and value.dtype == parameter.dtype and (name != "exp_avg_sq" or _amount(value))


def _odd_schedule(state: dict[str, Any], fresh: LRScheduler) -> str | None:
    """What in a schedule's state is not as this fresh schedule's would be at the checkpoint's step."""
    its, groups = state["schedule"], state["optimizer"]["param_groups"]
    if odd := _odd_setting(fresh.state_dict(), its, free={"last_epoch", "_step_count", "_last_lr"}):
        return odd
    if hidden := [name for name in its.keys() - fresh.state_dict().keys() if hasattr(fresh, str(name))]:
        return str(hidden[0])
    if not _same(state["step"], its["last_epoch"]) or not _same(state["step"] + 1, its["_step_count"]):
        return "its step"
    return None if _same([group["lr"] for group in groups], its["_last_lr"]) else "_last_lr"


def _odd_setting(own: dict[str, Any], its: dict[str, Any], *, free: set[str]) -> str | None:
    """A setting that differs and is not free. A switch (True, False or None) may lack or be added, as by another torch."""
    for name in own.keys() | its.keys():
        if name in own and name in its:
            fine = name in free or _same(own[name], its[name])
        else:
            value = own.get(name, its.get(name))
            fine = value is None or type(value) is bool
        if not fine:
            return str(name)
    return None


def _same(own: Any, its: Any) -> bool:
    """Whether a value from a file, of any kind, is equal to a plain one: True is not 1, but 1 is 1.0."""
    if isinstance(own, list | tuple):
        return type(its) is type(own) and len(its) == len(own) and all(map(_same, own, its))
    kinds = (bool,) if type(own) is bool else (int, float, str, type(None))
    return type(its) in kinds and own == its


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder ever had a checkpoint, be it lost since."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS, BEST))


def measured_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The weights in a checkpoint that the run is measured with: their moving average where it keeps one."""
    if "average" not in state:
        return state["model"]
    return {k.removeprefix("module."): v for k, v in state["average"].items() if k != "n_averaged"}


def load_weights(model: nn.Module, state: dict[str, Any], origin: Path) -> None:
    """Load a state dict into a model of the same recipe. Raises ValueError naming the first entries that do not fit, or that
    are not finite."""
    own = model.state_dict()
    odd = [k for k in own.keys() | state.keys() if k not in own or k not in state or not _same_form(own[k], state[k])]
    if odd:
        names = ", ".join(sorted(odd)[:3])
        raise ValueError(f"{origin} holds weights of another network: {len(odd)} entries do not fit, such as {names}")
    bad = sorted(k for k, v in state.items() if isinstance(v, Tensor) and not bool(v.isfinite().all()))
    if bad:
        raise ValueError(f"{origin} holds weights that are not finite, such as {bad[0]}: it is damaged")
    try:
        model.load_state_dict(state)
    except Exception as error:  # what set_extra_state of a module of one's own says
        raise ValueError(f"{origin} holds weights that do not fit: {error}") from error


def _same_form(own: Any, other: Any) -> bool:
    """Tensors of one shape and type; of what is no tensor, the module judges."""
    if not isinstance(own, Tensor) or not isinstance(other, Tensor):
        return isinstance(own, Tensor) == isinstance(other, Tensor)
    return own.shape == other.shape and own.dtype == other.dtype


@dataclass(frozen=True)
class Transfer:
    """What of another network's weights came into a network, as texts that name each entry."""

    loaded: list[str]
    changed: list[str]
    left_out: list[str]
    fresh: list[str]


def transfer_weights(
    model: nn.Module, state: dict[str, Tensor], origin: Path, *, leave: Mapping[str, str] | None = None
) -> Transfer:
    """Load the entries of another run's state dict that fit a model; the others keep the model's own fresh values.

    An entry fits by name and shape, and a bias where its weight does. A position encoding learned for another number of
    steps is interpolated, linearly in time, with the first step on the first and the last on the last. leave: entries
    and modules that are left out, each with why. Raises ValueError, with the model untouched, if no convolution or linear
    weight fits, or if one that fits is not finite or of another type.
    """
    own = model.state_dict()
    found = Transfer([], [], [], [])
    new: dict[str, Tensor] = {}
    encodings = {f"{name}.encoding" for name, module in model.named_modules() if isinstance(module, PositionEncoding)}
    for key, value in own.items():
        other = state.get(key)
        if not isinstance(value, Tensor) or not isinstance(other, Tensor):
            found.fresh.append(key)
        elif other.shape != value.shape and key in encodings and other.shape[1:] == value.shape[1:]:
            new[key] = F.interpolate(other.T[None], len(value), mode="linear", align_corners=True)[0].T
            found.changed.append(f"{key} (T = {len(other)} to {len(value)})")
        elif other.shape != value.shape:
            found.left_out.append(f"{key} ({_shape(other)} there, {_shape(value)} here)")
        elif why := next((why for part, why in (leave or {}).items() if f"{key}.".startswith(f"{part}.")), None):
            found.left_out.append(f"{key} ({why})")
        elif (weight := key.removesuffix("bias") + "weight") in own and key.endswith(".bias") and weight not in new:
            found.left_out.append(f"{key} (as its weight)")
        else:
            new[key] = other
            found.loaded.append(key)
    found.left_out.extend(f"{key} (not in this network)" for key in state if key not in own)
    if not any(key.endswith("weight") and new[key].ndim >= 2 for key in found.loaded):
        raise ValueError(
            f"{origin} has nothing in common with this network: none of its convolution and linear weights fits; its "
            f"entries are such as {', '.join(sorted(state)[:2])}, here {', '.join(sorted(own)[:2])}"
        )
    odd = [key for key, value in new.items() if value.dtype != own[key].dtype or not bool(value.isfinite().all())]
    if odd:
        raise ValueError(
            f"{origin} holds weights that are not finite, or of another type than here, such as {odd[0]}: it is damaged"
        )
    model.load_state_dict(own | new)
    return found


def _shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "scalar"


def read_weights(path: Path) -> dict[str, Any]:
    """The weights that `save_weights` wrote. Raises FileNotFoundError, or ValueError if they are broken or too large."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: it is written after an epoch that ends with validation, which needs data.validation above 0"
        )
    data = read_bytes(path)
    try:
        weights: dict[str, Any] = from_safetensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        plain = {key: json.loads(value) for key, value in header.get("__metadata__", {}).items()}
    except Exception as error:  # SafetensorError, and KeyError for a type that torch lacks
        raise ValueError(f"{path} is truncated or corrupt: {_brief(error)}") from error
    check_format(plain.pop(NUMBER, 0), path)
    return weights | plain
