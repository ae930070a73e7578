import copy
import importlib.util
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import staa.testing as contracts
from staa import stream
from staa.attention import ATTENTIONS, STAA, ChannelGate, GlobalContext, PositionEncoding, StepAttention
from staa.causality import STEPS_ALIKE
from staa.layers import Passive, PerStep, Site
from staa.models import MODELS, vggsnn
from staa.neurons import LIF, NEURONS, AdaptiveLIF, Integrator
from staa.ops import direct
from staa.streaming import freeze_norms, recompute

T = 7
FORMS = {  # steps, attention
    "plain": (None, None),
    "plain-T": (T, None),
    "any": (None, STAA),
    "causal": (T, partial(STAA, causal=True)),
    "context": (T, lambda steps, channels: GlobalContext(channels)),
}


@cache
def _network(name, form):
    """Its gates and encodings differ by step and sample, and its running statistics let it fire."""
    torch.manual_seed(0)
    steps, attention = FORMS[form]
    options = {"size": 16} if name == "vggsnn" else {}
    model = MODELS[name](5, in_channels=2, steps=steps, width=0.125, neuron=AdaptiveLIF, attention=attention, **options)
    contracts.randomised(model, 0.05)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, STAA):
            module.dropout = 0.0
        if isinstance(module, StepAttention):  # a gate that hangs on the past
            contracts.randomised(module, 1.0)
    model(events(T, 8))
    return model.eval()


def streaming(name="vggsnn", form="any", dtype=torch.float32):
    return copy.deepcopy(_network(name, form)).to(dtype)


def events(steps, batch=3, dtype=torch.float32):
    return (torch.rand(steps, batch, 2, 16, 16) < 0.2).to(dtype)


def streamed(model, x, chunk=1, state=None):
    outputs = []
    for piece in x.split(chunk):
        output, state = stream(model, piece, state)
        outputs.append(output)
    return torch.cat(outputs), state


def network(steps=None, **options):
    torch.manual_seed(0)
    attention = partial(STAA, dropout=0.0, **options)
    model = vggsnn(5, in_channels=2, steps=steps, size=16, width=0.125, neuron=AdaptiveLIF, attention=attention)
    for _ in range(20):  # running statistics that let it fire
        model((torch.rand(4, 8, 2, 16, 16) < 0.2).float())
    return model


def kept(f):
    storages, held = {}, []

    def pack(x):
        held.append(x)
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = f()
    return out, sum(storages.values())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunks_have_the_gradients_of_the_whole(dtype, tolerance, chunk):
    model = freeze_norms(network().to(dtype).train())
    x = (torch.rand(7, 2, 2, 16, 16) < 0.2).to(dtype).requires_grad_()
    weight = torch.randn(7, 2, 5, dtype=dtype)
    found = []
    for f in (model, lambda x: recompute(model, x, chunk)):
        out = f(x)
        assert out.detach().abs().sum() > 0
        found.append([out, *torch.autograd.grad((out * weight).sum(), [x, *model.parameters()])])
    assert "forward" not in vars(model.stages[0][1].neuron)
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() <= tolerance * a.norm() + tolerance * 1e-3


def test_little_is_kept_however_long_the_window():
    model = freeze_norms(network())
    bytes_kept = {}
    for steps in (20, 80):
        x = (torch.rand(steps, 2, 2, 16, 16) < 0.2).float()
        bytes_kept[steps] = [kept(lambda x=x: model(x))[1], kept(lambda x=x: recompute(model, x, 5))[1]]
    assert bytes_kept[80][0] > 3 * bytes_kept[20][0]
    assert bytes_kept[80][1] < 0.2 * bytes_kept[80][0]


def test_a_readout_that_integrates_goes_on_where_it_was():
    model = nn.Sequential(PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)), Integrator())
    x = torch.rand(6, 5, 3)
    torch.testing.assert_close(recompute(model, x, 2), model(x))


def test_what_can_not_run_in_pieces_is_refused_with_the_reason():
    x = torch.rand(4, 1, 2, 16, 16)
    with pytest.raises(ValueError, match=r"BatchNorm in training mode.*freeze_norms"):
        recompute(network(), x, 2)
    with pytest.raises(ValueError, match=r"sees the whole window.*causal=True or steps=None"):
        recompute(nn.Sequential(STAA(4, 2), LIF()), x, 2)
    with pytest.raises(ValueError, match=r"built for a window of T = 4 steps.*steps=None"):
        recompute(freeze_norms(network(steps=4, causal=True)), x, 2)
    with pytest.raises(ValueError, match="chunk must be a whole number of at least 1, got 0"):
        recompute(network(), x, 0)


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("dtype", "limits"), [(torch.float64, {}), (torch.float32, dict(rounding=1e-5, flipped=1e-5))], ids=["float64", "float32"]
)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_a_network_streams(name, form, dtype, limits):
    contracts.chunks_equal_the_whole(streaming(name, form, dtype), events(T, 4, dtype), **limits)


@pytest.mark.parametrize("neuron", [*NEURONS.values(), Integrator])
def test_a_neuron_streams_bit_for_bit(neuron):
    contracts.chunks_equal_the_whole(neuron(3), torch.randn(T, 2, 3, 4, 4), rounding=0.0)


PARTS = {
    "position": PositionEncoding,
    "context": lambda steps, channels: GlobalContext(channels),
    "step": lambda steps, channels: StepAttention(steps),
    "step-causal": lambda steps, channels: StepAttention(steps, causal=True),
    "channel": lambda steps, channels: ChannelGate(channels),
    "any": lambda steps, channels: STAA(None, channels),
}


@pytest.mark.parametrize("name", [*ATTENTIONS, *PARTS])
def test_attention_streams_alone_and_before_a_neuron(name):
    attention = contracts.randomised({**ATTENTIONS, **PARTS}[name](T, 3).double().eval())
    for module in (attention, Site(LIF(), attention)):
        if attention.causal:
            contracts.chunks_equal_the_whole(module, contracts.random_input(T, 2, 3, 4, 4))
        else:
            with pytest.raises(ValueError, match=r"sees the whole window.*causal=True or steps=None"):
                stream(module.eval(), contracts.random_input(1, 2, 3, 4, 4))


def test_two_streams_in_turns_on_one_model():
    for form in ("any", "causal"):
        model, a, b = streaming(form=form), events(T), events(T, 2)
        alone = [streamed(model, x)[0] for x in (a, b)]
        states, outputs = [None, None], [[], []]
        for t in range(T):
            for i, x in enumerate((a, b)):
                output, states[i] = stream(model, x[t : t + 1], states[i])
                outputs[i].append(output)
        for i in range(2):
            assert torch.equal(torch.cat(outputs[i]), alone[i])


class Fuse(nn.Module):
    """Burns at a call of its choice."""

    per_step = True
    lasts = 1000

    def forward(self, x):
        self.lasts -= 1
        if not self.lasts:
            raise RuntimeError("burnt")
        return x


@pytest.mark.parametrize("form", ["any", "causal"])
def test_nothing_stays_in_the_model(form):
    model, x = streaming(form=form), events(T)
    model.readout = nn.Sequential(Fuse(), model.readout).eval()
    whole = model(x).detach()
    pieces, state = streamed(model, x[:4])
    before = {name: {**vars(module), "lasts": None} for name, module in model.named_modules()}
    rest = streamed(model, x[4:], 2, state)[0]
    model.readout[0].lasts = 1
    with pytest.raises(RuntimeError, match="burnt"):
        stream(model, x[4:], state)
    model.readout[0].lasts = 1000
    assert before == {name: {**vars(module), "lasts": None} for name, module in model.named_modules()}
    assert torch.equal(model(x), whole)
    assert torch.equal(streamed(model, x[4:], 2, state)[0], rest)  # a state is not used up
    torch.testing.assert_close(torch.cat([pieces, rest]), whole, rtol=1e-4, atol=1e-5)
    assert model(x).requires_grad
    assert not rest.requires_grad
    assert not any(isinstance(s, torch.Tensor) and s.requires_grad for s in state.scans)


def test_a_stream_without_end_keeps_as_much():
    model, state, kept = streaming(), None, set()
    for piece in events(40 * T).split(T):
        output, state = stream(model, piece, state)
        assert output.isfinite().all()
        kept.add(sum(s.untyped_storage().nbytes() for s in state.scans if isinstance(s, torch.Tensor)))
    assert state.steps == 40 * T
    assert len(kept) == 1


def test_of_one_step_there_is_no_future():
    contracts.chunks_equal_the_whole(contracts.randomised(STAA(1, 3).double()), contracts.random_input(1, 2, 3, 4, 4))


def test_past_the_last_step():
    for form in ("plain-T", "causal"):
        model, x = streaming(form=form), events(T + 1)
        _, state = streamed(model, x[:5])
        with pytest.raises(ValueError, match=r"model was built for T = 7 steps and has seen 5 of them, so 3 more are too many"):
            stream(model, x[5:], state)
        _, state = stream(model, x[5:7], state)
        with pytest.raises(ValueError, match=r"T = 7 steps and has seen them all: start again with state=None, or.*steps=None"):
            stream(model, x[7:], state)
        with pytest.raises(ValueError, match="seen 0 of them, so 8 more"):
            stream(model, x)
        with pytest.raises(ValueError, match="built for T = 7 steps, got 2"):  # a call takes the whole window as ever
            model(x[:2])
    for part in (STAA(T, 2, causal=True), PositionEncoding(T, 2), StepAttention(T, causal=True)):
        _, state = stream(part.eval(), x[:T])
        with pytest.raises(ValueError, match=f"this {type(part).__name__} was built for T = 7 steps and has seen them all"):
            stream(part, x[T:], state)


def test_a_stream_keeps_to_its_frames():
    """And to its network."""
    model, x = streaming(), events(2)
    _, state = stream(model, x)
    for other in (x[:, :2], x[..., 1:], x.double(), x.to("meta")):
        with pytest.raises(ValueError, match=r"frames are \[3, 2, 16, 16\] torch.float32 on cpu, this chunk's .*state=None"):
            stream(model, other, state)
    with pytest.raises(ValueError, match="another network"):
        stream(streaming("resnet20"), x, state)


def test_what_can_not_be_streamed_is_refused_with_the_reason():
    x, model = events(1), streaming()
    for shape in ((0, 3, 2, 16, 16), (3,)):
        with pytest.raises(ValueError, match="at least one time step"):
            stream(model, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"the model is in training mode.*model.eval\(\)"):
        stream(model.train(), x)
    assert model.training
    model.eval().stages[1].train()
    with pytest.raises(ValueError, match=r"stages.1 is in training mode.*model.eval\(\)"):
        stream(model, x)

    class Counts(nn.Module):
        def __init__(self, steps):
            super().__init__()
            self.steps = steps

    with pytest.raises(ValueError, match=r"1 \(Counts\) was built for T = 4 steps and has no scan.*steps=None"):
        stream(nn.Sequential(LIF(), Counts(4)).eval(), x)


@pytest.mark.filterwarnings("ignore:an input .N, 2, H, W. is taken as N images")
def test_an_output_that_is_not_per_step_is_refused():
    class Mean(nn.Module):
        per_step = True  # which is not true

        def forward(self, x):
            return x.mean(0)

    with pytest.raises(ValueError, match=r"got \[3, 2, 16, 16\] for \[1, 3, 2, 16, 16\].*average over time outside"):
        stream(nn.Sequential(LIF(), Mean()).eval(), events(1))
    with pytest.raises(ValueError, match=r"frame\[None\]"):  # an image would be repeated T times
        stream(streaming(form="causal"), events(1)[0])


def test_a_neuron_that_serves_twice_has_a_membrane_at_each_place():
    class Twice(nn.Module):
        per_step = True

        def __init__(self):
            super().__init__()
            self.neuron, self.unused = LIF(), LIF()

        def forward(self, x):
            return self.neuron(0.3 * x) + self.neuron(0.6 * x, shift=torch.full((1, 1, 1), 0.1))

    contracts.chunks_equal_the_whole(Twice(), torch.rand(T, 2, 3), rounding=0.0)


def test_a_readout_that_integrates_streams_on():
    model = nn.Sequential(PerStep(nn.Linear(3, 4)), LIF(), PerStep(nn.Linear(4, 2)), Integrator())
    contracts.chunks_equal_the_whole(model.double(), direct(contracts.random_input(5, 3), T))


# Unknown means refused.


class OverTime(nn.Module):
    """An LSTM over time: causal, and yet no piece knows what came before."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 3)

    def forward(self, x):
        return self.lstm(x)[0]


class Declared(OverTime):
    per_step = True

    def forward(self, x):
        return super().forward(x)


class Causal(OverTime):
    causal = True


class Resuming(OverTime):
    causal = True

    def forward(self, x):
        return self.scan(x)[0]

    def scan(self, x, state=None):
        return self.lstm(x, state)


class Fires(LIF):
    """Another forward than that which LIF's scan is of."""

    def forward(self, x, scale=None, shift=None):
        return super().forward(x, scale, shift).cumsum(0)


class Sums(GlobalContext):
    def gate(self, current):
        current, gate = super().gate(current)
        return current, gate.cumsum(0)


class Through(nn.Module):
    """A network of one's own, which calls others."""

    per_step = True

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Untold(Through):
    def forward(self, x):
        return super().forward(x).cumsum(0)


class Scans(nn.Module):
    """Its neuron begins anew in each piece."""

    per_step = True

    def __init__(self, neuron=None):
        super().__init__()
        self.neuron = neuron or LIF(threshold=0.1)

    def forward(self, x):
        return self.neuron.scan(x)[0]


class Within(Scans):
    """It goes on where its neuron was."""

    def forward(self, x):
        return self.scan(x)[0]

    def scan(self, x, state=None):
        return self.neuron.scan(x, state)


def hooked(module, hook):
    module.register_forward_hook(hook)
    return module


def before(module, hook):
    module.register_forward_pre_hook(hook)
    return module


def vouched(module):
    module.per_step = True
    return module


def with_a_forward_of_its_own():
    neuron = LIF()
    neuron.forward = lambda x: x.cumsum(0)
    return neuron


SAY = r"is not known to run in pieces: say per_step = True in its class.*scan\(x, state\).*causal = False"
REFUSED = {
    "nothing said": (Untold(LIF()), SAY),
    "causal and no scan": (Causal(), SAY),
    "an LSTM in what says per_step": (Declared(), r"lstm \(LSTM\) is not known.*scan\(x, state\), in which it goes on"),
    "an LSTM": (Through(nn.LSTM(3, 3)), r"layers.0 \(LSTM\) is not known.*goes on"),
    "a GRU cell": (Through(nn.GRUCell(3, 3)), r"GRUCell.*goes on"),
    "attention over time": (Through(nn.MultiheadAttention(3, 1)), r"MultiheadAttention.*goes on"),
    "a transformer": (Through(nn.TransformerEncoderLayer(3, 1)), "TransformerEncoderLayer.*is not known"),
    "a convolution over time": (Through(nn.Conv1d(3, 3, 3)), r"Conv1d.*along which axis it runs can't be told.*PerStep"),
    "a 3-D convolution": (Through(nn.Conv3d(3, 3, 3)), r"Conv3d.*PerStep"),
    "a norm by the piece": (PerStep(nn.BatchNorm1d(3, track_running_stats=False)), "goes by the piece"),
    "softmax over time": (Through(nn.Softmax(0)), "Softmax.*is not known"),
    "time into the batch": (Through(nn.Flatten(0, 1)), "Flatten.*is not known"),
    "another forward above a scan": (Fires(), r"Fires\) is not known"),
    "another gate above a declaration": (Sums(3), r"Sums\) is not known"),
    "a forward of the instance": (with_a_forward_of_its_own(), "forward of its own"),
    "softmax over what may be time": (PerStep(nn.Softmax2d()), "Softmax2d.*is not known"),
    "a hook that mixes time": (hooked(LIF(), lambda _, __, y: y.cumsum(0)), "LIF.* has a hook on its forward.*may mix time"),
    "a hook in what scans": (Within(hooked(LIF(), lambda *_: None)), "LIF.* has a hook"),
    "a hook before": (Through(before(nn.Linear(3, 3), lambda _, x: (x[0].cumsum(0),))), "Linear.* has a hook"),
    "a scan past its forward": (Scans(), r"a scan was called directly.*scan\(x, state\) of its own"),
    "a subclass of a plain layer": (type("Own", (nn.Linear,), {})(3, 3), "Own.*is not known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused(case):
    module, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        stream(module.eval(), torch.randn(1, 2, 3))
    with pytest.raises(ValueError, match=message):
        recompute(nn.Sequential(module).eval(), torch.randn(2, 2, 3), 1)


def built(kind, rank):
    """Layers of a kind for inputs of side 4."""
    if kind in (nn.LayerNorm, nn.RMSNorm):
        return [kind([4] * k) for k in range(1, rank + 1)]
    arguments = {"Pad": (1,), "Conv": (4, 4, 3, 1, 1), "Linear": (4, 4), "GroupNorm": (2, 4), "LocalResponse": (3,)}
    arguments |= {
        "LPPool": (2, 2),
        "Pool": (2,),
        "Shuffle": (2,),
        "Unshuffle": (2,),
        "Upsampl": (None, 2),
        "Threshold": (0.1, 20),
    }
    given = next((values for part, values in arguments.items() if part in kind.__name__), ())
    return [kind(*given, *([0.5] if kind is nn.ConstantPad2d else []))]


def mixes_time(layer, x):
    y, changed = layer(x), x.clone()
    changed[-1] = torch.rand_like(changed[-1])
    return len(y) != len(x) or not torch.equal(layer(changed)[:-1], y[:-1])


CONTAINERS = {nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict}


@pytest.mark.filterwarnings("ignore:dropout")
@pytest.mark.parametrize("kind", sorted(STEPS_ALIKE - CONTAINERS, key=lambda kind: kind.__name__))
def test_no_layer_of_pytorch_takes_time_for_another_dimension(kind):
    """At each rank that it accepts: it treats steps alike, or the stream refuses it."""
    streams = 0
    for rank in (2, 3, 4, 5):
        x = torch.rand([4] * rank)
        for layer in built(kind, rank):
            layer.eval()
            try:
                mixes = mixes_time(layer, x)
            except (RuntimeError, ValueError, IndexError, AssertionError, NotImplementedError):  # a rank that it doesn't take
                continue
            for run in (stream, partial(recompute, chunk=4)) if mixes else ():
                with pytest.raises(ValueError, match="take the first dimension, time, for another.*PerStep"):
                    run(nn.Sequential(layer).eval(), x)
            streams += not mixes
            assert not layer._forward_pre_hooks
    assert streams


@pytest.mark.parametrize("layer", [nn.Conv1d(8, 8, 1), nn.Conv3d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.LayerNorm((8, 3))])
def test_per_step_does_not_hide_it(layer):
    x = torch.rand(4, 2, *[3] * {nn.Conv2d: 2, nn.Conv3d: 3}.get(type(layer), 1))
    with pytest.raises(ValueError, match=r"is given \[8, .*first dimension, time, for another|must have \d dimensions, \[T, N"):
        stream(nn.Sequential(PerStep(layer)).eval(), x)


def test_one_may_vouch_for_a_layer_without_a_batch():
    class Alone(nn.Module):
        per_step = True

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3)

        def forward(self, x):
            return torch.stack([torch.stack([self.conv(input=frame) for frame in step]) for step in x])

    model, x = Alone().double().eval(), contracts.random_input(T, 2, 2, 5, 5)
    with pytest.raises(ValueError, match=r"conv \(Conv2d\) is given \[2, 5, 5\].*vouch for it by module.per_step = True"):
        stream(model, x)
    vouched(model.conv)
    contracts.chunks_equal_the_whole(model, x)


@pytest.mark.filterwarnings("ignore:torch.quantize", "ignore::DeprecationWarning")
def test_what_is_quantized_by_the_range_of_a_piece_is_refused():
    model = nn.Sequential(PerStep(nn.Linear(3, 3)), LIF()).eval()
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}).eval()
    with pytest.raises(ValueError, match=r"0.module \(Linear\) is not known"):
        stream(model, torch.randn(1, 2, 3))


def vouched_for():
    module = nn.Sequential(nn.TransformerEncoderLayer(4, 1, batch_first=True), LIF(dims=4))
    module[0].per_step = True  # it is given frames [N, tokens, 4]
    return Through(PerStep(module[0]), module[1])


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.3)


def parametrized(layer):
    return nn.utils.parametrizations.weight_norm(layer)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Through(PerStep(nn.Linear(3, 3)), LIF(threshold=0.1), Resuming()), (3,)),
        (lambda: nn.Sequential(Resuming(), LIF(threshold=0.1)), (3,)),
        (lambda: nn.Sequential(PerStep(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten()), LIF()), (3, 6)),
        (lambda: nn.Sequential(PerStep(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)), LIF()), (2, 3, 4, 4)),
        (lambda: nn.Sequential(parametrized(nn.Linear(3, 4)), nn.GELU(), nn.Softmax(-1), LIF(threshold=0.1)), (3,)),
        (vouched_for, (3, 4)),
        (lambda: Through(Within(), LIF(threshold=0.1)), (3,)),
        (lambda: Through(vouched(hooked(nn.Linear(3, 3), lambda _, __, y: 2 * y)), LIF()), (3,)),
        (
            lambda: Through(hooked(nn.Linear(3, 3), Passive(lambda *_: None)), pruned(nn.Linear(3, 3)), LIF()),
            (3,),
        ),
    ],
    ids=[
        "own network",
        "own scan",
        "1-D per step",
        "3-D per step",
        "parametrized",
        "vouched for",
        "scans within",
        "vouched hook",
        "harmless hooks",
    ],
)
def test_what_says_how_it_stands_to_time_streams(make, shape):
    module = make().double().eval()
    contracts.chunks_equal_the_whole(module, 2 * contracts.random_input(T, 2, *shape))


def test_a_declaration_that_is_taken_back():
    model = streaming()
    model.stages[0].per_step = False
    with pytest.raises(ValueError, match=r"stages.0 \(Sequential\) is not known"):
        stream(model, events(1))


def test_a_forward_of_the_instance_survives_a_refusal():
    neuron = with_a_forward_of_its_own().eval()
    own = neuron.forward
    with pytest.raises(ValueError, match="forward of its own"):
        stream(neuron, torch.randn(1, 2, 3))
    assert neuron.forward is own


def novelty():
    path = Path(__file__).parent.parent / "examples" / "own_attention.py"
    spec = importlib.util.spec_from_file_location("own_attention", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Novelty


@pytest.mark.parametrize("steps", [None, T])
def test_the_example_streams(steps):
    torch.manual_seed(0)
    model = vggsnn(5, in_channels=2, steps=steps, size=16, width=0.125, neuron=AdaptiveLIF, attention=novelty())
    contracts.randomised(model, 0.3)
    for _ in range(5):
        model(events(T, 8))
    contracts.chunks_equal_the_whole(model.double(), events(T, 4, torch.float64))
