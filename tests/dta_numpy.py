"""DTA-SNN's whole MS-ResNet-18 in numpy and float64, from its equations.

`python tests/dta_numpy.py` writes golden/dta_spikes.json. Arrays are [T, N, C, H, W]; p holds weights by the names that staa
gives them. Nothing of staa is used.

    X = BN(conv(image));  S = LIF(X);  u = block(X, S)
    u = BN(conv(LIF(BN(conv(LIF(u)))))) + shortcut(u)           eight times; shortcut u, or BN(conv 1×1(u))
    logits[t] = Linear(mean over H, W of LIF(u))
    LIF: v[t] = h[t−1] / 2 + u[t];  s[t] = v[t] > 1;  h[t] = v[t] (1 − s[t])
"""

import json
import math
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "dta_spikes.json"
STAGES = ((128, 3, 1), (256, 3, 2), (512, 2, 2))  # channels, blocks, stride of the first
CASES = [{"seed": seed, "steps": steps, "training": training} for seed, steps in ((0, 4), (1, 1)) for training in (False, True)]
IMAGES, SIDE, CLASSES = 2, 8, 10


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def slide(signal, weight, before):
    """signal [inputs, length], weight [outputs, inputs, k]: zeros outside, `before` of them in front."""
    outputs, _, k = weight.shape
    length = signal.shape[1]
    padded = np.zeros((signal.shape[0], length + k))
    padded[:, before : before + length] = signal
    return np.array([[(weight[o] * padded[:, i : i + k]).sum() for i in range(length)] for o in range(outputs)])


def depthwise(image, weight, bias, dilation):
    """image [D, H, W], weight [D, k, k]."""
    reach = dilation * (weight.shape[1] - 1) // 2
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros_like(image)
    for i in range(weight.shape[1]):
        for j in range(weight.shape[2]):
            piece = padded[:, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            out += weight[:, i, j, None, None] * piece
    return out + bias[:, None, None]


def pointwise(image, weight, bias):
    return np.einsum("oi,ihw->ohw", weight, image) + bias[:, None, None]


def block_in_numpy(p, x, spikes, dilation):
    """One sample: x and spikes [T, C, H, W], p: state dict as numpy."""
    steps, channels, height, width = x.shape
    m = x.mean((2, 3))
    a_t = sigmoid(slide(m, p["crossed.over_channels.weight"], 1))
    a_c = sigmoid(slide(m.T, p["crossed.over_time.weight"], 2)).T
    y_xa = (x + p["crossed.time_gain"] * a_t[..., None, None]) * (x + p["crossed.channel_gain"] * a_c[..., None, None])
    z = x.reshape(steps * channels, height, width)
    e = gelu(pointwise(z, p["merged.embed.weight"][:, :, 0, 0], p["merged.embed.bias"]))
    local = depthwise(e, p["merged.ltca.0.weight"][:, 0], p["merged.ltca.0.bias"], 1)
    local = depthwise(local, p["merged.ltca.1.weight"][:, 0], p["merged.ltca.1.bias"], dilation)
    local = pointwise(local, p["merged.ltca.2.weight"][:, :, 0, 0], p["merged.ltca.2.bias"])
    wide = p["merged.gtca.2.weight"] @ np.maximum(p["merged.gtca.0.weight"] @ e.mean((1, 2)), 0)
    attended = wide[:, None, None] * local * e
    y_na = pointwise(attended, p["merged.project.weight"][:, :, 0, 0], p["merged.project.bias"]) + z
    return sigmoid(y_na.reshape(x.shape) * y_xa) * spikes


def convolve(x, weight, stride):
    """[T, N, C, H, W] with weight [O, C, k, k], zeros outside, image by image."""
    k, steps, images = weight.shape[2], *x.shape[:2]
    flat, reach = weight.reshape(len(weight), -1), k // 2

    def one(image):
        padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))[:, ::stride, ::stride]
        height, width = seen.shape[1:3]
        return (flat @ seen.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)).reshape(-1, height, width)

    return np.stack([[one(x[t, n]) for n in range(images)] for t in range(steps)])


def conv_norm(p, at, x, stride, training):
    """A convolution, then BatchNorm by the statistics of x (variance of the whole, not of a sample), or by the running ones."""
    x = convolve(x, p[f"{at}.conv.weight"], stride)
    mean, variance = p[f"{at}.norm.running_mean"], p[f"{at}.norm.running_var"]
    if training:
        mean, variance = x.mean((0, 1, 3, 4)), x.var((0, 1, 3, 4))
    of = lambda channels: channels[:, None, None]  # noqa: E731
    return (x - of(mean)) / np.sqrt(of(variance) + 1e-5) * of(p[f"{at}.norm.weight"]) + of(p[f"{at}.norm.bias"])


def network_in_numpy(p, images, *, steps, training=False, strict=True):
    """Spikes of every neuron by its name, in the order they fire, and the logits [T, N, classes]; images [N, C, H, W]."""
    spikes = {}

    def lif(at, current):
        h, fired = np.zeros_like(current[0]), []
        for u in current:
            v = 0.5 * h + u
            fired.append((v > 1.0 if strict else v >= 1.0).astype(v.dtype))
            h = v * (1 - fired[-1])
        spikes[f"{at}.neuron"] = np.stack(fired)
        return spikes[f"{at}.neuron"]

    x = conv_norm(p, "stem", np.repeat(images[None], steps, 0), 1, training)
    s = lif("fire", x)
    prefix = "fire.attention."
    attention = {key.removeprefix(prefix): value for key, value in p.items() if key.startswith(prefix)}
    u = np.stack([block_in_numpy(attention, x[:, n], s[:, n], 3) for n in range(len(images))], 1)
    for i, (_, blocks, stage_stride) in enumerate(STAGES):
        for j in range(blocks):
            at, stride = f"stages.{i}.{j}", stage_stride if j == 0 else 1
            y = conv_norm(p, f"{at}.layer1", lif(f"{at}.fire1", u), stride, training)
            y = conv_norm(p, f"{at}.layer2", lif(f"{at}.fire2", y), 1, training)
            u = y + (conv_norm(p, f"{at}.shortcut", u, stride, training) if j == 0 else u)
    mean = lif("last", u).mean((3, 4))
    return spikes, mean @ p["readout.linear.weight"].T + p["readout.linear.bias"]


def made_up(seed, *, steps, classes=CLASSES, images=IMAGES, side=SIDE, width=1.0):
    """(p, images): weights U(±1 / √fan-in), as the official network begins, statistics and scales of BatchNorm drawn too."""
    random, p = np.random.default_rng(seed), {}

    def weight(name, *shape, bias=None):
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        p[f"{name}.weight"] = random.uniform(-bound, bound, shape)
        if bias:
            p[f"{name}.bias"] = random.uniform(-bound, bound, shape[0])

    def layer(name, inputs, outputs, k):
        weight(f"{name}.conv", outputs, inputs, k, k)
        p[f"{name}.norm.weight"], p[f"{name}.norm.bias"] = random.uniform(0.8, 1.2, outputs), random.normal(0, 0.2, outputs)
        p[f"{name}.norm.running_mean"] = random.normal(0, 0.1, outputs)
        p[f"{name}.norm.running_var"] = random.uniform(0.1, 0.4, outputs)

    channels = round(64 * width)
    layer("stem", 3, channels, 3)
    merged, at = steps * channels, "fire.attention"
    weight(f"{at}.crossed.over_channels", steps, steps, 3)
    weight(f"{at}.crossed.over_time", channels, channels, 6)
    p[f"{at}.crossed.time_gain"], p[f"{at}.crossed.channel_gain"] = random.uniform(0.8, 1.2, 2)
    for name, shape in (("embed", (merged, 1, 1)), ("ltca.0", (1, 5, 5)), ("ltca.1", (1, 1, 1)), ("ltca.2", (merged, 1, 1))):
        weight(f"{at}.merged.{name}", merged, *shape, bias=True)
    hidden = merged // max(merged // 16, 4)
    weight(f"{at}.merged.gtca.0", hidden, merged)
    weight(f"{at}.merged.gtca.2", merged, hidden)
    weight(f"{at}.merged.project", merged, merged, 1, 1, bias=True)
    for i, (outputs, blocks, _) in enumerate(STAGES):
        for j in range(blocks):
            outputs_here = round(outputs * width)
            layer(f"stages.{i}.{j}.layer1", channels, outputs_here, 3)
            layer(f"stages.{i}.{j}.layer2", outputs_here, outputs_here, 3)
            if j == 0:
                layer(f"stages.{i}.{j}.shortcut", channels, outputs_here, 1)
            channels = outputs_here
    weight("readout.linear", classes, channels, bias=True)
    return p, random.normal(0, 1, (images, 3, side, side))


def counted(case):
    """What is kept of a case: how many spikes every layer fires, of how many, and the sum of the logits."""
    p, images = made_up(case["seed"], steps=case["steps"])
    spikes, logits = network_in_numpy(p, images, steps=case["steps"], training=case["training"])
    return {**case, "spikes": {at: [int(s.sum()), s.size] for at, s in spikes.items()}, "logits": float(logits.sum())}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps([counted(case) for case in CASES], indent=1) + "\n")
