"""The main job in miniature: objective, averaging, training with exact resume, sampling and its judgement."""

from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint
from torch.utils.data import DataLoader

from plugins.generative.data import DigitsDataModule
from plugins.generative.ema import PowerEMA, power_exponent
from plugins.generative.grids import karras
from plugins.generative.metrics import Reference, matched_subsets
from plugins.generative.modules import FlowMatching
from plugins.generative.networks import ConvClassifier, UNet
from plugins.generative.objectives import fit_flow_matching, flow_matching_loss, stratified_times
from plugins.generative.solvers import DPMSolverPP2M, Euler, Heun


def module(**options):
    torch.manual_seed(0)
    return FlowMatching(
        **{
            "network": UNet(width=8, num_classes=10),
            "classifier": ConvClassifier(width=4),
            "optimizer": partial(torch.optim.AdamW, lr=2e-3),
            "solvers": {"euler": Euler(), "heun": Heun(), "dpm": DPMSolverPP2M()},
            "grid": partial(karras, sigma_max=80.0, sigma_min=0.01),
            "nfe": [4, 6],
            "scheduler": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=2e-3, cycle_momentum=False),
            "fast": True,
            **options,
        }
    )


def trainer(folder, epochs, *callbacks, **options):
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[*callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0,
        **options,
    )


# objective


def test_loss_of_the_optimal_velocity_is_the_variance_it_cannot_explain():
    """For data N(0, I): E[noise - x0 | x_t] = (2t - 1) / ((1 - t)^2 + t^2) x_t, leaving 1 / ((1 - t)^2 + t^2)."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(200_000, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    for time in (0.0, 0.3, 0.5, 1.0):
        spread = (1 - time) ** 2 + time**2
        t = torch.full((len(x0),), time, dtype=torch.float64)
        best = flow_matching_loss(lambda x, t, c, k=(2 * time - 1) / spread: k * x, x0, t, noise)
        assert best.item() == pytest.approx(1 / spread, rel=0.01)
        assert best < flow_matching_loss(lambda x, t, c, k=(2 * time - 1) / spread: (k + 0.1) * x, x0, t, noise)


def test_loss_hands_labels_and_times_on_and_refuses_other_shapes():
    seen = {}

    def network(x, t, c):
        seen.update(t=t, c=c)
        return torch.zeros_like(x)

    t, c = torch.tensor([0.2, 0.8]), torch.tensor([3, 4])
    flow_matching_loss(network, torch.zeros(2, 1, 4, 4), t, torch.ones(2, 1, 4, 4), c)
    assert seen["t"] is t and seen["c"] is c
    with pytest.raises(ValueError, match="do not belong together"):
        flow_matching_loss(network, torch.zeros(2, 1), torch.zeros(3), torch.zeros(2, 1))


def test_times_fill_each_stratum_once():
    t = stratified_times(50, torch.Generator().manual_seed(0))
    assert (t * 50).long().tolist() == list(range(50))
    assert stratified_times(0).shape == (0,)


def test_plain_training_loop_learns_and_repeats_itself():
    data = DigitsDataModule()

    def loss_after(steps):
        torch.manual_seed(0)
        network = UNet(width=8, num_classes=10)
        with torch.inference_mode():
            fit_flow_matching(network, *data.train_set.tensors, steps=steps, batch_size=64, progress=False)
        images, _ = data.heldout_set.tensors
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(images.shape, generator=generator)
        with torch.no_grad():
            return flow_matching_loss(network, images, stratified_times(len(images), generator), noise).item()

    one, many = loss_after(1), loss_after(40)
    assert many < 0.75 * one
    assert loss_after(1) == one


# averaging


def test_power_exponents_are_the_published_ones():
    for width, exponent in ((0.05, 16.97), (0.10, 6.94), (0.15, 3.56)):
        assert power_exponent(width) == pytest.approx(exponent, abs=5e-3)
    for width in (0.0, 0.3):
        with pytest.raises(ValueError, match="width"):
            power_exponent(width)


def test_power_average_follows_its_profile():
    """After n steps, step k weighs about tau^gamma at tau = k / n, with standard deviation `width` about its mean."""
    ema, n = PowerEMA(0.1), 4000
    # the average of the indicators of all steps is the vector of their weights
    weights = torch.zeros(n, dtype=torch.float64)
    for step in range(n):
        indicator = torch.zeros(n, dtype=torch.float64)
        indicator[step] = 1
        if step == 0:
            weights.copy_(indicator)
        else:
            ema._average([weights], [indicator], step)
    tau = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert weights.sum().item() == pytest.approx(1)
    mean = (weights * tau).sum()
    assert (weights * (tau - mean) ** 2).sum().sqrt().item() == pytest.approx(0.1, rel=1e-2)
    profile = tau**ema.exponent
    torch.testing.assert_close(weights[2000:], (profile / profile.sum())[2000:], rtol=1e-2, atol=0)


def test_training_resumes_bitwise_with_averages_from_a_weights_only_checkpoint(tmp_path):
    def fit(folder, epochs, start=None):
        model = module()
        keep = ModelCheckpoint(dirpath=folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        control = LambdaCallback(
            on_train_batch_start=lambda run, *_: torch.manual_seed(run.global_step),
            on_train_epoch_end=lambda run, _: setattr(run, "should_stop", run.current_epoch == epochs - 1),
        )
        run = trainer(folder, 4, PowerEMA(0.1), control, keep, limit_train_batches=3)
        run.fit(model, Ordered(), ckpt_path=start, weights_only=True)
        return model.state_dict(), torch.load(folder / f"epoch={epochs - 1}.ckpt", weights_only=True)

    whole, whole_file = fit(tmp_path / "whole", 4)
    fit(tmp_path / "parts", 2)
    resumed, resumed_file = fit(tmp_path / "parts", 4, tmp_path / "parts" / "epoch=1.ckpt")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    for kind in ("state_dict", "current_model_state"):
        assert all(torch.equal(resumed_file[kind][name], value) for name, value in whole_file[kind].items())
    # the model that fit leaves behind is the average, and that is not the raw weights
    name = "network.conv_in.weight"
    assert torch.equal(whole[name], whole_file["state_dict"][name])
    assert not torch.equal(whole[name], whole_file["current_model_state"][name])


class Ordered(DigitsDataModule):
    """Batches in the same order every epoch: shuffling that resumes is the framework's business."""

    def train_dataloader(self):
        return DataLoader(self.train_set, self.batch_size, drop_last=True)


# module


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model after a few epochs, its data and what its test stage logged."""
    folder = tmp_path_factory.mktemp("digits")
    model, data = module(), DigitsDataModule()
    torch.manual_seed(0)
    run = trainer(folder, 8, PowerEMA(0.1))
    run.fit(model, data)
    fitted = dict(run.logged_metrics)
    run.test(model, data, verbose=False)
    return model, data, fitted, dict(run.logged_metrics), folder


def test_fit_logs_falling_losses(trained):
    _, _, fitted, tested, _ = trained
    assert fitted["val/loss"] < 0.9
    assert fitted["val/classifier_accuracy"] > 0.5
    assert tested["test/loss"] == pytest.approx(fitted["val/loss"].item(), rel=1e-5)


def test_test_stage_logs_every_metric_and_its_floor(trained):
    _, _, _, tested, folder = trained
    kinds = ["sliced_wasserstein", "frechet_distance", "classifier_confidence", "class_accuracy", "class_coverage"]
    for kind in kinds:
        for run in ("floor", "euler/nfe4", "heun/nfe4", "dpm/nfe4"):
            assert torch.isfinite(tested[f"{kind}/{run}"])
    assert tested["sliced_wasserstein/floor"] < tested["sliced_wasserstein/heun/nfe4"]
    assert {path.name for path in (folder / "figures").iterdir()} == {"samples.png", "quality_against_nfe.png"}


def test_samples_repeat_under_their_seed_and_stay_in_range(trained):
    model, _, _, _, _ = trained
    labels = torch.arange(10)
    one, two = (model.generate(Euler(), labels, 4, (1, 8, 8)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (10, 1, 8, 8) and one.abs().max() <= 1
    model.sample_seed = 1
    assert not torch.equal(one, model.generate(Euler(), labels, 4, (1, 8, 8)))
    model.sample_seed = 0


@torch.no_grad()
def test_guidance_extrapolates_from_the_null_class(trained):
    model, _, _, _, _ = trained
    y, sigma = torch.randn(4, 1, 8, 8), torch.tensor(1.5, dtype=torch.float64)
    labels = torch.arange(4)
    without, given = model.denoiser(None)(y, sigma), model.denoiser(labels, 1.0)(y, sigma)
    assert not torch.allclose(without, given)
    assert torch.equal(model.denoiser(labels, 0.0)(y, sigma), without)
    torch.testing.assert_close(model.denoiser(labels, 2.5)(y, sigma), without + 2.5 * (given - without))
    # D = x - t u at x = y / (1 + sigma), t = sigma / (1 + sigma)
    t = torch.full((4,), 0.6)
    torch.testing.assert_close(given, y / 2.5 - 0.6 * model.network(y / 2.5, t, labels))


def test_unlabelled_run_has_no_class_accuracy(trained, tmp_path):
    model, data, _, _, _ = trained
    unlabelled = module(guidance_scale=0.0, solvers={"euler": Euler()})
    unlabelled.load_state_dict(model.state_dict())
    run = trainer(tmp_path, 1)
    run.test(unlabelled, data, verbose=False)
    logged = run.logged_metrics
    assert "class_accuracy/euler/nfe4" not in logged and "class_coverage/euler/nfe4" in logged


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classifier": ConvClassifier(num_classes=9)}, "num_classes"),
        ({"label_dropout": 1.5}, "label_dropout"),
        ({"guidance_scale": -1.0}, "guidance_scale"),
        ({"guidance_scale": 2.0, "label_dropout": 0.0}, "null class"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_evaluations_a_solver_cannot_spend_are_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="Heun spends 4 evaluations on a grid for 5; choose an nfe divisible by 2"):
        module(nfe=[5])


# judgement


def test_reference_scores_real_images_better_than_noise_and_ignores_the_scale_of_the_features(trained):
    model, data, _, _, _ = trained
    (train, train_labels), (real, labels) = data.train_set.tensors, data.heldout_set.tensors
    reference = Reference(model.classifier, real, train)
    floor = reference.distances(train[matched_subsets(train_labels, labels)[0]])
    noise = reference.distances(torch.rand_like(real) * 2 - 1)
    assert all(floor[name] < 0.5 * noise[name] for name in floor)
    assert reference.distances(real)["frechet_distance"] == pytest.approx(0, abs=1e-6)
    scaled = ConvClassifier(width=4)
    scaled.load_state_dict(model.classifier.state_dict())
    scaled.features = torch.nn.Sequential(scaled.features, Scale(7.0))
    again = Reference(scaled, real, train).distances(train[:450])["frechet_distance"]
    assert again == pytest.approx(reference.distances(train[:450])["frechet_distance"], rel=1e-5)


class Scale(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_matched_subsets_are_disjoint_and_keep_the_class_counts():
    labels = torch.tensor([0, 1] * 10 + [2] * 3)
    like = torch.tensor([0, 0, 0, 1, 1, 2])
    subsets = matched_subsets(labels, like)
    assert len(subsets) == 3
    assert len(torch.cat(subsets).unique()) == 18
    assert all(torch.equal(torch.bincount(labels[subset]), torch.tensor([3, 2, 1])) for subset in subsets)
    with pytest.raises(ValueError, match="class 2: 4 samples wanted, 3 there"):
        matched_subsets(labels, torch.tensor([2] * 4))
