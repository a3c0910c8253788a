"""What methods are made of beside their identities: losses, averages, rates, networks, budgets, precision."""

import math

import pytest
import torch
from torch.nn import functional as F

from plugins.generative.schedules import VPDiscrete
from plugins.generative.solvers import DormandPrince
from plugins.motion.emdm import EMDM, DenoisingSteps, EMDMGenerator, EncoderDiscriminator, geometric_betas
from plugins.motion.guidance import guided
from plugins.motion.losses import GeometricLoss, masked_mean
from plugins.motion.mardm import DiffusionMLP, LengthPredictor, SiTHead, ranks
from plugins.motion.mardm.method import nearest_known
from plugins.motion.mdm import MDM, MDMNetwork, cosine_betas, respaced
from plugins.motion.methods import Averaged
from plugins.motion.modules import MotionGenerators
from plugins.motion.networks import Patches, TransformerLayer, length_mask, sinusoidal, token_lengths

SIZE = {"features": 10, "frames": 8, "text_dim": 5, "width": 16, "layers": 1, "heads": 2, "hidden": 16, "patch": 2}


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-3)


def batch(clips=4, lengths=(8, 6, 5, 8)):
    lengths = torch.tensor(lengths)
    mask = length_mask(lengths, 8)
    motion = torch.randn(clips, 8, 10) * mask[..., None]
    return {"motion": motion, "lengths": lengths, "mask": mask, "text_emb": torch.randn(clips, 5)}


def small_mdm():
    return MDM(MDMNetwork(**SIZE), adam, diffusion_steps=6)


def small_emdm(**options):
    return EMDM(EMDMGenerator(**SIZE, latent=3, mapping=1), EncoderDiscriminator(**SIZE), adam, adam, **options)


# losses


def test_a_masked_mean_is_the_mean_of_each_clip_s_real_frames():
    values = torch.tensor([[[1.0, 3.0], [5.0, 7.0], [100.0, 100.0]], [[4.0, 4.0], [0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert float(masked_mean(values, mask)) == (4.0 + 4.0) / 2
    assert float(masked_mean(values, torch.zeros_like(mask))) == 0


def test_geometric_terms_in_closed_form():
    target, mask = torch.zeros(1, 4, 7), torch.tensor([[True, True, True, False]])
    target[0, 3] = 9.0  # padding
    prediction = torch.zeros(1, 4, 7)
    prediction[0, :3, 4:] = torch.tensor([0.0, 1.0, 3.0])[:, None]  # one joint that moves by 1 and by 2
    prediction[0, :3, :4] = 0.5

    def decode(x):
        return torch.stack([torch.zeros_like(x[..., 4:]), x[..., 4:]], dim=-2)

    loss = GeometricLoss(features=2, positions=3, velocities=5, contacts=7, feet=[1])
    terms = {name: float(value) for name, value in loss(prediction, target, mask, decode).items()}
    assert terms["features"] == pytest.approx(2 * (4 * 3 * 0.25 + 3 * (0 + 1 + 9)) / 21)
    assert terms["positions"] == pytest.approx(3 * (0 + 3 + 27) / 3 / 2)  # two joints
    assert terms["velocities"] == pytest.approx(5 * (1 + 4) / 2)
    assert terms["contacts"] == pytest.approx(7 * (3 + 12) / 2)
    moving = target.clone()
    moving[0, 1:, 4:] = 1.0
    slid = float(loss(moving, moving, mask, decode)["contacts"])
    assert slid == 0  # the first step moves in the data too, and the second stands in both
    with pytest.raises(ValueError, match="feet"):
        GeometricLoss(contacts=1)
    with pytest.raises(ValueError, match="decoder"):
        GeometricLoss(positions=1)(prediction, target, mask)


# averages and rates


def test_an_average_forgets_its_start_and_then_moves_slowly():
    layer = torch.nn.Linear(1, 1)
    average = Averaged(layer, decay=0.5)
    kept = [min(0.5, (1 + n) / (10 + n)) for n in range(30)]
    expected = float(layer.weight.detach())
    for n in range(30):
        with torch.no_grad():
            layer.weight.fill_(float(n))
        average.update(layer)
        expected = kept[n] * expected + (1 - kept[n]) * n
    assert float(average.module.weight) == pytest.approx(expected, rel=1e-5)
    assert not average.train().module.training and not any(p.requires_grad for p in average.parameters())


# networks


def test_attention_is_the_textbook_s():
    layer = TransformerLayer(8, 2, 16, dropout=0.0, norm="post").eval()
    reference = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, F.gelu, batch_first=True).eval()
    pairs = {
        "self_attn.in_proj_weight": layer.project.weight,
        "self_attn.in_proj_bias": layer.project.bias,
        "self_attn.out_proj.weight": layer.output.weight,
        "self_attn.out_proj.bias": layer.output.bias,
        "linear1.weight": layer.inner.weight,
        "linear1.bias": layer.inner.bias,
        "linear2.weight": layer.outer.weight,
        "linear2.bias": layer.outer.bias,
    }
    with torch.no_grad():
        for name, weight in pairs.items():
            weight.normal_(0, 0.3)
            reference.get_parameter(name).copy_(weight)
    x, seen = torch.randn(3, 5, 8), length_mask(torch.tensor([5, 2, 4]), 5)
    ours, theirs = layer(x, seen[:, None, None]), reference(x, src_key_padding_mask=~seen)
    assert torch.allclose(ours[seen], theirs[seen], atol=1e-5)


def test_sinusoids_and_lengths():
    table = sinusoidal(torch.arange(5), 6)
    assert float(table[3, 2]) == pytest.approx(math.sin(3 * 10_000 ** (-2 / 6)), rel=1e-5)
    assert float(table[3, 5]) == pytest.approx(math.cos(3 * 10_000 ** (-4 / 6)), rel=1e-5)
    assert token_lengths(torch.tensor([1, 4, 5]), 4).tolist() == [1, 1, 2]


# diffusions


def test_the_discrete_cosine_follows_its_definition():
    betas = torch.tensor(cosine_betas(1000), dtype=torch.float64)
    f = torch.cos((torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008 * math.pi / 2).square()
    assert torch.allclose(betas, (1 - f[1:] / f[:-1]).clamp(max=0.999), atol=1e-12) and float(betas[-1]) == 0.999
    schedule = VPDiscrete(betas.tolist())
    levels = respaced(schedule, 10)
    assert len(levels) == 11 and float(levels[-1]) == 0
    every = respaced(schedule)
    assert len(every) == 1001 and float(levels[0]) == float(every[0]) and float(levels[-2]) == float(every[-2])
    with pytest.raises(ValueError, match="steps"):
        respaced(schedule, 1)


def test_geometric_noise_powers():
    betas = geometric_betas(4, 0.01, 0.9)
    first = 0.01 * 90 ** torch.tensor(1e-3, dtype=torch.float64)
    last = (1 - first) * torch.cumprod(1 - betas, 0)[-1]
    assert float(1 - last) == pytest.approx(0.9)
    with pytest.raises(ValueError, match="noise power"):
        DenoisingSteps(4, "geometric", 0.1, 20.0)


def test_guided_answers_come_from_the_same_inputs():
    seen = []

    def answer(x, condition):
        seen.append(x)
        return x + condition

    x, condition = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.allclose(guided(answer, condition, 2.5, x), x + 2.5 * condition, atol=1e-6)
    assert torch.equal(seen[0][:2], seen[0][2:])
    assert torch.equal(guided(answer, condition, 1, x), x + condition) and len(seen[-1]) == 2
    assert torch.equal(guided(answer, condition, 0, x), x)


# MARDM's parts


def test_ranks_and_nearest_known_frames():
    scores = torch.tensor([[0.3, 0.1, 0.2, 0.0]])
    assert ranks(scores, torch.tensor([[True, True, True, False]]))[0].tolist() == [2, 0, 1, 3]
    motion = torch.arange(6.0).reshape(1, 6, 1)
    known = torch.tensor([[False, True, False, False, False, True]])
    assert nearest_known(motion, known).flatten().tolist() == [1, 1, 1, 1, 5, 5]
    assert float(nearest_known(motion, torch.zeros_like(known)).abs().max()) == 0


def test_lengths_are_learned_from_texts():
    torch.manual_seed(0)
    predictor = LengthPredictor(4, 3, unit=4, width=32)
    text, lengths = torch.eye(4)[:3], torch.tensor([4, 7, 12])
    optimizer = torch.optim.Adam(predictor.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        predictor.loss(text, lengths).backward()
        optimizer.step()
    drawn = predictor.sample(text.repeat(50, 1), torch.Generator().manual_seed(0)).view(50, 3)
    assert (drawn == torch.tensor([4, 8, 12])).double().mean() > 0.95


# training


def test_the_penalty_is_lazy_and_reaches_the_discriminator_through_attention():
    method, data = small_emdm(penalty_every=3, gamma=5.0).train(), batch()
    seen = []
    for _ in range(4):
        updates = method.updates(data, 0.5)
        first = next(updates)
        method.zero_grad()
        first.loss.backward()
        assert method.discriminator.patches.read.weight.grad.abs().max() > 0
        method.stepped(first.optimizer)
        seen.append("r1" in first.logs and float(first.logs["r1"]) > 0)
        second = next(updates)
        assert set(second.logs) == {"features", "adversarial"}
    assert seen == [True, False, False, True]


def test_a_share_of_the_batch_is_judged():
    sizes = []
    method = small_emdm(adversarial_share=0.5, penalty_every=100).train()
    method.rounds = 1
    method.discriminator.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    for _ in method.updates(batch(), 0.5):
        pass
    assert sizes == [4, 2]  # two real and two drawn pairs, then two drawn ones
    with pytest.raises(ValueError, match="adversarial_share"):
        small_emdm(adversarial_share=0.0)


def test_the_discriminator_judges_the_last_steps_only():
    torch.manual_seed(0)
    method, judged, made = small_emdm(adversarial_steps=3).train(), [], []
    method.discriminator.register_forward_pre_hook(lambda module, inputs: judged.append(inputs[1]))
    method.generator.register_forward_pre_hook(lambda module, inputs: made.append(inputs[1]))
    for _ in range(30):
        for update in method.updates(batch(), 0.5):
            update.loss.backward()
            method.stepped(update.optimizer)
    assert torch.cat(judged).unique().tolist() == [0, 1, 2]
    assert torch.cat(made).unique().tolist() == list(range(method.diffusion.steps))  # the geometric loss is of all
    with pytest.raises(ValueError, match="adversarial_steps = 11"):
        small_emdm(adversarial_steps=11)


@pytest.mark.parametrize("make", [small_mdm, small_emdm])
def test_one_step_lowers_the_error_in_bfloat16_too(make):
    torch.manual_seed(0)
    method, data = make().train(), batch()
    optimizers = method.optimizers()
    errors = []
    for _ in range(60):
        with torch.autocast("cpu", torch.bfloat16):
            for update in method.updates(data, 0.5):
                optimizers[update.optimizer].zero_grad()
                update.loss.backward()
                optimizers[update.optimizer].step()
                method.stepped(update.optimizer)
        errors.append(float(update.logs["features"]))
    assert sum(errors[-10:]) < 0.9 * sum(errors[:10])


def test_budgets_and_rows_are_checked():
    with pytest.raises(ValueError, match="budget"):
        MotionGenerators({"mdm": small_mdm()})
    with pytest.raises(ValueError, match="samplers.x.method"):
        MotionGenerators({"mdm": small_mdm()}, steps=1, samplers={"x": {"method": "mdn"}})
    module = MotionGenerators({"mdm": small_mdm()}, steps=1, samplers={"two": {"method": "mdm", "steps": 2}})
    text, lengths = torch.randn(2, 5), torch.tensor([8, 3])
    made = module.sampler("two")(text, lengths, torch.Generator().manual_seed(0))
    same = module.methods["mdm"].generate(text, lengths, torch.Generator().manual_seed(0), steps=2)
    assert torch.equal(made, same) and float(made[1, 3:].abs().max()) == 0


# overlapping tokens


def test_overlapping_tokens_blend_real_frames_only():
    patches = Patches(3, 8, patch=4, overlap=True)
    tokens, seen = torch.randn(2, 5, 8), length_mask(torch.tensor([3, 5]), 5)
    frames = patches.frames(tokens, seen)
    assert frames.shape == (2, 20, 3)
    assert torch.allclose(frames[0, :12], patches.frames(tokens[:1, :3])[0], atol=1e-6)
    # between two tokens the weight goes from one to the other, an eighth at the ends
    pieces = patches.write(tokens[1]).view(5, 8, 3)
    assert torch.allclose(frames[1, 2], 0.875 * pieces[0, 4] + 0.125 * pieces[1, 0], atol=1e-6)
    assert torch.allclose(frames[1, 0], pieces[0, 2], atol=1e-6)
    with pytest.raises(ValueError, match="even"):
        Patches(3, 8, patch=3, overlap=True)


@pytest.mark.parametrize("make", [MDM, EMDM])
def test_overlapping_tokens_keep_padding_out(make):
    torch.manual_seed(0)
    network = (MDMNetwork if make is MDM else EMDMGenerator)(**SIZE, overlap=True).eval()
    x, text, mask = torch.randn(2, 8, 10), torch.randn(2, 5), length_mask(torch.tensor([4, 8]), 8)
    extra = () if make is MDM else (torch.randn(2, network.latent),)
    t = torch.tensor([1, 1])
    together = network(x, t, *extra, text, mask)
    alone = network(x[:1, :4], t[:1], *(z[:1] for z in extra), text[:1], mask[:1, :4])
    assert torch.allclose(together[:1, :4], alone, atol=1e-5)


def test_the_adaptive_solver_and_the_default_one_draw_the_same_latents():
    torch.manual_seed(0)
    adaptive = SiTHead(DiffusionMLP(8, 6, 32, 2), solver=DormandPrince(rtol=1e-4, atol=1e-6))
    for parameter in adaptive.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    z, null, x = torch.randn(5, 6), torch.zeros(5, 6), torch.randn(5, 8)
    with torch.no_grad():
        exact = adaptive.sample(z, null, 2.5, lambda: x)
        fixed = [SiTHead(adaptive.network, steps=n).sample(z, null, 2.5, lambda: x) for n in (16, 200)]
        assert adaptive.sample(z[:0], None, 1.0, lambda: x[:0]).shape == (0, 8)
    errors = [float((made - exact).abs().max()) for made in fixed]
    assert errors[1] < 0.005 and errors[1] < errors[0] < 0.2
