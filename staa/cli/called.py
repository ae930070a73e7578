"""Training from Python, in a script or a notebook: `staa.train` shows what the command shows."""

import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Literal

from staa.analysis.tensorboard import to_tensorboard
from staa.cli.options import DEFAULT
from staa.cli.render import render
from staa.cli.signals import Signals, listening
from staa.cli.text import say
from staa.cli.train import data_root_for, new_folder
from staa.parallel import joined
from staa.recipes.find import find_recipe, with_absolute_paths
from staa.recipes.recipe import Recipe
from staa.runs import Run, run
from staa.runs.folder import read_recipe
from staa.runs.inherit import inherited, starting_from
from staa.runs.longer import prolong as prolong_run
from staa.runs.seeds import first_run
from staa.training.progress import Event, Result, Start, Warned
from staa.training.settings import Compile


def train(
    recipe: Recipe | str | None = None,
    out: str | Path | None = None,
    *,
    resume: str | Path | None = None,
    prolong: int | None = None,
    init_from: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    bits: bool = False,
    compile: Compile = False,
    deterministic: bool = False,
    log: Literal["tensorboard"] | None = None,
    trust: bool = False,
    progress: bool = True,
) -> Run:
    """Train a recipe in a run folder and open it.

        run = staa.train("digits-events")
        run.result["test_accuracy"]
        run = staa.train(dataclasses.replace(run.recipe, epochs=30), "runs/longer")

    A terminal and a notebook get a bar, and a line for each epoch. Warnings go through `warnings`. Ctrl-C, or the notebook's
    button to interrupt, ends the step, saves, and raises KeyboardInterrupt; `staa.train(resume=folder)` then goes on, bit for
    bit on the CPU. A second one ends it at once. In a script that torchrun starts in several processes, they train together.

    Args:
        recipe: What to train, or its name, or "my_file.py:recipe"; None: that of the resumed run, or else digits-events.
        out: The run folder, which is made; None: runs/NAME/date-time-seed.
        resume: A run folder, or a checkpoint in one, to go on with.
        prolong: Epochs for which to train the finished run that `resume` names longer, in `out` (`staa.runs.prolong`).
        init_from: A run to start from: its weights, and with them its network and the preparation of its inputs
            (`staa.runs.starting_from`). A recipe that names one itself is taken as it is.
        data_root: The folder or file of the data, for data sets in files; None: ./data, or where the resumed run found them.
        device: Such as "cpu" or "cuda"; None: the GPU if there is one.
        workers: Processes that read and augment if that is slow, at least 0; None: as many as suit the machine.
        bits: Keep spikes as bits for the backward pass, which saves memory.
        compile: True compiles the network, "graph" records a step as a CUDA graph.
        deterministic: Train bit for bit alike each time on one machine, by PyTorch's deterministic algorithms alone.
        log: "tensorboard" also writes TensorBoard's files, to the folder's tensorboard/.
        trust: Let Python files in the resumed run's folder run, if the run has parts of its own.
        progress: Show how far it is; False shows nothing.

    Returns:
        The run, finished.

    Raises:
        ValueError: If a name, a setting, the data or a checkpoint does not fit, before anything is written.
        OSError: If a file is missing or can't be read, before anything is written.
        ImportError: If the package that `log` asks for is missing, before anything is written.
        FloatingPointError: If the loss, a gradient or a weight is not finite; the last good checkpoint is kept.
        RuntimeError: If a checkpoint can't be written, a step not be recorded, or an operation has no deterministic form; the
            last good checkpoint is kept.
        KeyboardInterrupt: If it is interrupted.
    """
    if prolong is not None and resume is None:
        raise ValueError("`prolong` goes on with a finished run: name it with `resume`")
    if resume is not None and out is not None and prolong is None:
        raise ValueError("`resume` goes on in the run's own folder: leave out `out`")
    if log not in (None, "tensorboard"):
        raise ValueError(f'`log` must be "tensorboard" or None, got {log!r}')
    begun = None if resume is None else Path(resume)
    if recipe is None and begun is not None:
        recipe = read_recipe(first_run(begun))
    elif recipe is None or isinstance(recipe, str):
        recipe = find_recipe(recipe or DEFAULT)
    if not isinstance(recipe, Recipe):
        raise ValueError(f"`recipe` must be a staa.Recipe or the name of one, got a {type(recipe).__name__}")
    told = ""
    if init_from is not None:
        if begun is not None:
            raise ValueError("a run that is gone on with has its weights: leave out `init_from`")
        made = starting_from(recipe, init_from, trust=trust)
        told, recipe = inherited(recipe, made), made
    recipe, group = with_absolute_paths(recipe), joined()
    fresh = new_folder(recipe) if out is None else Path(out)
    folder = first_run(begun) if begun is not None else group.as_first(lambda: fresh)
    if begun is not None and folder not in (begun, begun.parent):
        raise ValueError(f"{begun} holds several seeds: resume one of its folders, such as {folder}")
    root = data_root_for(None if begun is None else folder, data_root)
    if prolong is not None:
        old, epochs = begun or folder, prolong
        begun = folder = group.as_first(lambda: prolong_run(old, epochs, fresh, trust=trust))
        recipe = read_recipe(folder)
    events = run(
        recipe, folder, data_root=root, device=device, workers=workers, bits=bits, compile=compile, deterministic=deterministic,
        resume=begun, trust=trust, stop=lambda: signals.asked,
    )  # fmt: skip
    if log is not None and group.first:
        events = to_tensorboard(events, folder)
    title, go_on = f"{recipe.name}, seed {recipe.seed}", f"staa.train(resume={str(folder)!r})"

    def warn(text: str) -> None:
        warnings.warn(text, stacklevel=4)  # of whoever called `train`

    on_main = threading.current_thread() is threading.main_thread()  # another thread hears of no signal
    with listening() if on_main else nullcontext(Signals()) as signals, closing(events):
        if progress and group.first:
            if told:
                say(f"inherited from {recipe.init_from}: {told}")
            result = render(events, title, folder, signals, warn=warn, go_on=go_on)
        else:
            result = _quietly(events, signals, warn)
    if result is None:
        raise KeyboardInterrupt(f"{title} was interrupted, and is saved: go on with {go_on}")
    return Run(folder, data_root=None if data_root is None else Path(data_root), trust=trust)


def _quietly(events: Iterable[Event], signals: Signals, warn: Callable[[str], None]) -> Result | None:
    for event in events:
        match event:
            case Start():
                signals.training = True
            case Warned(text=text):
                warn(text)
            case Result():
                return event
    return None
