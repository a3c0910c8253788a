"""Layers: modes that agree, lengths, streaming, bidirectionality, rescaled steps, groups, and a peer."""

import importlib.util
import math

import pytest
import torch

from plugins.state_space.initialization import INITIALIZATIONS, initial_modes
from plugins.state_space.layers import S4, S4D, S4PTD, S5, S5PTD, LSTMLayer, parameter_groups
from plugins.state_space.layers.base import Eigenvalues
from plugins.state_space.ptd import PTDSolver

H = 6
LAYERS = {
    "s4d": lambda **k: S4D(H, 16, **k),
    "s4d-bilinear": lambda **k: S4D(H, 16, discretization="bilinear", **k),
    "s4d-real": lambda **k: S4D(H, 16, init="s4d-real", **k),
    "s4d-all-states": lambda **k: S4D(H, 16, conj_sym=False, feedthrough=False, **k),
    "s4-ptd": lambda **k: S4PTD(H, 16, n_ssm=2, **k),
    "s5": lambda **k: S5(H, 16, blocks=2, **k),
    "s5-ptd": lambda **k: S5PTD(H, 16, discretization="bilinear", conj_sym=False, **k),
    "s4": lambda **k: S4(H, 16, **k),
    "s4-legt": lambda **k: S4(H, 16, measure="legt", n_ssm=3, **k),
}
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("length", [1, 2, 3, 1000, 1023])
@pytest.mark.parametrize("name", LAYERS)
def test_modes_agree(name: str, length: int, dtype: torch.dtype) -> None:
    for bidirectional in (False, True) if length < 1000 else (length == 1000,):
        layer = LAYERS[name](bidirectional=bidirectional).to(dtype)
        u = torch.randn(2, length, H, dtype=dtype)
        lengths = torch.tensor([length, (length + 1) // 2])
        with torch.no_grad():
            layer.mode = "recurrence"
            truth = layer(u, lengths)
            for mode in layer.modes:
                layer.mode = mode
                assert relative(layer(u, lengths), truth) < TOLERANCES[dtype], mode


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", [*LAYERS, "lstm"])
def test_chunks_with_a_carried_state_are_one_pass(name: str, dtype: torch.dtype) -> None:
    layer = (LSTMLayer(H) if name == "lstm" else LAYERS[name]()).to(dtype)
    u = torch.randn(3, 57, H, dtype=dtype)
    with torch.no_grad():
        for mode in layer.modes:
            layer.mode = mode
            whole, last = layer(u, return_state=True)
            state, parts = None, []
            for chunk in u.split([20, 1, 36], dim=1):
                y, state = layer(chunk, state=state, return_state=True)
                parts.append(y)
            assert relative(torch.cat(parts, 1), whole) < 10 * TOLERANCES[dtype]
            assert relative(state, last) < 10 * TOLERANCES[dtype]
            state, system, steps = layer.default_state(3), layer.discrete_system(), []
            for k in range(57):
                y, state = layer.step(u[:, k], state, system)
                steps.append(y)
            assert relative(torch.stack(steps, 1), whole) < 10 * TOLERANCES[dtype]


@pytest.mark.parametrize("name", [*LAYERS, "lstm"])
def test_padding_changes_nothing(name: str) -> None:
    layer = (LSTMLayer(H) if name == "lstm" else LAYERS[name]()).double()
    u, lengths = torch.randn(3, 40, H, dtype=torch.float64), torch.tensor([40, 13, 1])
    with torch.no_grad():
        y, state = layer(u, lengths, return_state=True)
        for i, n in enumerate(lengths.tolist()):
            alone, last = layer(u[i : i + 1, :n], return_state=True)
            assert torch.allclose(y[i : i + 1, :n], alone, atol=1e-10)
            assert y[i, n:].abs().sum() == 0
            ours = state[:, i : i + 1] if name == "lstm" else state[i : i + 1]
            assert torch.allclose(ours, last, atol=1e-10)
        garbage = u.clone()
        garbage[1, 13:] = 1e6
        assert torch.allclose(layer(garbage, lengths), y, atol=1e-10)


def test_bidirectional_lstm_is_torchs() -> None:
    ours, theirs = LSTMLayer(H, bidirectional=True), torch.nn.LSTM(H, H // 2, batch_first=True, bidirectional=True)
    weights = {k: v for k, v in ours.lstm.state_dict().items()}
    weights |= {f"{k}_reverse": v for k, v in ours.ahead.state_dict().items()}
    theirs.load_state_dict(weights)
    u, lengths = torch.randn(3, 11, H), torch.tensor([11, 4, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(u, lengths, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    assert torch.allclose(ours(u, lengths), expected, atol=1e-6)
    assert torch.allclose(ours(u), theirs(u)[0], atol=1e-6)


@pytest.mark.parametrize("name", ["s4d", "s4-ptd", "s5", "s4"])
def test_bidirectional_is_a_forward_and_a_reversed_layer(name: str) -> None:
    both = LAYERS[name](bidirectional=True).double()
    one = LAYERS[name]().double()
    shared = {k: v for k, v in both.state_dict().items() if k != "C"}
    u = torch.randn(2, 30, H, dtype=torch.float64)
    with torch.no_grad():
        parts = []
        for direction, sequence in enumerate((u, u.flip(1))):
            one.load_state_dict({**shared, "C": both.C[direction : direction + 1]})
            y = one(sequence)
            parts.append(y if direction == 0 else y.flip(1) - both.D * u)
        assert torch.allclose(both(u), sum(parts), atol=1e-10)


@pytest.mark.parametrize("name", ["s4d", "s4d-bilinear", "s5", "s4"])
def test_rescaled_steps_follow_half_the_rate(name: str) -> None:
    """A slow signal at half the rate with doubled steps gives nearly the full rate's outputs."""
    torch.manual_seed(3)
    layer = LAYERS[name](dt_min=1e-3, dt_max=2e-3).double()
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    u = torch.stack([torch.sin((h + 1) * t) for h in range(H)], -1)[None]
    with torch.no_grad():
        full = layer(u)[:, ::2]
        layer.step_rescale = 2.0
        half = layer(u[:, ::2])
        layer.step_rescale = 1.0
        unscaled = layer(u[:, ::2])
    assert relative(half, full) < 0.02
    assert relative(unscaled, full) > 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_learns(name: str) -> None:
    layer = LAYERS[name](bidirectional=True)
    layer(torch.randn(2, 20, H)).square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, key
        assert key in layer.roles, key


@pytest.mark.parametrize("name", ["s4d", "s4d-bilinear", "s5", "s5-ptd", "s4"])
def test_gradients_agree_across_modes(name: str) -> None:
    layer = LAYERS[name]().double()
    u = torch.randn(2, 23, H, dtype=torch.float64)
    gradients = {}
    for mode in layer.modes:
        layer.mode = mode
        layer.zero_grad()
        layer(u).square().sum().backward()
        gradients[mode] = torch.cat([p.grad.flatten() for p in layer.parameters()])
    for gradient in gradients.values():
        assert relative(gradient, gradients["recurrence"]) < 1e-9


@pytest.mark.parametrize("init", INITIALIZATIONS)
@pytest.mark.parametrize("n", [7, 8])
def test_half_the_modes_are_the_whole_system(init: str, n: int) -> None:
    if init == "random" or (init == "ptd-fout" and n % 2):
        return
    omega = torch.tensor([0.1, 3.0, 20.0], dtype=torch.float64)
    gains = []
    for conj_sym in (True, False):
        modes = initial_modes(init, n, conj_sym)
        assert (modes.lam.real < 0).all()
        if modes.V is None:
            c = torch.ones_like(modes.lam)
        else:
            c = torch.linspace(1, 2, n, dtype=torch.float64).to(modes.V.dtype) @ modes.V
            assert torch.allclose(
                (modes.V_inverse @ modes.V), torch.eye(len(modes.lam), dtype=modes.V.dtype), atol=1e-8
            )
        gain = modes.weight * c * modes.B
        # impulse response, the real part of the weighted sum, at a few times
        gains.append((gain * torch.exp(modes.lam * omega[:, None])).sum(1).real)
    assert torch.allclose(*gains, atol=1e-8)


def test_published_initialisations() -> None:
    lin, inv, real = (initial_modes(name, 8).lam for name in ("s4d-lin", "s4d-inv", "s4d-real"))
    k = torch.arange(4, dtype=torch.float64)
    assert torch.allclose(lin, torch.complex(torch.full_like(k, -0.5), math.pi * k))
    assert torch.allclose(inv.imag, 8 / math.pi * (8 / (2 * k + 1) - 1))
    assert torch.allclose(real.real, -(k + 1)) and (real.imag == 0).all()
    half, whole = initial_modes("s4d-legs", 8).B, initial_modes("s4d-legs-unhalved", 8).B
    assert torch.allclose(2 * half, whole)
    with pytest.raises(ValueError, match="init"):
        initial_modes("s4d-log", 8)


def test_blocks_are_independent_copies() -> None:
    modes = initial_modes("ptd-legs", 4, solver=PTDSolver(gamma=10)).repeated(3)
    assert modes.V.shape == (12, len(modes.lam)) and torch.equal(modes.lam[:2], modes.lam[-2:])
    assert modes.V[:4, 2:].abs().sum() == 0


@pytest.mark.parametrize("guard", ["exp", "clip", "abs"])
def test_guards_keep_eigenvalues_stable(guard: str) -> None:
    lam = torch.tensor([-0.5 + 3j, -1e-9 + 0j, -2.0 - 1j], dtype=torch.complex128)
    values = Eigenvalues(lam, guard)
    assert torch.allclose(values()[[0, 2]], lam[[0, 2]], atol=1e-6)
    with torch.no_grad():
        values.decay.sub_(5.0)
    # abs may reach 0 but never crosses it
    assert (values().real <= 0).all()
    with pytest.raises(ValueError, match="guard"):
        Eigenvalues(lam, "hope")


def test_parameter_groups_follow_the_policies() -> None:
    model = torch.nn.Sequential(S5(H, 8), torch.nn.Linear(H, 2))

    def rules(policy: str, **options) -> dict[str, tuple[float, float]]:
        groups = parameter_groups(model, 0.01, 0.05, 0.001, policy, **options)
        by_id = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
        return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}

    slow, slow_decayed, base = (0.001, 0.0), (0.001, 0.05), (0.01, 0.05)
    for policy, b, c in (
        ("standard", slow, base),
        ("BandCdecay", slow_decayed, base),
        ("BfastandCdecay", base, base),
        ("noBCdecay", slow, slow),
    ):
        found = rules(policy)
        assert found["0.B"] == b and found["0.C"] == c and found["1.weight"] == base, policy
        assert found["0.eigenvalues.decay"] == found["0.log_dt"] == slow
    assert rules("standard", dt_global=True)["0.log_dt"] == base
    assert rules("standard", overrides={"readout": {"lr": 0.5}})["0.C"] == (0.5, 0.05)
    assert set(rules("standard", frozen=["dynamics", "input"])) == {"0.log_dt", "0.C", "0.D", "1.weight", "1.bias"}
    assert not model[0].B.requires_grad
    with pytest.raises(ValueError, match="policy"):
        rules("fast")
    with pytest.raises(ValueError, match="role"):
        rules("standard", frozen=["gates"])


def test_ptd_layers_start_as_the_perturbed_system() -> None:
    result = PTDSolver(gamma=30).solve("legs", 16)
    lam = S4PTD(H, 16, gamma=30).eigenvalues()[0]
    expected = result.lam[result.lam.imag > 0]
    assert torch.allclose(lam, expected, rtol=1e-6)
    everything = S5PTD(H, 16, gamma=30, conj_sym=False).eigenvalues()
    assert torch.allclose(everything, result.lam, rtol=1e-6, atol=1e-6)


def test_forward_never_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [S4PTD(H, 8), S5PTD(H, 8)]
    monkeypatch.setattr(PTDSolver, "solve", lambda *_: pytest.fail("solved in forward"))
    for layer in layers:
        layer(torch.randn(1, 5, H))


@pytest.mark.parametrize("name", ["s4d", "s5", "s4"])
def test_empty_batches_and_bad_input(name: str) -> None:
    layer = LAYERS[name]()
    assert layer(torch.zeros(0, 5, H)).shape == (0, 5, H)
    y, state = layer(torch.zeros(0, 5, H), return_state=True)
    assert y.shape == (0, 5, H) and len(state) == 0
    for bad in (torch.zeros(2, 5, H + 1), torch.zeros(5, H), torch.zeros(2, 0, H)):
        with pytest.raises(ValueError, match="u must"):
            layer(bad)
    for lengths in ([0, 3], [3, 6]):
        with pytest.raises(ValueError, match="lengths"):
            layer(torch.zeros(2, 5, H), torch.tensor(lengths))
    with pytest.raises(ValueError, match="bidirectional"):
        LAYERS[name](bidirectional=True)(torch.zeros(2, 5, H), return_state=True)


@pytest.mark.parametrize("name", ["s4d", "s5", "s4"])
def test_mixed_precision_passes_through(name: str) -> None:
    layer = LAYERS[name]()
    u = torch.randn(2, 9, H)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(torch.nn.functional.linear(u, torch.eye(H)))
    assert mixed.dtype == torch.bfloat16
    assert relative(mixed.float(), layer(u.bfloat16().float())) < 0.02
    mixed.float().sum().backward()


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_smallest_perturbed_systems(n: int) -> None:
    modes = initial_modes("ptd-legs", n)
    assert (modes.weight * 1).sum() == n and (modes.lam.real < -0.1).all()
    assert S5PTD(H, 2 * n, blocks=2)(torch.randn(1, 4, H)).shape == (1, 4, H)


def test_bad_settings() -> None:
    for make, message in (
        (lambda: S4D(0), "d_model"),
        (lambda: S4D(6, mode="fft"), "mode"),
        (lambda: S4D(6, n_ssm=4), "n_ssm"),
        (lambda: S4D(6, discretization="euler"), "discretization"),
        (lambda: S4(6, 5), "even"),
        (lambda: S5(6, 8, blocks=3), "blocks"),
        (lambda: S5(6, 8, b_init="zeros"), "b_init"),
        (lambda: S5(6, 8, c_init="zeros"), "c_init"),
        (lambda: LSTMLayer(5, bidirectional=True), "even"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_matches_s5_pytorch() -> None:
    assert importlib.util.find_spec("s5") is not None, "the peer is missing: pip install --no-deps s5-pytorch"
    from s5 import S5 as Peer

    torch.manual_seed(1)
    peer = Peer(H, 16)
    ours = S5(H, 16, conj_sym=False)
    with torch.no_grad():
        theirs = peer.seq
        ours.eigenvalues.decay.copy_(-theirs.Lambda.real)
        ours.eigenvalues.frequency.copy_(theirs.Lambda.imag)
        ours.B.copy_(theirs.B)
        ours.C.copy_(torch.view_as_real(theirs.C)[None])
        ours.D.copy_(theirs.D)
        ours.log_dt.copy_(theirs.log_step.squeeze())
        u = torch.randn(2, 200, H)
        expected, last = peer(u, return_state=True)
        y, state = ours(u, return_state=True)
    assert relative(y, expected) < 1e-5
    assert relative(state, last) < 1e-5
