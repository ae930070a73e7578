"""The training loop. It prints nothing: it yields events, plain dicts, as it goes."""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from staa.ops.bits import spikes_as_bits
from staa.rates import firing_rates, rate_warnings, summary
from staa.training.checkpoint import BEST, save_checkpoint
from staa.training.evaluate import CLASSIFICATION, Epochs, Inputs, Measure, autocast, call, device_of, evaluate
from staa.training.losses import mean_cross_entropy
from staa.training.resume import check_resumable, fused_as
from staa.training.step import (
    Compile,
    Descend,
    Descent,
    check_compile,
    compiled,
    fast_arithmetic,
    pieces_of,
    recorded,
    update_average,
)
from staa.training.weights import check_savable, load_weights, save_weights

RATE_EVERY = 10  # steps between measurements of the firing rates, and between looks at whether the gradients were finite


def train(
    model: nn.Module,
    batches: Epochs,
    *,
    folder: Path,
    steps: int,
    optimizer: Optimizer,
    schedule: LambdaLR,
    validation: Epochs | None = None,
    measured_on: Literal["validation", "test"] = "validation",
    loss: Callable[[Tensor, Tensor], Tensor] = mean_cross_entropy,
    penalty: Callable[[Iterable[Tensor]], Tensor] | None = None,
    measure: Measure = CLASSIFICATION,
    patience: int | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    average: AveragedModel | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    seed: int = 0,
    save_every: float = math.inf,
    bits: bool = False,
    compile: Compile = False,
    read_every: int | None = None,
    state: dict[str, Any] | None = None,
    about: dict[str, Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[dict[str, Any]]:
    """Train for `steps` optimizer steps, yielding an event after each step and epoch; folder takes the checkpoints.

    Every random number of step k follows from (seed, k), and every batch from its own seed, so a run resumed from a
    checkpoint is bit-equal on the CPU to one that never stopped. A checkpoint is written at the start, after each epoch
    (validation first), when the last one is save_every seconds old, and when stop() says so after a step.
    best.safetensors holds the weights of the epoch with the best validation by the measure's score. patience: end after so
    many epochs without a better one. state: a loaded checkpoint of the same network and settings to go on from; about:
    plain values to keep in every checkpoint.

    loss: of (outputs, targets); penalty: of the layers' firing rates, added to it. measure: what the figures are.
    accumulate: pieces a batch is taken in; their gradients add up to the whole batch's, weighted by their samples. average:
    of the same model, updated after each step; it is then what validation measures and what best.safetensors holds.
    measured_on: what the validation samples are, for the names of the figures. bits: spikes wait for the backward pass as
    bits (`spikes_as_bits`). compile: True compiles the network with torch.compile, but for each tenth step, in which firing
    rates are measured; "graph" records forward and backward pass as a CUDA graph. On CUDA, `fast_arithmetic` holds in a step.

    A step reads nothing from the device but every `read_every` steps (None: 1 on a CPU, which has nothing to wait for, else
    10), at an epoch's end and before a checkpoint.

    Events, all with "event", "step" and "epoch" (from 1): "start"; "step" (lr; if it is read, also the epoch's figures so far,
    but the batch's loss with penalty, rates, and samples and seconds since the last reading); "warning" (text);
    "epoch" (figures, rates by layer, seconds, of which `waited` for data, figures as validation_loss …, best, best_epoch);
    "interrupted"; "end" (best score on validation and its best_epoch, None and 0 without validation).

    Nothing that is not finite is saved, so a run resumes from its last good checkpoint. Each step's loss is looked at when it
    is read, a flag of its gradients every ten steps and before each checkpoint. bfloat16 has float32's range: there is no loss
    scaling, by which a step may overflow and be left out.

    Raises FloatingPointError when the loss, a gradient or a weight is not finite, ValueError for another network's checkpoint,
    a network that a checkpoint can't hold and what `check_compile` refuses, and RuntimeError when a checkpoint can't be written
    or a step not be recorded; the last good checkpoint is kept in each case.
    """
    check_savable(model)
    device = device_of(model)
    check_compile(compile, device, penalty=penalty is not None)
    read_every = read_every or (1 if device.type == "cpu" else RATE_EVERY)
    measured = model if average is None else average.module
    step, best, best_epoch = 0, -math.inf, 0
    sums = torch.zeros((), dtype=torch.float64, device=device)
    rates: dict[str, list[float]] = {}
    report: dict[str, Any] = {}

    if state is not None:
        if state["step"] > steps:
            raise ValueError(
                f"the checkpoint for {folder} is of step {state['step']}, training ends at step {steps}: take another"
            )
        check_resumable(state, folder, model=model, optimizer=optimizer, schedule=schedule, average=average is not None)
        load_weights(model, state["model"], folder)
        if average is not None:
            load_weights(average, state["average"], folder)
        optimizer.load_state_dict(fused_as(optimizer, state["optimizer"]))
        schedule.load_state_dict(state["schedule"])
        step, best, best_epoch = state["step"], state["best"], state["best_epoch"]
        rates, report = state["rates"], state["report"]
        sums = state["sums"].to(device)

    averaged = average is not None and bool(average.n_averaged > 0)
    saved = time.monotonic()
    measured_rates: list[dict[str, Tensor]] = []  # since the last reading
    losses: dict[int, Tensor] = {}  # by step, since the last reading

    def descend(x: Inputs, y: Tensor, measuring: bool, *, forward: nn.Module = model) -> Descent:
        result = Descent(torch.zeros((), device=device), [], [])
        for some_x, some_y in pieces_of(x, y, accumulate):
            share = len(some_y) / len(y)
            rates_of = firing_rates(model, detach=penalty is None) if measuring or penalty is not None else nullcontext({})
            with autocast(device, precision), spikes_as_bits() if bits else nullcontext(), rates_of as layers:
                outputs = call(forward, some_x)
            value = loss(outputs, some_y)
            if penalty is not None:
                value = value + penalty(layers.values())
            (value * share).backward()
            result = result._replace(loss=result.loss + value.detach() * share)
            result.sums.append(measure.sums(outputs.detach(), some_y))
            if measuring:
                result.rates.append({name: rate.detach() for name, rate in layers.items()})
        return result

    take: Descend = descend
    if compile is True:
        quickly = compiled(model)  # which knows no hooks
        take = lambda x, y, measuring: descend(x, y, measuring, forward=model if measuring else quickly)  # noqa: E731
    elif compile == "graph":
        take = recorded(descend, model)

    finite: dict[int, Tensor] = {}  # of the steps since the last look, whether their gradients were
    advice = (
        f"the last good checkpoint is kept in {folder}; try a lower learning rate or gradient clipping in a new run, or let "
        "torch.autograd.detect_anomaly under staa.reference (STAA_REFERENCE=1) name the operation"
    )

    def check_gradients(before: float = math.inf) -> None:
        if finite:
            flags = zip(finite, torch.stack(list(finite.values())).tolist(), strict=True)
            bad = [k for k, good in flags if not good and k < before]
            finite.clear()
            if bad:
                at = f"step {bad[0]}" if len(bad) == 1 else f"steps {', '.join(map(str, bad))}"
                raise FloatingPointError(f"gradients are not finite at {at}; {advice}")

    def read() -> float:
        """Rates and losses of the steps since the last reading, from the device; returns the last loss."""
        names = [name for layers in measured_rates for name in layers]
        if names:
            values = torch.stack([rate for layers in measured_rates for rate in layers.values()]).tolist()
            for name, value in zip(names, values, strict=True):
                total, count = rates.get(name, [0.0, 0])
                rates[name] = [total + value, count + 1]
            measured_rates.clear()
        numbers = dict(zip(losses, torch.stack(list(losses.values())).tolist(), strict=True)) if losses else {}
        losses.clear()
        for k, number in numbers.items():
            if not math.isfinite(number):
                check_gradients(before=k)  # an earlier step's are the cause
                raise FloatingPointError(f"the loss is {number} at step {k} (epoch {(k - 1) // len(batches) + 1}); {advice}")
        return number if numbers else math.nan

    def check_finite() -> None:
        read()
        check_gradients()
        weights = {**model.state_dict(), **({} if average is None else average.state_dict(prefix="average."))}
        weights = {name: w for name, w in weights.items() if isinstance(w, Tensor)}
        good = torch.stack([w.isfinite().all() for w in weights.values()]).tolist()
        bad = [name for name, fine in zip(weights, good, strict=True) if not fine]
        if bad:
            raise FloatingPointError(f"a weight is not finite after step {step}; {advice} ({len(bad)} tensors, first {bad[0]})")

    def save() -> None:
        check_finite()
        save_checkpoint(folder, {
            **(about or {}), "step": step, "best": best, "best_epoch": best_epoch, "sums": sums.cpu(), "rates": rates,
            "report": report, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(), **({} if average is None else {"average": average.state_dict()}),
        })  # fmt: skip
        nonlocal saved
        saved = time.monotonic()

    if state is None:
        save()
    yield {"event": "start", "step": step, "epoch": step // len(batches) + 1, "steps": steps, "epoch_steps": len(batches)}

    def out_of_patience() -> bool:
        return patience is not None and step % len(batches) == 0 and step // len(batches) - best_epoch >= patience

    while step < steps and not out_of_patience():
        epoch, done = divmod(step, len(batches))
        started = time.perf_counter()
        model.train()
        waited = seconds = 0.0
        samples = 0
        began = time.perf_counter()
        for x, y in batches.epoch(epoch, done):
            waited += time.perf_counter() - began
            torch.manual_seed(random.Random(f"{seed} step {step}").getrandbits(63))
            optimizer.zero_grad()
            with fast_arithmetic(device):
                losses[step + 1], parts, layers = take(x, y, step % RATE_EVERY == 0)
            measured_rates += layers
            for more in parts:
                if sums.ndim and sums.shape != more.shape:
                    raise ValueError(f"the checkpoint for {folder} has sums of other figures than these: take another")
                sums = sums + more
            if clip is None:
                norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None], math.inf)
            else:
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            finite[step + 1] = norm.isfinite()
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            if average is not None:
                update_average(average, model, first=not averaged)
                averaged = True
            step += 1
            last_of_epoch = step == steps or step % len(batches) == 0
            event = {"event": "step", "step": step, "epoch": epoch + 1, "lr": lr}
            samples += len(y)
            number = read() if last_of_epoch or step % read_every == 0 else None
            if step % RATE_EVERY == 0:
                check_gradients()
            seconds += time.perf_counter() - began
            if number is not None:
                event |= {**measure.figures(sums.cpu()), "loss": number, "samples": samples, "seconds": seconds}
                event["rates"] = summary(rates)
                samples, seconds = 0, 0.0
            yield event
            if epoch == 0 and (step == 10 * RATE_EVERY or (last_of_epoch and step < 10 * RATE_EVERY)):
                for text in rate_warnings(rates):
                    yield {"event": "warning", "step": step, "epoch": 1, "text": text}
            if last_of_epoch:
                break
            if stop():
                save()
                yield {"event": "interrupted", "step": step, "epoch": epoch + 1}
                return
            if time.monotonic() - saved >= save_every:
                save()
            began = time.perf_counter()

        check_finite()
        report = {"event": "epoch", "step": step, "epoch": epoch + 1, **measure.figures(sums.cpu())}
        report["rates"] = {name: total / count for name, (total, count) in rates.items()}
        if validation is not None:
            figures = evaluate(measured, validation, measure=measure, precision=precision)
            report |= {f"{measured_on}_{k}": v for k, v in figures.items()}
            report["best"] = measure.score(figures) > best
            if report["best"]:
                best, best_epoch = measure.score(figures), epoch + 1
                save_weights(folder / BEST, measured)
            report["best_epoch"] = best_epoch
        report["seconds"] = time.perf_counter() - started
        report["waited"] = waited
        sums, rates = torch.zeros((), dtype=torch.float64, device=device), {}
        save()
        yield report
        if step < steps and not out_of_patience() and stop():
            yield {"event": "interrupted", "step": step, "epoch": epoch + 1}
            return
    yield {
        "event": "end", "step": step, "epoch": math.ceil(step / len(batches)), "best": best if best_epoch else None,
        "best_epoch": best_epoch,
    }  # fmt: skip
