"""What a network's layers have learned and no sample is needed to see: position encodings, leak and gain."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from staa.analysis.report.layered import LAYERS, figure, numpy, png, rugs, some, steps
from staa.analysis.report.parts import Picture
from staa.attention import PositionEncoding
from staa.rates import fires
from staa.text import for_figure

DECAY, GAIN = "decay, the share kept", "gain"


def encodings(model: nn.Module) -> list[Picture]:
    """Position encodings of some layers, by step and channel; none if there are none."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, PositionEncoding)}
    if not found:
        return []
    names = [[*found][k] for k in some(len(found), LAYERS)]
    values = {name.removesuffix(".position").removesuffix(".attention"): numpy(found[name].encoding) for name in names}
    most = max(np.abs(v).max() for v in values.values())
    made, axes = figure(0.6 + 1.35 * len(values), len(values), 1, sharex=True)
    for axis, (name, encoding) in zip(axes[:, 0], values.items(), strict=True):
        image = axis.imshow(encoding.T, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="none")
        axis.set_title(for_figure(name), fontsize=9)
        axis.set_ylabel("channel", fontsize=9)
        axis.set_yticks(some(encoding.shape[1], 3))
    steps(axes[-1, 0], len(encoding))
    made.colorbar(image, ax=axes[:, 0], aspect=30, pad=0.02).ax.tick_params(labelsize=8)
    told = "; ".join(f"{name}: {v.min():.2g} to {v.max():.2g}, deviation {v.std():.2g}" for name, v in values.items())
    caption = (
        f"Position encoding, which is added to the current: a value for each step and channel, learned. {len(values)} of "
        f"{len(found)} layers; red adds, blue takes away."
    )
    return [png(made, caption, f"Heat maps of steps by channels. {told}.")]


def leak_and_gain(model: nn.Module) -> list[Picture]:
    """Decay and gain by layer, as far as neurons learn them; none if they learn neither."""
    panels: dict[str, dict[str, np.ndarray]] = {DECAY: {}, GAIN: {}}
    for name, module in model.named_modules():
        for title, value in _learned(module).items() if fires(module) else ():
            panels[title][name.removesuffix(".neuron")] = numpy(value).reshape(-1)
    panels = {title: rows for title, rows in panels.items() if rows}
    if not panels:
        return []
    told = "; ".join(f"{title}: {_ends(rows)}" for title, rows in panels.items())
    caption = (
        "What the neurons have learned: decay, the share of the membrane that a step keeps, and gain, the factor of the "
        "current. Each stroke is a channel, or the whole layer; the dot is the median."
    )
    return [png(rugs(panels), caption, f"Learned values by layer. {told}.")]


def _learned(neuron: Any) -> dict[str, Tensor]:
    decay, gain = (getattr(neuron, name, None) for name in ("decay", "gain"))
    if isinstance(logit := getattr(neuron, "decay_logit", None), Tensor):  # ParametricLIF's
        decay = logit.sigmoid()
        gain = 1 - decay if gain is None else gain
    return {title: value for title, value in ((DECAY, decay), (GAIN, gain)) if isinstance(value, Tensor)}


def _ends(rows: dict[str, np.ndarray]) -> str:
    """Such as "0.1 (stages.0.3) to 1 (stages.3.1)", the least and the largest value of all layers."""
    low, high = min((v.min(), name) for name, v in rows.items()), max((v.max(), name) for name, v in rows.items())
    return f"{low[0]:.3g} ({low[1]}) to {high[0]:.3g} ({high[1]})"
