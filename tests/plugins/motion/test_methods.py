"""EMDM, MARDM and MDM: identities of their diffusions, padding, guidance, editing."""

import math

import pytest
import torch
from torch import nn

from plugins.motion.emdm import (
    EMDM,
    DenoisingSteps,
    EMDMGenerator,
    EncoderDiscriminator,
    MLPDiscriminator,
    adversarial_loss,
    discriminator_loss,
    r1_penalty,
)
from plugins.motion.guidance import combine, drop_condition
from plugins.motion.losses import GeometricLoss
from plugins.motion.mardm import (
    MARDM,
    DDPMHead,
    DiffusionMLP,
    MaskedTransformer,
    MotionAutoencoder,
    SiTHead,
    corrupt,
    masked_count,
    random_mask,
    unmasking_counts,
)
from plugins.motion.mdm import MDM, MDMNetwork

F, T, E = 7, 16, 5


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-3)


def emdm(**options):
    size = {"features": F, "frames": T, "text_dim": E, "width": 16, "layers": 1, "heads": 2, "hidden": 16, "patch": 4}
    return EMDM(
        EMDMGenerator(**size, latent=4, mapping=1, dropout=0.0, norm="pre"),
        EncoderDiscriminator(**size, norm="pre"),
        adam,
        adam,
        DenoisingSteps(4),
        **options,
    ).eval()


def mdm(**options):
    network = MDMNetwork(F, T, E, width=16, layers=1, heads=2, hidden=16, dropout=0.0, norm="pre", patch=4)
    return MDM(network, adam, diffusion_steps=8, **options).eval()


def mardm(head="sit", **options):
    network = DiffusionMLP(8, 16, 16, 1)
    return MARDM(
        MotionAutoencoder(F, 8, 16, dropout=0.0),
        MaskedTransformer(8, T // 4, E, 16, 1, 2, 16, 0.0),
        SiTHead(network, steps=3) if head == "sit" else DDPMHead(network, steps=4),
        T,
        adam,
        adam,
        generation_steps=3,
        **options,
    ).eval()


METHODS = {"emdm": emdm, "mdm": mdm, "mardm_sit": mardm, "mardm_ddpm": lambda: mardm("ddpm")}


def awake(method):
    """Random weights everywhere: zero-initialised layers would hide a leak."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return method


def rows_of_noise(clips):
    """The same rows of noise whatever the batch, by clip number."""
    generators = [torch.Generator().manual_seed(100 + k) for k in clips]

    def noise(shape):
        return torch.stack([torch.randn(shape[1:], generator=g) for g in generators])

    return noise


@pytest.mark.parametrize("name", METHODS)
def test_a_clip_does_not_depend_on_what_it_is_batched_with(name):
    method, text = awake(METHODS[name]()), torch.randn(3, E, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 16, 12])
    together = method.generate(text, lengths, noise=lambda shape: rows_padded(shape, rows_of_noise([0, 1, 2])))
    for k in range(3):
        alone = method.generate(
            text[[k]], lengths[[k]], noise=lambda shape, k=k: rows_padded(shape, rows_of_noise([k]))
        )
        scale = together[k].abs().max()
        assert (alone[0] - together[k]).abs().max() <= 1e-5 * scale and scale > 1e-3
        assert together[k, lengths[k] :].abs().max() == 0 if lengths[k] < T else True


def rows_padded(shape, draw):
    """Noise of the longest clip, cut to what is asked for, so that shapes that depend on the batch see the same."""
    full = (shape[0], T, *shape[2:]) if len(shape) == 3 else shape
    return draw(full)[:, : shape[1]] if len(shape) == 3 else draw(full)


@pytest.mark.parametrize("name", METHODS)
def test_known_frames_stay_and_sampling_is_seeded(name):
    method, lengths = awake(METHODS[name]()), torch.tensor([16, 12])
    text, motion = torch.randn(2, E), torch.randn(2, T, F)
    known = torch.zeros(2, T, dtype=torch.bool)
    known[:, :8] = True
    draws = [
        method.generate(text, lengths, torch.Generator().manual_seed(s), known=known, motion=motion) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert torch.equal(draws[0][:, :8], motion[:, :8])
    with pytest.raises(ValueError, match="both"):
        method.generate(text, lengths, known=known)


@pytest.mark.parametrize("name", METHODS)
def test_updates_give_gradients_and_padding_does_not_count(name):
    method = METHODS[name]().train()
    batch = {"motion": torch.randn(4, T, F), "lengths": torch.tensor([16, 8, 12, 16]), "text_emb": torch.randn(4, E)}
    batch["mask"] = torch.arange(T) < batch["lengths"][:, None]
    losses = []
    for filler in (0.0, 50.0):
        torch.manual_seed(0)
        batch["motion"] = torch.where(batch["mask"][..., None], batch["motion"], torch.tensor(filler))
        for progress in (0.0, 0.9):
            for update in method.updates(batch, progress):
                method.zero_grad()
                update.loss.backward()
                losses.append(float(update.loss.detach()))
    half = len(losses) // 2
    assert losses[:half] == pytest.approx(losses[half:], rel=1e-4, abs=1e-5)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


# EMDM


@pytest.mark.parametrize("steps", [2, 4, 10])
def test_posterior_coefficients_and_pairs(steps):
    d = DenoisingSteps(steps)
    # the mean of x_{t+1} = s_{t+1} x0 must go to s_t x0 (up to the first level's 1e-8)
    assert torch.allclose(d.on_x0 + d.on_next * d.signal[1:], d.signal[:-1], atol=1e-6)
    x0, t = torch.full((200_000, 1), 0.7), torch.full((200_000,), steps // 2)
    generator = torch.Generator().manual_seed(0)
    low, high = d.pair(x0, t, *(torch.randn(x0.shape, generator=generator) for _ in range(2)))
    for x, level in ((low, steps // 2), (high, steps // 2 + 1)):
        s = float(d.signal[level])
        assert float(x.mean()) == pytest.approx(0.7 * s, abs=0.01)
        assert float(x.var()) == pytest.approx(1 - s**2, abs=0.01)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_an_oracle_samples_the_data_exactly(steps):
    d, x0 = DenoisingSteps(steps), torch.randn(5, 3)
    x = torch.randn(5, 3)
    for k in reversed(range(steps)):
        x = d.posterior(x0, x, torch.full((5,), k), torch.randn(5, 3))
    assert torch.allclose(x, x0, atol=1e-6)


def test_adversarial_losses_in_closed_form():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.0])
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    assert float(discriminator_loss(real, fake)) == pytest.approx(
        (softplus(-2) + softplus(1)) / 2 + (softplus(0.5) + softplus(0)) / 2, rel=1e-6
    )
    assert float(adversarial_loss(fake)) == pytest.approx((softplus(-0.5) + softplus(0)) / 2, rel=1e-6)
    x = torch.randn(4, 3, requires_grad=True)
    slope = torch.tensor([1.0, -2.0, 0.5])
    assert float(r1_penalty(x @ slope, x, 0.02)) == pytest.approx(0.01 * float(slope.square().sum()), rel=1e-5)


class _Point(nn.Module):
    """x0 of a number from its noisy value, the time and a latent."""

    features = frames = patch = 1

    def __init__(self, latent):
        super().__init__()
        self.latent = latent
        self.net = nn.Sequential(nn.Linear(2 + latent, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, z, text, mask):
        return self.net(torch.cat([x[:, 0], t[:, None].to(x), z], -1))[:, None]


class _Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x, t, x_next, text, mask):
        return self.net(torch.cat([x[:, 0], t[:, None].to(x), x_next[:, 0]], -1))[:, 0]


def two_modes(adversarial):
    """Train on ±1 with two steps; the share of samples within 0.1 of a mode, and the share above zero."""
    torch.manual_seed(0)
    method = EMDM(
        _Point(4),
        _Judge(),
        lambda p: torch.optim.Adam(p, 1e-3, betas=(0.5, 0.9)),
        lambda p: torch.optim.Adam(p, 1e-3, betas=(0.5, 0.9)),
        DenoisingSteps(2),
        loss=GeometricLoss(features=0.0 if adversarial else 1.0),
        adversarial=float(adversarial),
        dropped=0.0,
        guidance=1.0,
        ema=0.99,
    )
    optimizers = method.optimizers()
    for step in range(5000 if adversarial else 600):
        x = (torch.randint(0, 2, (256, 1, 1)) * 2 - 1).float()
        batch = {
            "motion": x,
            "lengths": torch.ones(256, dtype=torch.long),
            "mask": torch.ones(256, 1, dtype=torch.bool),
            "text_emb": torch.zeros(256, 1),
        }
        for update in method.updates(batch, step / 5000):
            optimizers[update.optimizer].zero_grad()
            update.loss.backward()
            optimizers[update.optimizer].step()
            method.stepped(update.optimizer)
    samples = method.generate(torch.zeros(4000, 1), torch.ones(4000, dtype=torch.long)).flatten()
    return float(((samples.abs() - 1).abs() < 0.1).float().mean()), float((samples > 0).float().mean())


def test_the_denoising_gan_finds_both_modes_and_squared_error_finds_none():
    near, positive = two_modes(adversarial=True)
    assert near >= 0.8 and 0.3 <= positive <= 0.7
    near, _ = two_modes(adversarial=False)
    assert near < 0.2


def test_discriminators_refuse_nothing_and_ignore_padding():
    for judge in (
        MLPDiscriminator(F, T, E, (32, 32, 8), 8, 8),
        EncoderDiscriminator(F, T, E, 16, 1, 2, 16, norm="pre", patch=4),
    ):
        x, t = torch.randn(2, T, F), torch.tensor([0, 3])
        mask = torch.arange(T) < torch.tensor([[16], [8]])
        a = judge(x, t, x, torch.zeros(2, E), mask)
        dirty = torch.where(mask[..., None], x, torch.tensor(9.0))
        clean = torch.where(mask[..., None], x, torch.tensor(0.0))
        assert a.shape == (2,)
        assert torch.allclose(
            judge(dirty * mask[..., None], t, dirty * mask[..., None], torch.zeros(2, E), mask),
            judge(clean, t, clean, torch.zeros(2, E), mask),
            atol=1e-6,
        )


# MARDM


def test_masked_share_is_two_over_pi():
    u = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    count = masked_count(torch.full((200_000,), 64), u)
    assert float(count.double().mean()) / 64 == pytest.approx(2 / math.pi, abs=0.005)
    assert int(count.min()) >= 1
    lengths = torch.tensor([3, 8])
    mask = random_mask(lengths, 8, torch.tensor([0.2, 0.5]))
    assert not mask[0, 3:].any() and mask.sum(1).tolist() == masked_count(lengths, torch.tensor([0.2, 0.5])).tolist()


def test_unmasking_counts_follow_the_cosine_and_end_with_one():
    counts = unmasking_counts(torch.tensor([49, 1]), 18)
    expected = [max(1, round(49 * math.cos(math.pi / 2 * i / 17))) for i in range(18)]
    assert counts[:18, 0].tolist() == expected and int(counts[:18].min()) >= 1 and int(counts[18].max()) == 0


def test_corruption_shares():
    latents, mask = torch.zeros(2000, 16, 3), torch.ones(2000, 16, dtype=torch.bool)
    torch.manual_seed(0)
    out = corrupt(latents, mask, torch.full((3,), 7.0))
    hidden = (out == 7).all(-1).double().mean()
    left = (out == 0).all(-1).double().mean()
    assert float(hidden) == pytest.approx(0.9 * 0.88, abs=0.01) and float(left) == pytest.approx(0.9 * 0.12, abs=0.01)
    untouched = corrupt(torch.ones(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool), torch.full((3,), 7.0))
    assert torch.equal(untouched, torch.ones(1, 4, 3))


@pytest.mark.parametrize("head", [SiTHead, DDPMHead])
def test_a_head_starts_at_zero(head):
    network = DiffusionMLP(8, 6, 16, 2)
    assert float(network(torch.randn(5, 8), torch.rand(5), torch.randn(5, 6)).abs().max()) == 0
    assert float(head(network).loss(torch.randn(5, 8), torch.randn(5, 6))) > 0


class _GaussianVelocity(nn.Module):
    """The exact velocity from N(0, 1) to N(m, s²), data at t = 1."""

    def __init__(self, m, s):
        super().__init__()
        self.m, self.s = m, s

    def forward(self, x, t, z):
        t = t.reshape(-1, *[1] * (x.ndim - 1)).to(x)
        variance = (1 - t) ** 2 + t**2 * self.s**2
        return self.m + (t * self.s**2 - (1 - t)) / variance * (x - t * self.m)


def test_the_flow_of_a_gaussian_lands_on_m_plus_s_x0():
    x0 = torch.randn(50, 3, dtype=torch.float64)
    head = SiTHead(_GaussianVelocity(0.4, 0.6), steps=400)
    out = head.sample(torch.zeros(50, 1, dtype=torch.float64), None, 1.0, lambda: x0)
    assert (out - (0.4 + 0.6 * x0)).abs().max() < 1e-3


def test_the_flow_loss_starts_and_ends_where_it_must():
    torch.manual_seed(0)
    m, s = 0.4, 0.6
    data = m + s * torch.randn(100_000, 1)
    exact = SiTHead(_GaussianVelocity(m, s)).loss(data, torch.zeros(100_000, 1))
    assert float(exact) == pytest.approx(math.pi * s / 2, rel=0.02)
    start = SiTHead(DiffusionMLP(1, 1, 8, 1)).loss(data, torch.zeros(100_000, 1))
    assert float(start) == pytest.approx(s**2 + 1 + m**2, rel=0.02)


def test_the_autoencoder_keeps_lengths_and_does_not_leak():
    coder = MotionAutoencoder(F, 8, 16, dropout=0.0).eval()
    x = torch.randn(1, 16, F)
    length = torch.tensor([16])
    long = torch.cat([x, 5 * torch.randn(1, 8, F)], 1)
    alone = coder.decode(coder.encode(x, length), length)
    batched = coder.decode(coder.encode(long, length), length)
    assert alone.shape == x.shape and (alone - batched[:, :16]).abs().max() < 1e-5


# guidance


def test_guidance_is_linear_and_exact_at_zero_and_one():
    c, u = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.allclose(combine(c, u, 1.0), c) and torch.allclose(combine(c, u, 0.0), u)
    assert torch.allclose(combine(c, u, 2.5), u + 2.5 * (c - u), atol=1e-6)
    torch.manual_seed(0)
    dropped = drop_condition(torch.ones(20_000, 2), 0.1)
    assert float((dropped == 0).all(1).double().mean()) == pytest.approx(0.1, abs=0.01)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="guidance"):
        mdm(dropped=0.0, guidance=2.0)
    with pytest.raises(ValueError, match="lengths"):
        mdm().generate(torch.zeros(2, E), torch.tensor([4]))
    with pytest.raises(ValueError, match="frames and features"):
        wide = {"motion": torch.zeros(2, T, F + 1), "text_emb": torch.zeros(2, E)}
        wide |= {"lengths": torch.tensor([4, 4]), "mask": torch.ones(2, T, dtype=torch.bool)}
        next(iter(mdm().updates(wide, 0.0)))
