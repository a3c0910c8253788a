"""IDX and affNIST readers, warps and their recipes, and the data module."""

import gzip
import hashlib
import math
import os
import struct

import numpy as np
import pytest
import torch
from scipy.io import savemat

from framework.errors import DataMissing
from plugins.liegroups.data import (
    RECIPES,
    CanvasMNIST,
    affnist_like,
    affnist_like_maps,
    fit_translations,
    gl2_maps,
    homography_maps,
    load_affnist,
    load_mnist,
    make_set,
    pad_to_canvas,
    parse_idx,
    read_affnist,
    read_idx,
    rotation_maps,
    warp,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, monkeypatch, train=40, test=20):
    """Official-looking files with random ink, with the digests replaced by their own."""
    from plugins.liegroups.data import idx

    generator = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    digests = {}
    for prefix, n in (("train", train), ("t10k", test)):
        images = np.zeros((n, 28, 28), np.uint8)
        images[:, 9:19, 8:20] = generator.integers(50, 255, (n, 10, 12))
        for kind, array in (("images-idx3", images), ("labels-idx1", generator.integers(0, 10, n))):
            data = idx_bytes(array)
            name = f"{prefix}-{kind}-ubyte.gz"
            (folder / "mnist" / name).write_bytes(gzip.compress(data))
            digests[name] = ("0" * 32, hashlib.md5(data).hexdigest())
    monkeypatch.setattr(idx, "_FILES", digests)
    monkeypatch.setenv("FRAMEWORK_DATA", str(folder))


def test_idx_round_trip_and_its_errors(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    data = idx_bytes(array)
    assert (parse_idx(data) == array).all()
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(data))
    assert (read_idx(path, hashlib.md5(data).hexdigest()) == array).all()
    with pytest.raises(ValueError, match="MD5"):
        read_idx(path, "0" * 32)
    for bad, message in ((data[:-1], "bytes"), (b"\0\0\x0d\x01" + data[4:], "unsigned"), (data[:6], "short")):
        with pytest.raises(ValueError, match=message):
            parse_idx(bad)


def test_official_mnist():
    folder = os.environ.get("FRAMEWORK_DATA", "")
    if not os.path.isfile(os.path.join(folder, "mnist", "train-images-idx3-ubyte.gz")):
        pytest.skip("FRAMEWORK_DATA holds no mnist/train-images-idx3-ubyte.gz")
    images, labels = load_mnist(train=False)
    assert images.shape == (10000, 1, 28, 28) and labels.bincount().tolist()[:2] == [980, 1135]
    assert abs(images.mean() - 0.1325) < 1e-3 and images.max() == 1


def test_affnist_reader(tmp_path, monkeypatch):
    """A file of the official layout: one image a column, row by row."""
    images = np.random.default_rng(0).integers(0, 255, (3, 40, 40)).astype(np.uint8)
    transforms = np.arange(18.0).reshape(3, 6)
    record = {"image": images.reshape(3, -1).T, "label_int": np.array([[3, 1, 7]], np.uint8),
              "human_readable_transform": transforms.T}  # fmt: skip
    folder = tmp_path / "affnist" / "test_batches"
    folder.mkdir(parents=True)
    for k in (1, 2, 10):
        savemat(folder / f"{k}.mat", {"affNISTdata": record})
    content = read_affnist(folder / "1.mat")
    assert torch.equal((content["images"][:, 0] * 255).round().byte(), torch.from_numpy(images))
    assert content["labels"].tolist() == [3, 1, 7]
    assert torch.equal(content["transforms"], torch.from_numpy(transforms))
    monkeypatch.setenv("FRAMEWORK_DATA", str(tmp_path))
    assert len(load_affnist("test")[1]) == 9 and len(load_affnist("test", 4)[0]) == 4
    with pytest.raises(DataMissing, match="toronto"):
        load_affnist("training_and_validation")
    savemat(tmp_path / "other.mat", {"x": 1})
    with pytest.raises(ValueError, match="affNISTdata"):
        read_affnist(tmp_path / "other.mat")
    savemat(tmp_path / "small.mat", {"affNISTdata": {"image": images[:, :5, 0].T, "label_int": [1, 2, 3]}})
    with pytest.raises(ValueError, match="1600"):
        read_affnist(tmp_path / "small.mat")


def smooth_images(n: int, side: int = 40) -> torch.Tensor:
    steps = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.exp(-((x - 4) ** 2 / 20 + (y + 2) ** 2 / 60)).expand(n, 1, side, side).contiguous()


def test_warp_is_the_left_action():
    images = smooth_images(3)
    g, h = gl2_maps(3, rng(0)), gl2_maps(3, rng(1))
    torch.testing.assert_close(warp(warp(images, h), g), warp(images, g @ h), rtol=0, atol=0.03)
    quarter = rotation_maps(3, 0.0)
    quarter[:] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(warp(images, quarter), torch.rot90(images, -1, (2, 3)), rtol=0, atol=1e-5)
    shift = torch.eye(3).repeat(3, 1, 1)
    shift[:, 0, 2], shift[:, 1, 2] = 3, -2
    moved = warp(images, shift)[..., 2:-2, 4:-4]
    torch.testing.assert_close(moved, images.roll((-2, 3), (2, 3))[..., 2:-2, 4:-4], rtol=0, atol=1e-4)


def test_projective_warp_agrees_with_its_analytic_image():
    side = 40
    h = homography_maps(1, 0.3, side, rng(0))
    steps = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1) @ torch.linalg.inv(h[0]).T
    u, v = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    exact = torch.exp(-((u - 4) ** 2 / 20 + (v + 2) ** 2 / 60))
    inner = slice(8, 32)
    torch.testing.assert_close(
        warp(smooth_images(1), h)[0, 0, inner, inner].double(), exact[inner, inner], rtol=0, atol=0.02
    )


def test_recipes_keep_their_ranges():
    n = 4000
    for maps, scale, shear in ((affnist_like_maps(n, rng()), (0.8, 1.2), 0.2), (gl2_maps(n, rng()), (0.8, 1.2), None)):
        q, r = torch.linalg.qr(maps)
        sign = r.diagonal(dim1=-2, dim2=-1).sign()
        r = r * sign.unsqueeze(-1)
        assert r[:, 0, 0].min() >= scale[0] and r[:, 0, 0].max() <= scale[1]
        assert r[:, 1, 1].min() >= scale[0] and r[:, 1, 1].max() <= scale[1]
        ratio = (r[:, 0, 1] / r[:, 1, 1]).abs().max()
        bound = shear or math.tan(math.radians(10))
        assert 0.97 * bound < ratio <= bound + 1e-9
    angles = torch.atan2(q[:, 1, 0] * sign[:, 0], q[:, 0, 0] * sign[:, 0])
    assert angles.abs().max() > 3.1, "GL2-MNIST turns all the way"
    c = homography_maps(n, 0.3, 40, rng())
    c = torch.linalg.solve(c[:, :2, :2].mT, c[:, 2, :2].unsqueeze(-1)).squeeze(-1)
    assert c.norm(dim=-1).max() <= 0.3 / 20 * 1.3
    with pytest.raises(ValueError, match="strength"):
        homography_maps(1, 1.0)


def test_translations_keep_the_ink_inside_and_reach_every_border():
    image = torch.zeros(400, 1, 40, 40)
    image[:, :, 10:18, 14:30] = 1
    shifts = fit_translations(image, rng())
    assert shifts[:, 0].min() == -14 and shifts[:, 0].max() == 10
    assert shifts[:, 1].min() == -10 and shifts[:, 1].max() == 22
    moved = affnist_like(image, rng())
    assert (moved.sum((1, 2, 3)) > 0.5 * 128 * 0.64).all()
    assert fit_translations(torch.zeros(3, 1, 40, 40), rng()).eq(0).all()
    assert fit_translations(torch.ones(3, 1, 40, 40), rng()).eq(0).all()


def test_sets_are_reproducible_and_named():
    images = pad_to_canvas(torch.rand(5, 1, 28, 28))
    for name in RECIPES:
        made = make_set(name, images, 3)
        assert torch.equal(made, make_set(name, images, 3)) and made.shape == images.shape
        assert name == "padded" or not torch.equal(made, make_set(name, images, 4))
        assert made.min() >= 0 and made.max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="no recipe"):
        make_set("elastic", images, 0)
    with pytest.raises(ValueError, match="centred"):
        pad_to_canvas(torch.rand(1, 1, 27, 27))


def test_data_module(tmp_path, monkeypatch):
    write_mnist(tmp_path, monkeypatch)
    data = CanvasMNIST(train_images=20, val_images=10, test_images=8, test_sets=["padded", "gl2"], batch_size=5)
    data.setup("fit")
    data.setup("test")
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (5, 1, 20, 20) and labels.shape == (5,) and images[..., 0, 0].eq(0).all()
    assert len(data.train_set) == 20 and len(data.val_set) == 10
    loaders = data.test_dataloader()
    assert [len(loader.dataset) for loader in loaders] == [8, 8]
    assert torch.equal(loaders[0].dataset.tensors[1], loaders[1].dataset.tensors[1])
    everything = CanvasMNIST(train_images=None, val_images=10, test_images=None)
    everything.setup("fit")
    everything.setup("test")
    assert len(everything.train_set) == 30 and len(everything.tests[0]) == 20
    with pytest.raises(ValueError, match="train_images=35"):
        CanvasMNIST(train_images=35, val_images=10).setup("fit")
    with pytest.raises(DataMissing, match="affNIST is not in the data folder"):
        CanvasMNIST(test_sets=["padded", "affnist"]).setup("fit")
    for options, message in (({"pool": 3}, "pool"), ({"test_sets": ["x"]}, "recipe"), ({"test_sets": []}, "empty")):
        with pytest.raises(ValueError, match=message):
            CanvasMNIST(**options)
