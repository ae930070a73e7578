"""A run, from recipe to result, in its folder."""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from staa.build import check_weights, task_of
from staa.build.task import Part
from staa.data.batches import spread
from staa.files import FORMAT, inside, save_text, write
from staa.locks import exclusive
from staa.machine import choose_device, choose_precision, choose_workers
from staa.norms import sync
from staa.parallel import joined, local_world, own_device
from staa.recipes.as_json import to_json
from staa.recipes.code import CODE, for_folder
from staa.recipes.code import trust as vouch_for
from staa.recipes.find import with_absolute_paths
from staa.recipes.recipe import Recipe
from staa.recipes.values import rates_in
from staa.runs.begun import find
from staa.runs.folder import (
    ENVIRONMENT,
    RECIPE,
    RESULT,
    check_split,
    describe,
    save_json,
    warnings_of,
)
from staa.runs.load import Run
from staa.runs.log import log, log_once
from staa.runs.transfer import check_frozen, some, start_from
from staa.runs.trial import try_out
from staa.training.checkpoint import BEST, replace_broken
from staa.training.deterministic import deterministic_algorithms, fix_workspace, made_within
from staa.training.evaluate import Loader, evaluate_in_detail
from staa.training.learner import Learner
from staa.training.loop import train
from staa.training.losses import rate_penalty
from staa.training.named import freeze
from staa.training.optim import cosine_schedule, make_optimizer
from staa.training.progress import End, Event, Result, Start, Step, Warned, for_log
from staa.training.settings import Compile, Settings
from staa.training.step import check_compile
from staa.training.together import check_together
from staa.training.weights import load_weights, read_weights
from staa.version import __version__

LOG_EVERY = 50  # steps


def run(
    recipe: Recipe,
    folder: Path,
    *,
    data_root: Path = Path("data"),
    device: str | None = None,
    workers: int | None = None,
    save_minutes: float = 10.0,
    bits: bool = False,
    compile: Compile = False,
    deterministic: bool = False,
    resume: Path | None = None,
    same_data_as: Run | None = None,
    trust: bool = False,
    measure_test: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, None]:
    """Train a recipe in a run folder, yielding `staa.training.loop.train`'s events, then a `Result` with the test figures.

    The folder takes recipe.json, environment.json (versions, commit, device, split, classes), log.jsonl, last.pt,
    previous.pt, best.safetensors and, at the end, result.json, and in code/ a copy of each Python file that the recipe names;
    this process holds it meanwhile. The test set is touched once: after the last step, with the last weights. With protocol
    "paper" it takes the place of validation in each epoch, and the result tells the best epoch's accuracy too, as
    best_test_accuracy.

    In one of several processes (`staa.parallel`) it trains together with the others. Each gets the same events, and the first
    alone has the folder.

    The events are those of `staa.training.loop.train`; after `Start` comes `Transfer` (what `transfer_weights` says) if the
    recipe starts from another run, and `Warned` for each of the data set's notes, for the slow path of the neurons, and for a
    machine that differs from the one the run was begun on.

    Args:
        recipe: What to train.
        folder: The run folder, which is made, and must be empty unless the run is resumed.
        data_root: The folder or file of the data, for data sets in files.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read and augment if that is slow, at least 0; None: as many as suit the machine.
        save_minutes: Minutes between saves inside an epoch, above 0.
        bits: Keep spikes as bits for the backward pass, which saves memory.
        compile: True compiles the network, "graph" records a step as a CUDA graph.
        deterministic: Take PyTorch's deterministic algorithms alone (`staa.training.deterministic`).
        resume: The folder, or a checkpoint in it, to go on from; a finished run just yields its result again. None: a new run.
        same_data_as: A run of another seed, whose data these must be.
        trust: Let the Python files that the recipe names run, though it was read from a run folder; those of a recipe made in
            Python may run anyway.
        measure_test: False leaves the test set alone: there is no `Result` until the run is resumed with True.
        stop: Asked after each step; True saves and ends the run there.

    Raises:
        ValueError: If a setting, the data or a checkpoint does not fit, before anything is written.
        OSError: If a file is missing or can't be read, before anything is written.
        FloatingPointError: If the loss, a gradient or a weight is not finite; the last good checkpoint is kept.
        RuntimeError: If a checkpoint can't be written, a step not be recorded, or an operation has no deterministic form; the
            last good checkpoint is kept.
    """
    recipe = with_absolute_paths(recipe)
    if trust and recipe.folder is not None:
        vouch_for(recipe)
    if deterministic and device != "cpu":
        fix_workspace()
    exact = deterministic_algorithms if deterministic else nullcontext
    group = joined()
    chosen = choose_device(device if group.alone else own_device(device))
    workers = choose_workers(workers, chosen, among=local_world())
    precision = choose_precision(recipe.precision, chosen)
    check_compile(compile, chosen, penalty=bool(recipe.loss.rate_weight))
    check_together(compile, group)
    if not save_minutes > 0:
        raise ValueError(f"`save_minutes` must be positive, got {save_minutes}")
    if recipe.protocol == "paper" and not measure_test:
        raise ValueError(f'{recipe.name} measures on the test set in each epoch: it must have protocol "test-once"')
    with exclusive(folder) if group.first else nullcontext(), ExitStack() as opened:
        task = task_of(recipe)
        found = group.as_first(lambda: find(recipe, folder, resume, same_data_as))
        if found.result is not None:
            yield Result.of({"seed": recipe.seed, **found.result})
            return
        state, begun = found.state, found.begun
        kept, copies = for_folder(recipe)
        source = group.after_first(lambda: task.source(data_root, about=found.about))
        if group.as_first(lambda: source.split) != source.split:
            raise ValueError(f"the data under {data_root} are not those that the first process has: give each the same")
        notes = source.notes
        if same_data_as is not None and group.first:
            check_split(same_data_as.folder, source, same_data_as.about)
        if begun is not None:
            notes += check_split(folder, source, begun["data"])

        def batches(part: Part, *, training: bool = False) -> Loader:
            made = task.batches(source, part, chosen, workers=workers, training=training, group=group)
            return opened.enter_context(closing(made))

        training, test = batches("train", training=True), batches("test")
        loss, measure = task.loss, task.measure(source, chosen)
        paper = recipe.protocol == "paper"
        validation = test if paper else None if source.validation is None else batches("validation")
        torch.manual_seed(recipe.seed)
        model = task.model_for(source).to(chosen)
        check_weights(recipe, model)
        task.check_early(source, model)
        if for_folder(recipe)[1] != copies:
            raise ValueError("a file that the recipe names was changed while the run was prepared: start it again")
        if recipe.sync_norm:
            sync(model, group)
        size, pieces = min(recipe.batch_size, len(source.train)), recipe.optim.accumulate
        few = size // pieces // (1 if recipe.sync_norm else group.world) * task.norm_values(source) < 2
        if 1 in (recipe.model.steps, recipe.early.steps) and few:
            raise ValueError(
                f"`batch_size` {size} in {pieces * group.world} pieces at T = 1 gives BatchNorm one sample "
                f"at a time to take statistics of: make it at least {2 * pieces * group.world}"
            )
        frozen = freeze(model, recipe.frozen)
        with exact():
            one = task.take(source, "train", torch.tensor([0]), chosen)
            try_out(model, *one, loss, penalty=_penalty(recipe), backward=deterministic)
        transfer = start_from(recipe, source, model) if state is None and recipe.init_from is not None else None
        if transfer is not None:
            check_frozen(transfer, frozen.parameters)
        elif frozen.parameters and recipe.init_from is None:
            notes += (
                f"`freeze` keeps {some(frozen.parameters)} as drawn at random, since the run starts from no other one: "
                f"`init_from` says from which",
            )
        optim = recipe.optim
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(optim.ema), use_buffers=True) if optim.ema else None
        steps, more = recipe.steps(len(training)), [epochs * len(training) for epochs in recipe.prolonged]
        if not any(p.requires_grad for p in model.parameters()):  # nothing to descend on
            steps, more = 0, []
            with exact():
                task.fit(model, task.batches(source, "train", chosen, workers=workers))
        optimizer = make_optimizer(
            model,
            name=optim.name,
            lr=optim.lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            weight_decay=optim.weight_decay,
            decay_all=optim.decay_all,
            lr_of=rates_in(optim.lr_of),
        )
        warmup = min(round(optim.warmup_epochs * len(training)), steps // 2)
        schedule = cosine_schedule(optimizer, steps=steps, warmup=warmup, lr=optim.lr, min_lr=optim.min_lr, more=more)
        steps += sum(more)
        environment = describe(source, model, chosen, precision, compile, deterministic, recipe, data_root, __version__)
        if state is None and group.first:
            for name, data in copies.items():
                inside(folder, CODE).mkdir(exist_ok=True)
                write(folder / name, data)
            save_text(folder / RECIPE, to_json(kept))
        if begun is None and group.first:
            save_json(folder / ENVIRONMENT, environment)
        if state is not None and resume is not None and resume.is_file() and group.first:
            replace_broken(folder, resume)
        if state is not None and state.get("report") and group.first:
            log_once(folder, state["report"])  # saved, but the process may have died before it was logged
        note = partial(log, folder) if group.first else (lambda event: None)
        note({"event": "environment", "format": FORMAT, **environment})
        told: list[Event] = [] if transfer is None else [transfer]
        notes += tuple(warnings_of(environment, begun))
        told += [Warned(step=0, epoch=1, text=note) for note in notes]
        for event in told:
            note(for_log(event))

        settings = Settings(
            steps=steps,
            loss=loss,
            penalty=_penalty(recipe),
            measure=measure,
            measured_on="test" if paper else "validation",
            patience=optim.patience,
            clip=optim.clip,
            accumulate=pieces,
            part=group.part(size, pieces),
            precision=precision,
            seed=recipe.seed,
            save_every=60 * save_minutes,
            bits=bits,
            compile=compile,
        )
        learner = Learner(model, optimizer, schedule, folder, average, {"recipe": to_json(kept)}, frozen.norms, group)
        event, events = None, train(learner, training, settings=settings, validation=validation, state=state, stop=stop)
        for event in made_within(exact, events):
            if is_logged(event, steps):
                note(for_log(event))
            if isinstance(event, Start):
                yield replace(
                    event, data=environment["data"], parameters=environment["parameters"],
                    trained=sum(p.numel() for p in model.parameters() if p.requires_grad), model=learner.measured,
                    samples=lambda count: task.take(source, "train", spread(count, source.train), chosen)[0],
                )  # fmt: skip
                yield from told
            else:
                yield event
        if isinstance(event, End) and measure_test:
            training.close()  # the test set has workers of its own
            weights = recipe.weights if event.best is not None else "last"
            if weights == "best" and group.first:
                load_weights(learner.measured, read_weights(folder / BEST), folder / BEST)
            learner.align()
            with exact():
                figures, details = evaluate_in_detail(learner.measured, test, measure=measure, precision=precision, group=group)
            result = Result(
                test=figures,
                samples=len(source.test),
                weights=weights,
                recipe=recipe.name,
                seed=recipe.seed,
                protocol=recipe.protocol,
                best_epoch=event.best_epoch,
                details={**details, **task.beside(source, measure)},
                best_test_accuracy=event.best if paper else None,
                best_test_epoch=event.best_epoch if paper else None,
            )
            group.as_first(lambda: save_json(folder / RESULT, result.values()))
            note(for_log(result))
            yield result


def is_logged(event: Event, steps: int) -> bool:
    """Whether an event of a run of so many steps stands in its log: of the steps, not each does."""
    return not isinstance(event, Step) or event.step % LOG_EVERY == 0 or event.step == steps


def _penalty(recipe: Recipe) -> Callable[[Iterable[Tensor]], Tensor] | None:
    weight, target = recipe.loss.rate_weight, recipe.loss.rate_target
    return (lambda rates: weight * rate_penalty(rates, target=target)) if weight else None
