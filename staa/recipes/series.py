"""Recipes for time series."""

from dataclasses import replace

from staa.recipes.measured import MEASURED
from staa.recipes.parts import Data, Forecast, Loss, Model, Optim, Series
from staa.recipes.recipe import Recipe

SOURCES = {
    "spikestag": "SpikeSTAG (arXiv 2508.02069), reimplemented from its abstract",
    "ispikformer": "SeqSNN (Lv et al., ICML 2024)",
    "gru": "ours: an ordinary recurrent network to compare with",
    "linear": "ours: least squares to compare with",
    "last-value": "ours: the last value, to compare with",
}
PROTOCOLS = {
    "spikestag": "; split and normaliser of SeqSNN (ICML 2024), fitted on the training rows alone",
    "ispikformer": ", its code's settings at horizon 24; the normaliser is fitted on the training rows alone",
}
SEQSNN = {  # R² of iSpikformer at horizons 6, 24, 48, 96 in its paper
    "metr-la": (0.817, 0.618, 0.440, 0.279),
    "pems-bay": (0.879, 0.744, 0.687, 0.674),
    "solar": (0.961, 0.876, 0.795, 0.738),
    "electricity": (0.977, 0.974, 0.972, 0.963),
}
HORIZONS = (6, 24, 48, 96)
NEURON = ("seqsnn", {"threshold": 0.5})  # at SeqSNN's 1 some layers are silent at first, and a part of the weights stands still
SEQSNN_SERIES = {  # its code's files and configurations
    "metr-la": Series(window=12, train=0.7, normalise="zscore"),
    "pems-bay": Series(window=12, train=0.7, normalise="max-per-variate"),
    "solar": Series(window=168, train=0.6, normalise="max", time_features=False),  # its .txt files come without times
    "electricity": Series(window=168, train=0.6, normalise="zscore", time_features=False),
}
SPIKING = ("spikestag", "ispikformer")
ALIVE = Forecast(attention_scale=None)  # fires with few nodes and with many; SeqSNN's 0.125 not always, or always
ISPIKFORMER = {
    "metr-la": Forecast(width=256, blocks=2, encoder="delta"),
    "pems-bay": Forecast(width=512, blocks=2),
    "solar": Forecast(width=512, blocks=12),
    "electricity": Forecast(width=256, blocks=2),
}
OWN = {  # sizes that a CPU trains
    "spikestag": replace(ALIVE, width=32, patch=4, heads=2),
    "ispikformer": replace(ALIVE, width=32, heads=1),
    "gru": Forecast(width=32),
}


def benchmark_of(data: str, model: str, horizon: int) -> Recipe:
    """SeqSNN's protocol: Adam on the squared error, stopped early on validation, the best weights tested once."""
    ispikformer = model == "ispikformer"
    series = replace(SEQSNN_SERIES[data], horizon=horizon)
    return Recipe(
        name=f"{data}-{model}-{horizon}",
        summary=f"{model} on {data}, {series.window} steps in, {horizon} out",
        source=SOURCES[model] + PROTOCOLS[model],
        expect="unmeasured" + (f"; its paper R² {SEQSNN[data][HORIZONS.index(horizon)]:.3f}" if ispikformer else ""),
        data=Data(name=data, validation=0.2),
        series=series if ispikformer else replace(series, time_features=True),  # SpikeSTAG embeds them everywhere
        model=Model(name=model, steps=4, neuron="seqsnn" if ispikformer else NEURON, attention=None),
        forecast=replace(ISPIKFORMER[data] if ispikformer else replace(ALIVE, width=128, heads=2), instance_norm=True),
        loss=Loss(name="mse"),
        optim=Optim(
            name="adamw",  # Adam's steps, without weight decay
            lr=1e-4 if ispikformer else 1e-3,
            min_lr=1e-4 if ispikformer else 1e-3,
            clip=1.0,
            patience=20 if ispikformer else 30,
        ),
        epochs=1000 if ispikformer else 300,
        batch_size=32,
        weights="best",
    )


def own_series(model: str, expect: str) -> Recipe:
    """A series of one's own, and a length of training that a CPU takes."""
    trains = model not in ("linear", "last-value")
    return Recipe(
        name=f"series-{model}",
        summary=f"{model} on a series of your own, 12 steps in, 12 out",
        source=SOURCES[model],
        expect=expect,
        data=Data(name="series", validation=0.1),
        series=Series(horizon=12, season="none" if model == "last-value" else "auto"),
        model=Model(
            name=model,
            steps={"spikestag": 2, "ispikformer": 4}.get(model),
            neuron=NEURON if model in SPIKING else "seqsnn",
            attention=None,
        ),
        forecast=OWN.get(model, Forecast()),
        loss=Loss(name="mae"),
        optim=Optim(name="adamw", lr=5e-3, min_lr=1e-4, warmup_epochs=0.5, clip=1.0),
        epochs=12 if trains else 1,
        batch_size=16,
        weights="best" if trains else "last",
    )


ring_spikestag = replace(
    own_series("spikestag", MEASURED["ring-spikestag"]),
    name="ring-spikestag",
    summary="spikestag on a simulated diffusion on a ring of 6 nodes, 12 steps in, 6 out: embedded, half a minute",
    data=Data(name="ring", validation=0.1),
    series=Series(horizon=6),
    loss=Loss(name="mse"),
)
