"""Metrics in closed form, the judge, the viewers, and the studies that use a trained run."""

import json
import re

import pytest
import torch

from plugins.motion.data import StickFigures
from plugins.motion.data.synthetic import stick_figure
from plugins.motion.evaluation import evaluate
from plugins.motion.evaluation.training import EvaluatorSettings, fingerprint, train_evaluator
from plugins.motion.metrics import (
    PhysicalChecks,
    acceleration_rms,
    confidence_interval,
    distinct_pools,
    diversity,
    foot_skating,
    frechet_distance,
    matching_distance,
    multimodality,
    r_precision,
)
from plugins.motion.skeletons import BANDAI_NAMCO
from plugins.motion.viewers import Clip, sides, write_gif, write_html


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_frechet_distance_in_closed_form():
    x = torch.randn(400, 6, generator=seeded(), dtype=torch.float64)
    assert frechet_distance(x, x) < 1e-6
    shift = torch.arange(6.0).double()
    assert frechet_distance(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-6)
    centred = x - x.mean(0)
    trace = float(torch.trace(torch.cov(centred.T)))
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * trace, rel=1e-6)
    # fewer samples than dimensions: singular covariances are no trouble
    few = torch.randn(4, 20, generator=seeded(), dtype=torch.float64)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)


def test_pools_hold_distinct_cells_and_retrieval_is_exact():
    cells = torch.arange(40).repeat_interleave(3)
    pools = distinct_pools(cells, 32, 10, seeded())
    assert pools.shape == (10, 32) and all(len(set(cells[p].tolist())) == 32 for p in pools)
    text = torch.eye(120)
    assert r_precision(text, text, pools)[1] == 1
    # random embeddings: chance is k in 32
    a, b = torch.randn(120, 8, generator=seeded(1)), torch.randn(120, 8, generator=seeded(2))
    chance = r_precision(a, b, distinct_pools(cells, 32, 400, seeded(3)))
    assert chance[1] == pytest.approx(1 / 32, abs=0.02) and chance[3] == pytest.approx(3 / 32, abs=0.03)
    assert matching_distance(torch.zeros(5, 3), torch.full((5, 3), 2.0)) == pytest.approx(2 * 3**0.5)


def test_variety_in_closed_form():
    same = torch.ones(50, 4)
    assert diversity(same, 30, seeded()) == 0
    two = torch.cat([torch.zeros(300, 1), torch.ones(300, 1)])
    assert diversity(two, 300, seeded()) == pytest.approx(0.5, abs=0.1)
    cells = torch.tensor([0] * 300 + [1] * 300)
    assert multimodality(two, cells, 10, seeded()) == 0


def test_intervals():
    found = confidence_interval([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half_width > 0 and confidence_interval([5.0]).mean == 5


def test_acceleration_of_a_parabola_and_padding():
    t = torch.arange(20.0, dtype=torch.float64) / 10
    positions = (0.5 * 3.0 * t**2)[None, :, None, None] * torch.tensor([1.0, 0.0, 0.0]).double()
    positions = positions.expand(1, -1, 4, -1).clone()
    mask = torch.ones(1, 20, dtype=torch.bool)
    assert float(acceleration_rms(positions, mask, 10.0)) == pytest.approx(3.0, rel=1e-6)
    padded, cut = positions.clone(), mask.clone()
    cut[:, 12:] = False
    padded[:, 12:] = 100
    assert float(acceleration_rms(padded, cut, 10.0)) == pytest.approx(3.0, rel=1e-6)


def test_skating_needs_contact_and_speed():
    positions = torch.zeros(1, 30, 3, 3, dtype=torch.float64)
    mask = torch.ones(1, 30, dtype=torch.bool)
    assert float(foot_skating(positions, mask, (1, 2), 20.0)) == 0
    sliding = positions.clone()
    sliding[..., 0] = torch.arange(30.0)[:, None] * 0.1  # 2 m/s on the floor
    assert float(foot_skating(sliding, mask, (1, 2), 20.0)) > 0.8
    sliding[..., 1, 1], sliding[..., 2, :] = 1.0, 0.0  # the same in the air, the other foot standing on the floor
    assert float(foot_skating(sliding, mask, (1, 2), 20.0)) == 0


def test_physical_checks_tell_left_from_right():
    contents = ("walk-turn-left", "walk-turn-right", "raise-up-left-hand", "raise-up-right-hand", "walk", "run")
    made = torch.stack([stick_figure(c, "normal", 40, 15.0, seeded(k)) for k, c in enumerate(contents)])
    mask, content = torch.ones(6, 40, dtype=torch.bool), torch.arange(6)
    checks = PhysicalChecks(contents, BANDAI_NAMCO.face_joints, BANDAI_NAMCO.hands, 15.0).calibrated(
        made, mask, content
    )
    passed, checked = checks(made, mask, content)
    assert checked.all() and passed.all()
    swapped = torch.tensor([1, 0, 3, 2, 5, 4])
    passed, checked = checks(made, mask, swapped)
    assert checked.all() and not passed.any()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MOTION_CACHE", str(tmp_path_factory.mktemp("motion")))
    module = StickFigures(clips_per_cell=3, frames=32)
    module.setup()
    yield module
    patch.undo()


def test_the_judge_is_deterministic_and_learns(data):
    settings = EvaluatorSettings(steps=120, width=32, embedding=16)
    state = torch.random.get_rng_state()
    a, b = (train_evaluator(data.train_set, 10, 7, None, settings, progress=False) for _ in range(2))
    assert fingerprint(a) == fingerprint(b) and torch.equal(state, torch.random.get_rng_state())
    assert not any(p.requires_grad for p in a.parameters())
    out = a(data.test_set.motion, data.test_set.mask)
    assert float((out.content.argmax(-1) == data.test_set.content).float().mean()) > 0.5  # chance is 0.1
    # what lies in the padding is not seen
    dirty = torch.where(data.test_set.mask[..., None], data.test_set.motion, torch.tensor(7.0))
    assert torch.allclose(a(dirty, data.test_set.mask).embedding, out.embedding, atol=1e-5)


def test_every_table_holds_the_rows_that_keep_it_honest(data):
    judge = train_evaluator(data.train_set, 10, 7, None, EvaluatorSettings(steps=60, width=32, embedding=16), False)
    test = data.test_set

    def perfect(text_emb, lengths, generator):
        match = torch.cdist(text_emb, test.text_emb).argmin(1)
        return test.motion[match] * (torch.arange(32) < lengths[:, None])[..., None]

    table = evaluate({"perfect": perfect}, data, (0, 1), evaluator=judge, timed=1, progress=False)
    metrics = table.metrics()
    for row in ("perfect", "real", "frozen_frame", "mean_motion", "shuffled_labels", "jittered_real"):
        for metric in ("frechet_distance", "accuracy_content", "accuracy_style", "physical", "skating"):
            assert f"{metric}/{row}" in metrics
    assert metrics["frechet_distance/perfect"] < metrics["frechet_distance/mean_motion"]
    assert metrics["acceleration_rms/frozen_frame"] < 1e-6
    assert metrics["acceleration_rms/jittered_real"] > 2 * metrics["acceleration_rms/real"]
    assert metrics["accuracy_content/shuffled_labels"] < 0.5 * metrics["accuracy_content/real"]
    with pytest.raises(ValueError, match="real"):
        evaluate({"real": perfect}, data, evaluator=judge, progress=False)


def test_the_page_stands_alone_and_holds_every_clip(tmp_path):
    left, right = sides(BANDAI_NAMCO.names)
    assert BANDAI_NAMCO.names.index("Hand_L") in left and BANDAI_NAMCO.names.index("Hand_R") in right
    clips = [
        Clip(stick_figure("walk", "normal", 12, 15.0, seeded()), BANDAI_NAMCO.parents, f"<b>walk {k}", "A & B", "row",
             15.0, left, right, torch.arange(12) > 5)
        for k in range(3)
    ]  # fmt: skip
    page = write_html(tmp_path / "page.html", clips, "Motions").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page) and "fetch(" not in page
    assert page.count("walk ") >= 3 and "<b>walk 0" not in page.split("<script")[0]
    gif = write_gif(tmp_path / "clip.gif", clips[:1])
    assert gif.read_bytes()[:6] in (b"GIF89a", b"GIF87a")
    with pytest.raises(ValueError, match="positions"):
        Clip(torch.zeros(3, 2, 3), BANDAI_NAMCO.parents)


def test_from_a_run_folder_to_motion_and_edits(tmp_path, monkeypatch):
    from framework.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["framework"])

    def launch(*overrides):
        monkeypatch.setattr("sys.argv", ["framework", *overrides])
        code = main()
        return code or 0

    assert launch("+experiment=motion/generate") != 0  # nothing is trained yet
    assert launch("+experiment=motion/mdm", "data=motion/synthetic", "debug=fast") == 0
    assert launch("+experiment=motion/generate", "prompt=a person runs", "model.sampler=mdm_ddim10") == 0
    (folder,) = [p.parent for p in (tmp_path / "runs" / "motion" / "generate").glob("*/generated.html")]
    assert len(list(folder.glob("*.bvh"))) == 1 and len(list(folder.glob("*.gif"))) == 1
    assert launch("+experiment=motion/edit", "model.sampler=mdm_ddim10", "model.clips=2", "model.task=continue") == 0
    (folder,) = [p.parent for p in (tmp_path / "runs" / "motion" / "edit").glob("*/edited.html")]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["error/given"] < 1e-5 and metrics["error/generated"] > 0
