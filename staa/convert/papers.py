"""Networks of the papers' public code."""

import re

from torch import Tensor

from staa.convert.renaming import NORM, Rules, State, renamed, stages

DTA_SNN: Rules = (
    (r"(?:input_conv|conv1_s)\.layer\.module\.weight|conv1\.weight", r"stem.conv.weight"),
    (rf"(?:input_conv\.|conv1_s\.)?bn1?\.(?:bn|seqbn\.module)\.{NORM}", r"stem.norm.\1"),
    (r"(stages\.\d\.\d+)\.conv([12])(?:_s\.layer\.module)?\.weight", r"\1.layer\2.conv.weight"),
    (rf"(stages\.\d\.\d+)\.(?:bn|conv)([12])(?:_s\.bn)?\.(?:bn|seqbn\.module)\.{NORM}", r"\1.layer\2.norm.\3"),
    (r"(stages\.\d\.\d+)\.downsample\.layer\.module\.weight", r"\1.shortcut.conv.weight"),
    (rf"(stages\.\d\.\d+)\.downsample\.bn\.(?:bn|seqbn\.module)\.{NORM}", r"\1.shortcut.norm.\2"),
    (r"(?:fc|fc1_s)\.layer\.module\.(weight|bias)", r"readout.linear.\1"),
    (r"encoding\.T_XA\.scale_t", r"fire.attention.crossed.time_gain"),
    (r"encoding\.T_XA\.scale_c", r"fire.attention.crossed.channel_gain"),
    (r"encoding\.T_XA\.conv_t\.weight", r"fire.attention.crossed.over_channels.weight"),
    (r"encoding\.T_XA\.conv_c\.weight", r"fire.attention.crossed.over_time.weight"),
    (r"encoding\.T_NA\.encoding\.0\.(weight|bias)", r"fire.attention.merged.embed.\1"),
    (r"encoding\.T_NA\.tca\.LTCA\.([012])\.(weight|bias)", r"fire.attention.merged.ltca.\1.\2"),
    (r"encoding\.T_NA\.tca\.MLP_block\.([02])\.weight", r"fire.attention.merged.gtca.\1.weight"),
    (r"encoding\.T_NA\.decoding\.(weight|bias)", r"fire.attention.merged.project.\1"),
)
FSTA_SNN: Rules = (
    (r"conv1\.pool\.weight", r"stem.0.conv.weight"),
    (rf"bn1\.bn\.{NORM}", r"stem.0.norm.\1"),
    *((rf"conv1\.{3 * k}\.pool\.weight", rf"stem.{2 * k}.conv.weight") for k in range(3)),
    *((rf"conv1\.{3 * k + 1}\.bn\.{NORM}", rf"stem.{2 * k}.norm.\1") for k in range(3)),
    (r"(stages\.\d\.\d+)\.conv([12])\.pool\.weight", r"\1.layer\2.conv.weight"),
    (rf"(stages\.\d\.\d+)\.bn([12])\.bn\.{NORM}", r"\1.layer\2.norm.\3"),
    (r"(stages\.\d\.\d+)\.downsample\.0\.pool\.weight", r"\1.shortcut.conv.weight"),
    (rf"(stages\.\d\.\d+)\.downsample\.1\.bn\.{NORM}", r"\1.shortcut.norm.\2"),
    (r"(stages\.\d\.\d+)\.downsample\.1\.pool\.weight", r"\1.shortcut.project.conv.weight"),  # of the modified ResNet-20
    (rf"(stages\.\d\.\d+)\.downsample\.2\.bn\.{NORM}", r"\1.shortcut.project.norm.\2"),
    (r"fc\.conv\.(weight|bias)", r"readout.linear.\1"),
)
FSTA_ATTENTION = re.compile(r"(.*\.)?(relu[12]?|conv1\.[258])\.dct\..*")
PART = r"(?:network\.)?blocks\.(\d+)"
ISPIKFORMER: Rules = (
    (r"(?:network\.)?encoder\.encoder\.0\.(weight|bias)", r"encoder.conv.\1"),
    (rf"(?:network\.)?encoder\.encoder\.1\.{NORM}", r"encoder.norm.\1"),
    (rf"(?:network\.)?encoder\.norm\.{NORM}", r"encoder.norm.\1"),
    (r"(?:network\.)?encoder\.enc\.(weight|bias)", r"encoder.linear.\1"),
    (r"(?:network\.)?emb\.value_embedding\.(weight|bias)", r"embed.linear.\1"),
    (rf"(?:network\.)?emb\.bn\.{NORM}", r"embed.norm.\1"),
    *(
        rule
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("last", "out"))
        for rule in (
            (rf"{PART}\.attn\.{theirs}_m\.(weight|bias)", rf"blocks.\1.{ours}.linear.\2"),
            (rf"{PART}\.attn\.{theirs}_bn\.{NORM}", rf"blocks.\1.{ours}.norm.\2"),
        )
    ),
    *(
        rule
        for theirs, ours in (("1", "up"), ("2", "down"))
        for rule in (
            (rf"{PART}\.mlp\.fc{theirs}\.(weight|bias)", rf"blocks.\1.{ours}.linear.\2"),
            (rf"{PART}\.mlp\.bn{theirs}\.{NORM}", rf"blocks.\1.{ours}.norm.\2"),
        )
    ),
    (r"fc_out\.(weight|bias)", r"head.\1"),
)


def dta_snn(state: State) -> dict[str, Tensor]:
    """DTA-SNN's MS_ResNet and MS_ResNet_34, for `staa.models.ms_resnet18` and ms_resnet34, with or without its attention.

    The network is built with neuron=NEURONS["dta"] and, if it was trained with it, attention=`staa.attention.DTA`. Its
    state dict has most weights under several names, which must agree.

    Args:
        state: State dict of DTA_SNN_18 or DTA_SNN_34.

    Shapes:
        -> the weights of `staa.models.MSResNet` by name

    Raises:
        ValueError: If a key is not one of its, or two names of one weight hold different numbers.

    Source:
        Names as in biswadeep20666/DTA-SNN on GitHub, a copy of the code of Kim et al., WACV 2025: models/DTA_SNN.py, layers.py,
        DTA.py, TNA.py and TXA.py.
    """
    first = 0 if any(key.startswith("layer0.") for key in state) else 1
    return renamed(stages(state, first), DTA_SNN, "DTA-SNN's MS-ResNets")


def fsta_snn(state: State, *, drop_attention: bool = False) -> dict[str, Tensor]:
    """FSTA-SNN's ResNet-19, -20, -18 and -34, for the networks of these names in `staa.models`, with neuron=NEURONS["plain"].

    Its attention in the frequency domain is not part of this library. A network that was trained with it is another one
    without: such weights are refused, unless they are to be a start of training.

    Args:
        state: State dict of one of its ResNets.
        drop_attention: Leave the attention's weights out.

    Shapes:
        -> the weights of `staa.models.ResNet` by name

    Raises:
        ValueError: If a key is not one of its, or belongs to its attention.

    Source:
        Names as in yukairong/FSTA-SNN on GitHub (AAAI 2025), models/resnet.py, spike_layer.py and freq_layer.py.
    """
    attention = [key for key in state if FSTA_ATTENTION.fullmatch(key)]
    if attention and not drop_attention:
        raise ValueError(
            f"{attention[0]} and {len(attention) - 1} more keys belong to FSTA-SNN's attention, which is not part of staa, and "
            f"without it the network is another one; to start training from the other weights, give `drop_attention=True`"
        )
    others = {key: value for key, value in state.items() if key not in attention}
    return renamed(stages(others, 1), FSTA_SNN, "FSTA-SNN's ResNets")


def seqsnn_ispikformer(state: State) -> dict[str, Tensor]:
    """SeqSNN's iSpikformer with its output layer, for `staa.forecasters.ispikformer.ispikformer` without instance_norm.

    The network is built with nodes, window (its max_length), horizon (its runner's out_size), width (its dim) and blocks
    (its depths); its neurons are the default, NEURONS["seqsnn"].

    Args:
        state: State dict of SeqSNN's runner, its model_best.pkl: network_best.pkl lacks the output layer.

    Shapes:
        -> the weights of the iSpikformer by name

    Raises:
        ValueError: If a key is not one of its.

    Source:
        Names as in microsoft/SeqSNN on GitHub (Lv et al., ICML 2024), SeqSNN/network/snn/ispikformer.py,
        module/spike_attention.py, module/encoding/spikingjelly/encoder.py and runner/timeseries.py.
    """
    return renamed(state, ISPIKFORMER, "SeqSNN's iSpikformer")
