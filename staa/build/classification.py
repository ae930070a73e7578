"""Classification: images, or frames of events, and a class for each sample."""

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from staa.attention import ATTENTIONS
from staa.build.network import check_size, with_momentum
from staa.build.records import is_whole
from staa.build.settings import settings_for
from staa.build.task import Part, Task
from staa.data import DATASETS, SERIES, Batches, Source, TimeSeries
from staa.data.augment import make_augment, make_mix
from staa.data.early import Shrink, make_shrink
from staa.files import check_bytes
from staa.forecasters import FORECASTERS
from staa.models import MODELS
from staa.neurons import LIF
from staa.parallel import ALONE, Group
from staa.recipes.options import name_of
from staa.recipes.parts import Augment, Data, Early, Model
from staa.recipes.recipe import Recipe
from staa.recipes.values import field_names
from staa.streaming import allow_fewer_steps
from staa.training.evaluate import CLASSIFICATION, Inputs, Measure, device_of, evaluation_mode
from staa.training.losses import LOSSES

PREPARATION = ("resize", "frames", "window", "values", "sensor", "upright", "fit")
"""How data are prepared, beside their size and steps."""
DATA_SETTINGS = (
    "size", "resize", "corrupt", "frames", "window", "values", "sensor", "unit", "stream", "upright", "repair", "fit", "slice",
    "split",
)  # fmt: skip


class Classification(Task[Source]):
    """Images or frames of events in, a class out.

    A data set is called with what it asks for of root, validation, steps and `DATA_SETTINGS`; a network with (num_classes, *,
    in_channels, steps, neuron, attention, sites, width), and with `size` and `residual_init` if it has parameters for them.
    """

    verb = "classify"
    figures = ("accuracy",)
    datasets, networks, losses = DATASETS, MODELS, LOSSES
    words = ("data set", "model")
    parts = (*Task.parts, "attention")

    @staticmethod
    def takes(recipe: Recipe) -> bool:
        return recipe.series.horizon is None

    @cached_property
    def read(self) -> Callable[..., Source]:
        recipe, data = self.recipe, self.recipe.data
        if data.name in SERIES:
            raise ValueError(f"{data.name} is a series: say how many steps to forecast with `series.horizon`")
        groups = ("data", data, DATA_SETTINGS), ("augment", recipe.augment, ("scale",))
        settings = settings_for(self.dataset, f"the data set {data.name}", *groups)
        asked = inspect.signature(self.dataset).parameters
        given = {"validation": data.validation, "steps": recipe.model.steps or data.steps}
        return partial(self.dataset, **settings, **{name: value for name, value in given.items() if name in asked})

    def source(self, root: Path, *, check: bool = True, about: Mapping[str, Any] | None = None) -> Source:
        more: dict[str, Any] = {"root": root} if self.needs_files else {}
        if "corrupt" in inspect.signature(self.dataset).parameters and self.recipe.data.corrupt == "refuse" and not check:
            more["corrupt"] = "unchecked"
        source = self.read(**more)
        if not isinstance(source, Source):
            hint = "; a series needs `series.horizon`" if isinstance(source, TimeSeries) else ""
            raise ValueError(f"a data set is a staa.data.Source, {self.recipe.data.name} gives a {type(source).__name__}{hint}")
        return source

    def batches(
        self, source: Source, part: Part, device: torch.device, *, workers: int, training: bool = False, group: Group = ALONE
    ) -> Batches:
        recipe, samples, a = self.recipe, getattr(source, part), self.recipe.augment
        augment = mix = shrink = None
        slow = not isinstance(samples.x, Tensor)
        if training:
            one_by_one = a.policy is not None or a.jitter > 0
            if one_by_one and source.channels != 3:
                raise ValueError(
                    f"`augment.policy` and `augment.jitter` are for colour images; {recipe.data.name} has {source.channels} "
                    f"channels"
                )
            if a.events is not None and (source.channels == 3 or (isinstance(samples.x, Tensor) and samples.x.ndim != 5)):
                raise ValueError(f"`augment.events` is for event frames, [T, 2, H, W] a sample; {recipe.data.name} has images")
            if max(a.shift, a.cutout) > source.size:
                raise ValueError(
                    f"`augment.shift` and `augment.cutout` can't exceed the images' {source.size} pixels, got {a.shift} and "
                    f"{a.cutout}"
                )
            augment = make_augment(
                shift=a.shift,
                flip=a.flip,
                policy=a.policy,
                magnitude=a.magnitude,
                jitter=a.jitter,
                events=a.events,
                cutout=a.cutout,
            )
            mix = make_mix(
                classes=source.classes,
                mixup=a.mixup,
                cutmix=a.cutmix,
                probability=a.mix_probability,
                whole_epochs=a.mix_epochs,
                hard=a.mix_hard,
            )
            slow = slow or one_by_one
            shrink = self._shrink(source, recipe.steps(max(1, len(samples) // recipe.batch_size)))
        return Batches(
            samples,
            recipe.batch_size,
            prepare=source.prepare,
            augment=augment,
            mix=mix,
            shrink=shrink,
            seed=recipe.seed if training else None,
            device=device,
            workers=workers if slow else None,
            group=group,
            pieces=recipe.optim.accumulate,
        )

    def take(self, source: Source, part: Part, chosen: Tensor, device: torch.device) -> tuple[Inputs, Tensor]:
        samples = getattr(source, part)
        x, y = source.prepare(samples.take(chosen).to(device)), samples.y[chosen].to(device)
        mixed = self.recipe.augment.mixup or self.recipe.augment.cutmix
        return x, F.one_hot(y, source.classes).float() if mixed else y

    @cached_property
    def backbone(self) -> Callable[..., nn.Module]:
        config = self.recipe.model
        name = name_of(config.name)
        if name in FORECASTERS:
            raise ValueError(f"{name} is a forecaster: say how many steps to forecast with `series.horizon`")
        model = self.named("model.name")
        settings = settings_for(model, f"the model {name}", ("model", config, ("residual_init",)))
        return partial(model, steps=config.steps, sites=config.sites, width=config.width, **settings)

    @cached_property
    def attention(self) -> Callable[..., nn.Module] | None:
        return None if self.recipe.model.attention is None else self.named("model.attention")

    def network(
        self, facts: Mapping[str, Any], *, source: Source | None = None, state: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """As `Task.network`; channels_last."""
        config, channels, size = self.recipe.model, facts["channels"], facts["size"]
        model = partial(self.backbone, facts["classes"], in_channels=channels)
        if "size" in inspect.signature(model).parameters:  # its readout depends on the input's size
            model = partial(model, size=size)
        check_bytes(4 * (config.steps or 1) * channels * size * size, "one input of the recipe's sizes")
        neuron, attention = self.neuron, self.attention
        if name_of(config.name) in MODELS:  # one of the user's own is not called twice
            known = config.attention is not None and name_of(config.attention) in ATTENTIONS
            check_size(partial(model, neuron=LIF, attention=attention if known else None), state)
        try:
            built = model(neuron=neuron, attention=attention)
        except (TypeError, AttributeError, OverflowError) as error:  # what a function of one's own raises when called otherwise
            raise ValueError(
                f"the network can't be built ({type(error).__name__}: {error}); a model is called with (num_classes, *, "
                f"in_channels, steps, neuron, attention, sites, width), a neuron with (channels), attention with (steps, "
                f"channels)"
            ) from error
        return with_momentum(built, config.norm_momentum).to(memory_format=torch.channels_last)

    def measure(self, source: Source, device: torch.device) -> Measure:
        return CLASSIFICATION

    def tested(self, source: Source) -> str:
        test, content = source.test, source.content
        files = [os.path.basename(file) for file in test.origin() or ()]
        digest = hashlib.sha256(test.y.to(torch.int64).cpu().numpy().tobytes())
        digest.update(repr((source.names, files, content and content.sha256)).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def conditions(self) -> dict[str, Any]:
        recipe, asked = self.recipe, inspect.signature(self.dataset).parameters
        names = sorted(self.settings()["data"] - {"name", "corrupt"})
        frames = {"model.steps": recipe.model.steps} if "steps" in asked else {}  # of still images each step sees the same
        return {"protocol": recipe.protocol} | {f"data.{name}": getattr(recipe.data, name) for name in names} | frames

    def like(self, other: Recipe, about: Mapping[str, Any]) -> Recipe:
        asked, plain, its = inspect.signature(self.dataset).parameters, Data(), other.data
        known = set(inspect.signature(DATASETS[its.name]).parameters) if its.name in DATASETS else set()
        names = [n for n in PREPARATION if n in asked and (n in known or getattr(its, n) != getattr(plain, n))]
        changes = {name: getattr(its, name) for name in names if name != "sensor" or its.sensor is not None}
        if "size" in asked and (its.name, its.size) != (self.recipe.data.name, self.recipe.data.size):
            changes["size"] = about["size"]
        changes["steps"] = its.steps if other.model.steps is None and "steps" in asked else None
        return replace(self.recipe, model=other.model, data=replace(self.recipe.data, **changes))

    def odd_facts(self, about: Mapping[str, Any]) -> list[str]:
        odd = [name for name in ("classes", "channels", "size") if not is_whole(about.get(name), 1)]
        names = about.get("names")
        listed = isinstance(names, list) and len(names) == about.get("classes") and all(isinstance(n, str) for n in names)
        return odd if listed or names is None else [*odd, "names"]

    def own_weights(self, *, same: bool) -> dict[str, str]:
        return {} if same else {"readout": "of other classes"}

    def odd_settings(self) -> list[str]:
        name, odd = self.recipe.data.name, []
        for part, values in (("series", self.recipe.series), ("forecast", self.recipe.forecast)):
            odd += [f"`{part}.{key}={value}`" for key, value in vars(values).items() if value != getattr(type(values)(), key)]
        told = (
            f"{name} is not forecast, so it takes no {', '.join(odd)}: remove it, or say how far to forecast (`series.horizon`)"
        )
        return [told] if odd else []

    def settings(self) -> dict[str, set[str]]:
        asked, model = (set(inspect.signature(f).parameters) for f in (self.dataset, self.backbone))
        frames = "steps" in asked  # else it has still images, which are the same at each step
        alien = {"policy", "magnitude", "jitter"} if frames else {"events"}
        return {
            "data": {"name"} | (field_names(Data) & asked - (set() if self.recipe.model.steps is None else {"steps"})),
            "augment": field_names(Augment) - ({"scale"} - asked) - alien,
            "model": field_names(Model) - ({"residual_init"} - model),
            "early": set() if frames else field_names(Early),
        }

    def counts_events(self, source: Source) -> bool:
        return source.channels == 2 and self.recipe.data.values != "normalised"

    def check_early(self, source: Source, model: nn.Module) -> None:
        """Tries on the network what the recipe makes smaller early in training, and lets it have fewer steps if it says so.

        Raises ValueError if these data or this network have no such form.
        """
        shrink = self._shrink(source, total := 10_000)
        if shrink is None:
            return
        early = self.recipe.early
        x = cast(Tensor, self.take(source, "train", torch.tensor([0]), device_of(model))[0])
        if x.ndim != 4:
            raise ValueError(
                f"`early.steps` and `early.size` are for still images, repeated at each step; {self.recipe.data.name} has a "
                f"frame for each: leave them out"
            )
        if early.steps is not None:
            try:
                allow_fewer_steps(model)
            except ValueError as error:
                raise ValueError(
                    f"`early.steps` needs a network in which no step sees a later one ({error}): leave it out, or take another "
                    f"attention, such as `model.attention=gc-pe`"
                ) from error
        for small in (shrink(x, k) for k in shrink.changes() if k < total):
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]), evaluation_mode(model):
                    model(small)
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f"the network can't take what `early.steps` and `early.size` make of an image, {list(small.shape)}: "
                    f"{str(error).splitlines()[0]}"
                ) from error

    def _shrink(self, source: Source, total: int) -> Shrink | None:
        early = self.recipe.early
        return make_shrink(
            total=total,
            full=source.size,
            steps=early.steps,
            steps_share=early.steps_share,
            size=early.size,
            size_share=early.size_share,
            size_stages=early.size_stages,
        )
