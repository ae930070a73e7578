"""Forecasting: windows of a time series of several nodes, and the steps that follow."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from staa.build.network import check_size, with_momentum
from staa.build.records import is_number, is_real, is_whole
from staa.build.settings import settings_for
from staa.build.task import Part, Task
from staa.build.trivial import SEASONS, best_season, in_season, naive_error, trivial_figures
from staa.data import SERIES, SeriesSource, TimeSeries, WindowBatches, forecast_source
from staa.data.series.season import NO_CLOCK
from staa.files import check_bytes
from staa.forecasters import FORECASTERS, ClosedForm
from staa.forecasters.seasonal import DAYS, Seasonal, forecaster_of
from staa.neurons import LIF
from staa.parallel import ALONE, Group
from staa.recipes.options import name_of, options_of
from staa.recipes.parts import Augment, Data, Forecast, Model, Series
from staa.recipes.reading import Reading
from staa.recipes.recipe import Recipe
from staa.recipes.values import field_names
from staa.training.evaluate import Epochs, Inputs, Measure
from staa.training.losses import FORECAST_LOSSES
from staa.training.metrics import forecast_figures, forecast_figures_by_horizon, forecast_sums


class Forecasting(Task[SeriesSource]):
    """A window of a series in, the steps that follow out.

    A series is called with what it asks for of root, graph, distances and time; a forecaster with (nodes, window, horizon, *,
    time_features) and with those of the recipe's forecast, of steps, neuron and residual_init, that it has parameters for.
    """

    verb = "forecast"
    figures = ("mae", "rmse", "mape", "r2", "rse")
    datasets, networks, losses = SERIES, FORECASTERS, FORECAST_LOSSES
    words = ("series", "forecaster")

    @staticmethod
    def takes(recipe: Recipe) -> bool:
        return recipe.series.horizon is not None

    @cached_property
    def read(self) -> Callable[..., TimeSeries]:
        recipe, s = self.recipe, self.recipe.series
        if recipe.folder and s.graph is not None:
            s = replace(s, graph=str(Path(recipe.folder, s.graph)))  # a shared run has its own beside it
        for part, default, what in (
            (recipe.augment, Augment(), "augment"),
            (replace(recipe.data, name="", validation=0.0), Data(name="", validation=0.0), "data"),
        ):
            if part != default:
                raise ValueError(f"a forecast takes no settings of {what} but the data's name and validation; leave them out")
        names = field_names(Reading)
        return partial(self.dataset, **settings_for(self.dataset, f"the series {recipe.data.name}", ("series", s, names)))

    def series(self, root: Path) -> TimeSeries:
        """The recipe's series, in its own units.

        Args:
            root: File of the series, or folder of published ones, for series in files.
        """
        recipe, read = self.recipe, self.read
        if self.needs_files:
            read = partial(read, root=root)
        elif root.is_file():
            own = f"series-{name_of(recipe.model.name)}"
            raise ValueError(f"{recipe.data.name} takes no file; a series of your own is trained by {own}")
        try:
            series = read()
        except FileNotFoundError as error:
            if root.exists() or not self.needs_files or "`data_root`" in str(error):
                raise
            raise FileNotFoundError(f"{error}; name it with `data_root`") from error
        if not isinstance(series, TimeSeries):
            raise ValueError(f"a series is a staa.data.TimeSeries, {recipe.data.name} gives a {type(series).__name__}")
        return series

    def source(self, root: Path, *, check: bool = True, about: Mapping[str, Any] | None = None) -> SeriesSource:
        recipe, s = self.recipe, self.recipe.series
        source = forecast_source(
            self.series(root),
            window=s.window,
            horizon=s.horizon or 1,
            train=s.train,
            validation=recipe.data.validation,
            normalise=s.normalise,
            fit_on=s.fit_on,
            transform=s.transform,
            nonnegative=s.nonnegative,
            gaps=s.gaps,
            time_features=s.time_features,
            period=s.period,
            phases=s.season != "none" or recipe.forecast.day_embedding,
        )
        if s.season != "auto":
            return source.with_season(s.season)
        recorded = (about or {}).get("season")
        return source.with_season(recorded) if recorded in SEASONS else best_season(source)

    def batches(
        self,
        source: SeriesSource,
        part: Part,
        device: torch.device,
        *,
        workers: int,
        training: bool = False,
        group: Group = ALONE,
    ) -> WindowBatches:
        seed, pieces = self.recipe.seed if training else None, self.recipe.optim.accumulate
        return WindowBatches(source, part, self.recipe.batch_size, seed=seed, device=device, group=group, pieces=pieces)

    def take(self, source: SeriesSource, part: Part, chosen: Tensor, device: torch.device) -> tuple[Inputs, Tensor]:
        return WindowBatches(source, part, 1, device=device).take(chosen)

    @cached_property
    def backbone(self) -> Callable[..., nn.Module]:
        config, own = self.recipe.model, self.recipe.forecast
        if config.attention is not None or config.sites is not None or config.width != 1:
            raise ValueError(
                "a forecaster has its own attention and width: `model.attention` and `model.sites` must be None and "
                "`model.width` 1; `forecast.width` is the features'"
            )
        forecaster = self.named("model.name")
        asked = inspect.signature(forecaster).parameters
        known = {f.name for f in fields(own)} - ({"day_embedding"} if "day_slots" in asked else set())
        if own.instance_norm and "instance_norm" not in asked:  # the default once: old runs of all forecasters have it
            known -= {"instance_norm"}
        groups = ("forecast", own, known), ("model", config, ["residual_init"])
        settings = settings_for(forecaster, f"the forecaster {name_of(config.name)}", *groups)
        if "steps" in asked:
            if config.steps is None:
                raise ValueError(f"the forecaster {name_of(config.name)} needs a number of steps: set `model.steps`, such as 4")
            settings["steps"] = config.steps
        return partial(forecaster, **settings)

    def network(
        self, facts: Mapping[str, Any], *, source: SeriesSource | None = None, state: Mapping[str, Any] | None = None
    ) -> nn.Module:
        """As `Task.network`. A graph that is given is the data's; without data, one of its size stands for it."""
        name, nodes = name_of(self.recipe.model.name), facts["nodes"]
        model = partial(self.backbone, nodes, facts["window"], facts["horizon"], time_features=facts["features"])
        asked = inspect.signature(self.backbone).parameters
        if self.recipe.forecast.day_embedding:
            if facts.get("clock") is None:
                raise ValueError(f"`forecast.day_embedding` needs to know what a day is: {NO_CLOCK}")
            model = partial(model, day_slots=facts["clock"][0])
        if self.recipe.forecast.instance_norm is None and "instance_norm" in asked:
            model = partial(model, instance_norm=DAYS.get(facts.get("season", "none"), 1) == 1)
        neuron = {"neuron": self.neuron} if "neuron" in asked else {}
        own = name in FORECASTERS
        with_graph = self.recipe.forecast.graph == "given" and "graph" in asked
        if with_graph and source is not None and source.graph is None:
            raise ValueError(
                f"{self.recipe.data.name} has no graph to be given: name its file with `series.graph`, or take another"
            )
        if with_graph:
            check_bytes(4 * nodes * nodes, "the graph")
        if own:
            plain = partial(model, **({"neuron": LIF} if neuron else {}), **({"graph": "adaptive"} if with_graph else {}))
            check_size(lambda: in_season(plain(), facts), None if with_graph else state)
        if with_graph:
            model = partial(model, graph=torch.eye(nodes) if source is None else source.graph)
        try:
            network = with_momentum(model(**neuron), self.recipe.model.norm_momentum)
        except (TypeError, AttributeError) as error:  # what a function of one's own raises when called otherwise
            raise ValueError(
                f"the forecaster can't be built ({type(error).__name__}: {error}); it is called with (nodes, window, horizon, "
                f"*, time_features) and the settings it has parameters for, a neuron with (channels) and (channels, "
                f"threshold=0.5)"
            ) from error
        return in_season(network, facts, source)

    def measure(self, source: SeriesSource, device: torch.device) -> Measure:
        """The errors of a forecast, in the series' own units."""
        recipe = self.recipe
        fitted = "the training rows" if recipe.series.fit_on == "train" else "all rows"
        normaliser, naive = source.normaliser, naive_error(source)
        offset, scale = normaliser.offset.to(device), normaliser.scale.to(device)
        how = {"log1p": normaliser.transform == "log1p", "nonnegative": normaliser.nonnegative}
        return Measure(
            partial(forecast_sums, offset=offset, scale=scale, missing=source.missing, **how),
            partial(forecast_figures, loss="mae" if name_of(recipe.loss.name) == "mae" else "mse", naive=naive),
            score=lambda figures: -figures["loss"],
            details=lambda sums: {
                "normaliser": f"{recipe.series.normalise} of {fitted}" + (", after log1p" if how["log1p"] else ""),
                "horizons": forecast_figures_by_horizon(sums, naive=naive),
            },
        )

    def tested(self, source: SeriesSource) -> str:
        return source.tested

    def conditions(self) -> dict[str, Any]:
        series = self.recipe.series
        told = {f"series.{name}": getattr(series, name) for name in ("window", "train", "fit_on", "gaps")}
        return {"data.validation": self.recipe.data.validation, **told}

    def like(self, other: Recipe, about: Mapping[str, Any]) -> Recipe:
        changes = {name: getattr(other.series, name) for name in ("window", "horizon", "normalise", "transform", "season")}
        if changes["season"] == "auto":
            changes["season"] = about.get("season", "auto")
        changes["time_features"] = about["features"] > 0
        return replace(self.recipe, model=other.model, forecast=other.forecast, series=replace(self.recipe.series, **changes))

    def odd_facts(self, about: Mapping[str, Any]) -> list[str]:
        names, every, count = about.get("names"), about.get("every"), about.get("nodes")
        odd = [name for name in ("nodes", "window", "horizon") if not is_whole(about.get(name), 1)]
        odd += [] if _is_clock(about.get("clock")) else ["clock"]
        odd += [] if about.get("season", None if about.get("clock") else "none") in SEASONS else ["season"]
        odd += [] if is_whole(about.get("features"), 0) else ["features"]
        if not (isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)):
            odd.append("names")
        if not (every is None or (is_number(every) and every > 0)):
            odd.append("every")
        for name in ("offset", "scale"):
            values = about.get(name)
            fine = isinstance(values, list) and len(values) == count and all(is_number(v) for v in values)
            if not (fine and (name == "offset" or min(values or [1]) > 0)):
                odd.append(name)
        return odd

    def told_facts(self) -> dict[str, Any]:
        return {"window": self.recipe.series.window, "horizon": self.recipe.series.horizon}

    def odd_details(self, result: Mapping[str, Any]) -> list[str]:
        curve = result.get("horizons", [])
        points = curve if isinstance(curve, list) and all(isinstance(point, dict) for point in curve) else [{}]
        fine = all(is_real(point.get(key)) for point in points for key in ("step", "mae", "rmse", "r2"))
        return ([] if fine else ["horizons"]) + ([] if _are_baselines(result.get("baselines", {})) else ["baselines"])

    def own_weights(self, *, same: bool) -> dict[str, str]:
        others = dict.fromkeys(("node", "neighbour", "day.node"), "of other variates")
        own = {"graph": "the data's own"} | ({} if same else others)
        return own | {f"forecaster.{name}": why for name, why in own.items()} | {"profile": "the data's own"}

    def odd_settings(self) -> list[str]:
        model = self.recipe.model
        if "neuron" in inspect.signature(self.backbone).parameters or not (odd := options_of(model.neuron)):
            return []
        told = ", ".join(f"`model.neuron.{name}={value}`" for name, value in odd.items())
        return [f"{name_of(model.name)} has no spiking neuron, so it takes no {told}: remove it"]

    def settings(self) -> dict[str, set[str]]:
        asked, model = (set(inspect.signature(f).parameters) for f in (self.dataset, self.backbone))
        return {
            "": field_names(Recipe) - {"protocol"},
            "data": {"name", "validation"},
            "series": field_names(Series) & (asked | set(inspect.signature(forecast_source).parameters)),
            "model": {"name", "norm_momentum"} | (field_names(Model) & model - field_names(Forecast)),
            "forecast": field_names(Forecast) & (model | ({"day_embedding"} if "day_slots" in model else set())),
        }

    def norm_values(self, source: SeriesSource) -> int:
        return len(source.names)

    def fit(self, model: nn.Module, batches: Epochs) -> None:
        if isinstance(forecaster_of(model), ClosedForm):
            rows = batches.epoch()
            forecaster_of(model).fit(model.rest(rows) if isinstance(model, Seasonal) else rows)

    def beside(self, source: SeriesSource, measure: Measure) -> dict[str, Any]:
        """What trivial forecasts reach on the same windows (`staa.build.trivial`)."""
        return {"baselines": trivial_figures(source, measure)}


def _is_clock(told: Any) -> bool:
    """Slots of a day, seconds of one or None, and the time of the first row or None; or no clock."""
    if told is None:
        return True
    if not (isinstance(told, list) and len(told) == 3 and is_whole(told[0], 1)):
        return False
    seconds, first = told[1:]
    return (seconds is None or (is_number(seconds) and seconds > 0)) and (first is None or isinstance(first, str))


def _are_baselines(told: Any) -> bool:
    if not isinstance(told, dict):
        return False
    for figures in (figures for figures in told.values() if figures is not None):
        if not isinstance(figures, dict) or "mae" not in figures:
            return False
        steps = figures.get("mae_by_step")
        if not isinstance(steps, list) or not all(map(is_real, [*steps, *(v for v in figures.values() if v is not steps)])):
            return False
    return True
