"""What a network attends to: where, when, which channels, and how much its neurons leak."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staa.analysis.record import record
from staa.analysis.report.layered import WIDTH, figure, heat, numpy, png, rugs, samples_in, some, some_of, steps
from staa.analysis.report.learned import encodings, leak_and_gain
from staa.analysis.report.maps import maps_beside
from staa.analysis.report.parts import Part, Picture, Section
from staa.forecasters.parts import SpikingAttention
from staa.layers import Site
from staa.runs.load import Run, Weights
from staa.training.evaluate import Inputs

TITLE = "Attention"
NONE = "This model has no attention."
AVERAGED = 8  # samples that gates are averaged over, at most
AT_ONCE = 2  # samples in a call
WORDS = {"softmax", "gate", "time_gate", "channel_gate", "local_gate", "global_gate", "scores"}


def attention(
    run: Run, inputs: Inputs | None = None, labels: Sequence[object] | None = None, *, weights: Weights | None = None
) -> Section:
    """Maps beside the input, gates over time and channels, position encodings, and what neurons have learned of leak and gain.

    Args:
        run: A run with weights.
        inputs: Some samples, at least 8 if there are, as the model is called with them: images [N, C, H, W], frames [T, N, C,
            H, W], or a forecaster's (windows [B, L, K], time features, …). Gates are averaged over the first 8, maps are of the
            first two. None: there are none; what needs no sample is shown, and the section says what is missing.
        labels: Names of the samples' classes, for the titles of the maps.
        weights: "last" epoch or "best" on validation; None: what the test figure was measured with.
    """
    model = run.model(weights)
    attends = any(_attends(module) for module in model.modules())
    parts: list[Part] = [] if attends else [NONE]
    if attends and (inputs is None or samples_in(inputs, model) == 0):
        parts.append("Gates and maps are missing: they need samples of the run's data.")
    elif attends and inputs is not None:
        x, *_ = some_of(inputs, slice(0, AVERAGED), model)
        parts += _of_samples(gates(model, inputs), x, labels)
    return Section(TITLE, [*parts, *encodings(model), *leak_and_gain(model)])


def gates(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """What `staa.record` tells of attention for the first 8 samples, two at once, since it keeps membranes too.

    Args:
        model: The network.
        inputs: Samples, as `attention` takes them.

    Shapes:
        each [T, N, ...], but for scores, [T, N · groups of a sample, ...]
    """
    pieces: list[dict[str, Tensor]] = []
    for begin in range(0, min(AVERAGED, samples_in(inputs, model)), AT_ONCE):
        seen = record(model, *some_of(inputs, slice(begin, min(begin + AT_ONCE, AVERAGED)), model))
        pieces.append({key: value for key, value in seen.items() if key.rpartition(".")[2] in WORDS})
    return {key: torch.cat([piece[key] for piece in pieces], 1) for key in pieces[0]}


def _attends(module: nn.Module) -> bool:
    return isinstance(module, SpikingAttention) or (isinstance(module, Site) and module.attention is not None)


def _of_samples(seen: Mapping[str, Tensor], x: Tensor, labels: Sequence[object] | None) -> list[Part]:
    ratios = {name: a * a[0, 0].numel() for name, a in _find(seen, "softmax").items()}  # 1 if all places count alike
    found = _find(seen, "gate")
    graded = {name: gate.mean(2) for name, gate in found.items() if gate.ndim == 5}
    by_step = {name: gate[..., 0] for name, gate in found.items() if gate.ndim == 3 and gate.shape[2] == 1}
    by_channel = {name: gate for name, gate in found.items() if gate.ndim == 3 and gate.shape[2] > 1}
    parts: list[Part] = [
        *maps_beside(_short(ratios), x, labels, what="Where the global context looks, in times an even share", shares=True),
        *maps_beside(_short(graded), x, labels, what="Gate of each place, mean over channels"),
    ]
    if by_step:
        parts.append(_step_gates({name: numpy(gate.mean(1)) for name, gate in _short(by_step).items()}))
    if by_channel:
        parts.append(_channel_gates({name: numpy(gate.mean((0, 1))) for name, gate in _short(by_channel).items()}))
    parts += _dta(seen)
    parts += [_scores(name, scores) for name, scores in _find(seen, "scores").items()]
    return parts or ["This attention tells no gates; one of your own does by staa.layers.note(self, gate=gate)."]


def _find(seen: Mapping[str, Tensor], word: str) -> dict[str, Tensor]:
    """What is called so, by the name of the module that told it."""
    keys = {key: key.rpartition(".") for key in seen}
    return {name: seen[key] for key, (name, _, last) in keys.items() if last == word}


def _short(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names of the layers, unless a layer has two of them."""
    short = [name.split(".attention")[0] or name for name in found]
    return dict(zip(short if len({*short}) == len(short) else found, found.values(), strict=True))


def _extremes(rows: Mapping[str, np.ndarray]) -> str:
    """Such as "from 0.61 (stages.0.1, step 3) to 0.93 (stages.1.1, step 1)" of values by layer and step."""
    cells = [(float(value), name, t + 1) for name, values in rows.items() for t, value in enumerate(values)]
    (low, *where), (high, *there) = min(cells), max(cells)
    return f"from {low:.3g} ({where[0]}, step {where[1]}) to {high:.3g} ({there[0]}, step {there[1]})"


def _step_gates(rows: Mapping[str, np.ndarray]) -> Picture:
    close = np.ptp(np.stack([*rows.values()])) < 0.1
    return png(
        heat(rows, what="gate", form=".3f" if close else ".2f"),
        f"Gates of time steps, which multiply the current of a whole step: mean over up to {AVERAGED} samples. 1 leaves the "
        f"current as it is, 0 shuts it.",
        f"Gates of {len(rows)} layers are {_extremes(rows)}.",
    )


def _channel_gates(rows: Mapping[str, np.ndarray]) -> Picture:
    low, high = min(rows, key=lambda name: rows[name].min()), max(rows, key=lambda name: rows[name].max())
    wide = max(rows, key=lambda name: np.ptp(rows[name]))
    return png(
        rugs({"gate of a channel": rows}),
        f"Gates of channels, which multiply the current of a channel: each stroke is a channel, the dot the median. Mean over "
        f"steps and up to {AVERAGED} samples.",
        f"Channel gates from {rows[low].min():.3g} (in {low}) to {rows[high].max():.3g} (in {high}); they differ most in "
        f"{wide}, by {np.ptp(rows[wide]):.2g}.",
    )


def _dta(seen: Mapping[str, Tensor]) -> list[Part]:
    """T-XA's and T-NA's gates as maps of steps and channels."""
    known = {
        "time_gate": "T-XA over time",
        "channel_gate": "T-XA over channels",
        "local_gate": "T-NA, local (mean over space)",
        "global_gate": "T-NA, global",
    }
    found: dict[str, dict[str, np.ndarray]] = {}
    for word, title in known.items():
        for name, gate in _find(seen, word).items():
            mean = gate.mean(1)  # [T, C, ...]
            found.setdefault(name.split(".attention")[0] or name, {})[title] = numpy(
                mean.flatten(2).mean(2) if mean.ndim > 2 else mean
            )
    return [_panels(layer, panels) for layer, panels in found.items()]


def _panels(layer: str, panels: Mapping[str, np.ndarray]) -> Picture:
    made, axes = figure(0.5 + 1.35 * len(panels), len(panels), 1, sharex=True)
    for axis, (title, values) in zip(axes[:, 0], panels.items(), strict=True):
        signed = values.min() < 0
        most = np.abs(values).max()
        limits: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -most, "vmax": most} if signed else {"cmap": "viridis"}
        image = axis.imshow(values.T, aspect="auto", interpolation="none", **limits)
        axis.set_title(title, fontsize=9)
        axis.set_ylabel("channel", fontsize=9)
        axis.set_yticks(some(values.shape[1], 3))
        made.colorbar(image, ax=axis, aspect=12, pad=0.02).ax.tick_params(labelsize=8)
    steps(axes[-1, 0], len(values))
    told = "; ".join(f"{title}: {v.min():.3g} to {v.max():.3g}, mean {v.mean():.3g}" for title, v in panels.items())
    return png(
        made,
        f"DTA's two looks at the current of {layer}, by step and channel, mean over up to {AVERAGED} samples. Those of T-XA "
        f"are sigmoids, those of T-NA factors of any size and sign.",
        f"Heat maps of steps by channels. {told}.",
    )


def _scores(name: str, scores: Tensor) -> Picture:
    """How many spikes the queries and keys of tokens share: scores [T, groups, heads, S, S]."""
    mean = numpy(scores.mean((0, 1)))
    shown = some(len(mean), 4)
    made, axes = figure(WIDTH / max(len(shown), 2) + 0.5, 1, len(shown), sharey=True)
    for axis, head in zip(axes[0], shown, strict=True):
        image = axis.imshow(mean[head], cmap="viridis", vmin=0, vmax=mean.max() or 1, interpolation="none")
        axis.set_title(f"head {head + 1}", fontsize=9)
        axis.set_xlabel("key", fontsize=9)
        for ticks in (axis.set_xticks, axis.set_yticks):
            ticks(some(mean.shape[1], 3), [str(k + 1) for k in some(mean.shape[1], 3)])
    axes[0, 0].set_ylabel("query", fontsize=9)
    made.colorbar(image, ax=axes[0], shrink=0.7, aspect=15).ax.tick_params(labelsize=8)
    busy = int(mean.mean((1, 2)).argmax())
    return png(
        made,
        f"Spiking self-attention, {name}: how many spikes the query of a token shares with the key of another, mean over steps "
        f"and samples. Tokens are patches of a node, or nodes; {len(shown)} of {len(mean)} heads.",
        f"{len(mean)} heads of {mean.shape[1]} × {mean.shape[2]} tokens: from {mean.min():.2g} to {mean.max():.2g} shared "
        f"spikes, most in head {busy + 1} (mean {mean[busy].mean():.2g}).",
    )
