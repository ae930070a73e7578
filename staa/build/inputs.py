"""What a run's network is given of a file, an image or an array: prepared as the run's data were, without those data."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from staa.build.task import Task
from staa.data.events.binning import binned
from staa.data.events.check import checked
from staa.data.events.digits import saccade_events
from staa.data.events.folder import DEFAULT_STEPS, parse_sensor
from staa.data.events.frames import as_frames, as_values
from staa.data.events.read import READERS, read_told
from staa.data.events.recording import Events, Sensor, Told
from staa.data.events.sets import SENSORS
from staa.data.images.cifar import CIFAR
from staa.data.images.files import ENDINGS, MEAN, STD, as_rgb, cut, decode, normalise
from staa.data.series.files import HDF, PARQUET, TEXT
from staa.files import naming
from staa.recipes.recipe import Recipe

COUNTS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
NOTHING = Told()
WINDOW = 30.0  # milliseconds of a frame, where nothing is known of the recordings
DIGIT = 8  # pixels a side of the images that digits-events is made of
_OF_SERIES = (*TEXT, *HDF, *PARQUET)
KINDS = {
    "an image": ENDINGS,
    "a recording of an event camera": tuple(ending for ending in READERS if ending not in _OF_SERIES),
    "a recording or a series": tuple(ending for ending in READERS if ending in _OF_SERIES),
    "a series": _OF_SERIES,
}
"""What a file is by the ending of its name."""


class Obstacle(NamedTuple):
    """Why a network can't be fed by a camera.

    Args:
        why: A clause, such as "its frames are …".
        change: The settings of a recipe that would let it, such as "data.values=sum", apart by spaces; None: another data set.
    """

    why: str
    change: str | None = None


@dataclass(frozen=True)
class Preparation:
    """How one input of a network is made.

    Args:
        shape: Of a prepared input.
        what: What files it is made of, in words.
        endings: What their names end in.
        stored: An input as the data set stores it, from what a file holds: an RGB image, or a recording's events. None if the
            data set is one of the user's own, whose making is not known.
        prepare: The data set's own: stored inputs [N, ...] as the network takes them.
        takes: What `stored` takes.
        steps: T; None for a network that has none and takes still images.
        whole: Why an input can't be made without the whole of a recording; None if its frames can come one by one.
        sensor: Height and width of the sensor that recordings must be of; None: any, if they say it.
        told: What recordings may leave open, as in training.
        obstacles: What keeps its frames from being made of events as a camera sends them.

    Shapes:
        [C, H, W] of an image, [T, 2, H, W] of a recording's frames
    """

    shape: tuple[int, ...]
    what: str
    endings: tuple[str, ...]
    stored: Callable[[Any], Tensor] | None
    prepare: Callable[[Tensor], Tensor]
    takes: type = Image.Image
    steps: int | None = None
    whole: str | None = None
    sensor: Sensor | None = None
    told: Told = NOTHING
    obstacles: tuple[Obstacle, ...] = ()

    @property
    def frames(self) -> bool:
        """Whether an input has a frame for each step; a still image is repeated."""
        return len(self.shape) == 4

    def read(self, path: Path) -> Tensor:
        """A file's content as the network takes it.

        Args:
            path: An image or a recording, as the run's data are.

        Raises:
            ValueError: If it is of another kind, broken, of another sensor, or if the data set is one of the user's own.
            OSError: If it can't be read.
        """
        if not path.exists():
            raise ValueError(f"{path} does not exist")
        kind = next((kind for kind, endings in KINDS.items() if path.name.lower().endswith(endings)), "of no known kind")
        if self.stored is None:
            raise ValueError(
                f"{path}: how a file becomes an input of this network is not known, since its data set is one of your own: in "
                f"Python, give prepared tensors {list(self.shape)}"
            )
        if self.takes is Events and not path.name.lower().endswith(self.endings):
            raise ValueError(f"{path} is {kind} by its name, and this run takes {self.what} ({', '.join(self.endings)})")
        if self.takes is Events:
            return self._prepared(read_told(path, None, self.told), str(path))
        try:
            return self._prepared(decode(str(path)), str(path))
        except ValueError as error:
            if kind in ("an image", "of no known kind"):
                raise
            raise ValueError(f"{path} is {kind} by its name, and this run takes {self.what}") from error

    def take(self, given: Any, what: str = "the input") -> Tensor:
        """An image, a recording or an array as the network takes it.

        Args:
            given: A `PIL.Image`, or uint8 pixels [H, W] or [H, W, 3], if the run takes images; `staa.data.Events`, or counts
                [T, 2, H, W] of a whole-number dtype, if it takes recordings; floating-point numbers of `shape`, which are taken
                as prepared.
            what: What it is called in errors.

        Raises:
            ValueError: If it has another shape or size, or values that are not finite.
            TypeError: If it is none of these.
        """
        if isinstance(given, self.takes) and self.stored is not None:
            return self._prepared(given, what)
        if not isinstance(given, np.ndarray | Tensor):
            raise TypeError(f"{what} must be a path, {self._wanted()}; got {type(given).__name__}")
        try:
            x = torch.as_tensor(np.array(given) if isinstance(given, np.ndarray) else given).detach().cpu()
        except TypeError as error:
            raise TypeError(f"{what} must be numbers: {error}") from error
        if x.shape == self.shape and x.is_floating_point():
            if not bool(x.float().isfinite().all()):
                raise ValueError(f"{what} holds values that are not finite in float32")
            return x.float()
        if x.shape == self.shape and self.frames and self.stored is not None and x.dtype in COUNTS:
            if bool((x < 0).any()):
                raise ValueError(f"{what} must be counts of events, and holds numbers below 0")
            return self._prepared(x, what)
        picture = x.ndim == 2 or (x.ndim == 3 and x.shape[-1] == 3)
        if self.takes is Image.Image and self.stored is not None and x.dtype == torch.uint8 and picture and 0 not in x.shape:
            return self._prepared(Image.fromarray(x.numpy()), what)
        raise ValueError(f"{what} must be {self._wanted()}; got {x.dtype} {list(x.shape)}".replace("torch.", ""))

    def _wanted(self) -> str:
        words = []
        if self.stored is not None and self.takes is Image.Image:
            words.append("a PIL.Image, uint8 pixels [H, W] or [H, W, 3]")
        if self.stored is not None and self.takes is Events:
            words.append("staa.data.Events")
        if self.stored is not None and self.frames:
            words.append(f"counts {list(self.shape)} of whole numbers")
        return ", ".join([*words, f"floating-point numbers {list(self.shape)}, prepared"])

    def _prepared(self, given: Any, what: str) -> Tensor:
        assert self.stored is not None
        if isinstance(given, Events):
            given = of_sensor(given, self.sensor, what)
        try:
            if isinstance(given, Image.Image):
                given = as_rgb(given)
            x = given if isinstance(given, Tensor) else self.stored(given)
        except ValueError as error:
            raise ValueError(naming(what, error)) from error
        if x.shape != self.shape:
            raise ValueError(f"{what} becomes {list(x.shape)}, and this run's inputs are {list(self.shape)}")
        x = self.prepare(x[None])
        return x[:, 0] if self.frames else x[0]

    def together(self, inputs: list[Tensor]) -> Tensor:
        """A batch of inputs.

        Args:
            inputs: Prepared ones.

        Shapes:
            [N, C, H, W], or [T, N, 2, H, W]
        """
        return torch.stack(inputs, 1 if self.frames else 0)


def of_sensor(events: Events, sensor: Sensor | None, what: str) -> Events:
    """A recording of a sensor of this size. Raises ValueError naming `what` if it is of another one, if it has events outside
    it, or if neither it nor `sensor` says its size."""
    if events.sensor is None and sensor is None:
        raise ValueError(f"{what} doesn't say the size of its sensor: give `sensor` as HEIGHTxWIDTH")
    if events.sensor is not None and sensor is not None and events.sensor != sensor:
        there, here = (f"{height} × {width}" for height, width in (events.sensor, sensor))
        raise ValueError(f"{what} is of a sensor of {there} (height × width), and recordings of {here} are taken here")
    try:
        return checked(events, sensor)
    except ValueError as error:
        raise ValueError(naming(what, error)) from error


def told_by(recipe: Recipe) -> Told:
    """What the recipe says of recordings that leave it open."""
    data = recipe.data
    return Told(data.unit, data.stream, data.upright, parse_sensor(data.sensor), data.repair)


def sensor_of(recipe: Recipe, about: Mapping[str, Any]) -> Sensor | None:
    """The sensor of a run's recordings: the recipe's, its data set's, or, of frames that are not made smaller, the frames'."""
    data, side = recipe.data, about["size"]
    told = parse_sensor(data.sensor or SENSORS.get(data.name))
    return (side, side) if told is None and data.size is None and data.fit == "stretch" else told


def preparation_of(task: Task[Any], about: Mapping[str, Any]) -> Preparation:
    """How the inputs of a run that classifies are made.

    Args:
        task: The run's.
        about: What it recorded of its data.

    Raises:
        ValueError: If the data set is code of the run folder and nobody has said that it may run.
    """
    recipe = task.recipe
    if recipe.data.name in PREPARATIONS:
        return PREPARATIONS[recipe.data.name](recipe, about)
    frames = "steps" in inspect.signature(task.dataset).parameters  # else it has still images, the same at each step
    steps = _steps(recipe) if frames else recipe.model.steps
    channels = about["channels"]
    odd = () if channels == 2 else (Obstacle(f"it was trained on {channels} channels, and events have 2, OFF and ON"),)
    shape = _shape(about, steps if frames else None)
    return Preparation(shape, "prepared tensors", (), None, lambda x: x, steps=steps, obstacles=odd)


def _steps(recipe: Recipe) -> int:
    return recipe.model.steps or recipe.data.steps or DEFAULT_STEPS


def _shape(about: Mapping[str, Any], steps: int | None = None) -> tuple[int, ...]:
    still = about["channels"], about["size"], about["size"]
    return still if steps is None else (steps, *still)


def _images(recipe: Recipe, about: Mapping[str, Any], *, mean: tuple[float, ...], std: tuple[float, ...]) -> Preparation:
    small, prepare = cut(about["size"], recipe.data.resize), partial(normalise, mean=mean, std=std)
    odd = (Obstacle("it was trained on images, and a camera of events has none"),)
    return Preparation(_shape(about), "images", ENDINGS, small, prepare, steps=recipe.model.steps, obstacles=odd)


def _recordings(recipe: Recipe, about: Mapping[str, Any]) -> Preparation:
    data, steps = recipe.data, _steps(recipe)
    window = None if data.window is None else round(data.window * 1000)

    def stored(events: Events) -> Tensor:
        return torch.from_numpy(
            binned(lambda: iter([events]), steps, by=data.frames, window=window, size=data.size, fit=data.fit)
        )

    whole = "`data.values=normalised` divides by the recording's largest count, which is known at its end alone"
    odd = []
    if data.values == "normalised":
        odd.append(Obstacle(whole, "data.values=sum"))
    if data.frames != "window":
        change = f"data.frames=window data.window={WINDOW:g}"
        odd.append(Obstacle(f"its frames are cut by {data.frames}, which depends on the whole recording", change))
    return Preparation(
        _shape(about, steps), "recordings of an event camera", tuple(READERS), stored, partial(as_values, values=data.values),
        Events, steps, whole if data.values == "normalised" else None, sensor_of(recipe, about), told_by(recipe), tuple(odd),
    )  # fmt: skip


def _digits(recipe: Recipe, about: Mapping[str, Any]) -> Preparation:
    """Images of a digit, a bright stroke that fills a dark ground, before the simulated sensor of the training data. They are
    made as small as those by means of areas, as those were."""
    steps, small = _steps(recipe), cut(DIGIT, by="box")

    def stored(image: Image.Image) -> Tensor:
        return torch.from_numpy(saccade_events(small(image.convert("L")).numpy() / 255, steps=steps))[0]

    what = "images of a digit, bright on dark"
    odd = (Obstacle("its frames have ON before OFF, as the simulated sensor gives them, and a camera's OFF before ON"),)
    return Preparation(_shape(about, steps), what, ENDINGS, stored, as_frames, steps=steps, obstacles=odd)


PREPARATIONS: dict[str, Callable[[Recipe, Mapping[str, Any]], Preparation]] = {
    "digits-events": _digits,
    **{name: partial(_images, mean=spec.mean, std=spec.std) for name, spec in CIFAR.items()},
    **{name: partial(_images, mean=MEAN, std=STD) for name in ("folder", "imagenet", "tiny-imagenet")},
    **dict.fromkeys(("nmnist", "cifar10dvs", "dvsgesture", "events-folder"), _recordings),
}
"""How inputs are made for each data set of the library."""
