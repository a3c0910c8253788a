"""BVH files: channel order, position channels, damaged files, the way out and back."""

import io

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from plugins.motion.bvh import BVH, format_bvh, from_positions, parse, read_bvh, round_trip_error, write_bvh
from plugins.motion.data.synthetic import stick_figure
from plugins.motion.representation import Essential
from plugins.motion.skeletons import BANDAI_NAMCO

# the body moves by the position channels of a joint below the root, each joint has an order of its own
SMALL = """HIERARCHY
ROOT base
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT hips
  {
    OFFSET 500 90 -400
    CHANNELS 6 Zposition Xposition Yposition Yrotation Zrotation Xrotation
    JOINT knee
    {
      OFFSET 0 -40 1
      CHANNELS 3 Xrotation Yrotation Zrotation
      End Site
      {
        OFFSET 0 -40 0
      }
    }
    JOINT hand
    {
      OFFSET 20 30 0
      CHANNELS 1 Xrotation
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.05
1 2 3 10 20 30  7 5 6 40 50 60  11 12 13  70
1 2 3 10 20 30  8 5 6 41 52 63  14 15 16  80
0 0 0 0 0 0  9 5 6 0 0 0  0 0 0  90
"""


def euler(order, degrees):
    return Rotation.from_euler(order, degrees, degrees=True).as_matrix()


def test_channels_are_read_in_their_own_order_and_positions_replace_offsets():
    motion = read_bvh(io.StringIO(SMALL))
    assert motion.skeleton.names == ("base", "hips", "knee", "hand") and motion.skeleton.parents == (-1, 0, 1, 1)
    assert motion.fps == pytest.approx(20)
    base = euler("ZXY", [10, 20, 30])
    hips = base @ euler("YZX", [40, 50, 60])
    at_hips = np.array([1, 2, 3]) + base @ [5, 6, 7]
    expected = np.stack([[1, 2, 3], at_hips, at_hips + hips @ [0, -40, 1], at_hips + hips @ [20, 30, 0]])
    assert np.allclose(motion.positions[0].numpy(), expected, atol=1e-10)
    assert np.allclose(motion.positions[2, 2].numpy(), [5, 6 - 40, 9 + 1])
    hand = Rotation.from_quat(motion.rotations[2, 3, [1, 2, 3, 0]].numpy()).as_matrix()
    assert np.allclose(hand, euler("X", 90), atol=1e-12)


def test_scale_and_stride():
    whole, part = read_bvh(io.StringIO(SMALL)), read_bvh(io.StringIO(SMALL), scale=0.01, stride=2)
    assert part.fps == pytest.approx(10)
    assert torch.allclose(part.positions, 0.01 * whole.positions[::2], atol=1e-12)
    # numbers that are not one frame a line
    head, _, numbers = SMALL.partition("Frame Time: 0.05\n")
    running = head + "Frame Time: 0.05\n" + "\n".join(numbers.split())
    assert torch.allclose(read_bvh(io.StringIO(running), stride=2).positions, whole.positions[::2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("HIERARCHY", "HIERARKY"), "does not start with HIERARCHY"),
        (("CHANNELS 1 Xrotation", "CHANNELS 1 Wrotation"), "joint hand has an unknown channel 'wrotation'"),
        (("    }\n  }\n}\nMOTION", "    }\n  }\nMOTION"), "braces"),
        (("MOTION", "NOTION"), "NOTION|MOTION"),
        (("Frames: 3", "Frames: 4"), "4 frames of 16 channels need 64 numbers, the file has 48"),
        (("Frame Time: 0.05", "Frame Time: 0"), "Frame Time must be positive"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(damage, message, tmp_path):
    path = tmp_path / "broken.bvh"
    path.write_text(SMALL.replace(*damage))
    with pytest.raises(ValueError, match=message) as error:
        read_bvh(path)
    assert "broken.bvh" in str(error.value)


def test_a_stride_is_at_least_one():
    with pytest.raises(ValueError, match="stride"):
        parse(SMALL, 0)


def walk(frames=20):
    return stick_figure("walk-turn-left", "normal", frames, 15.0, torch.Generator().manual_seed(3))


def test_writing_and_reading_again_gives_the_same_positions(tmp_path):
    positions = walk()
    motion = from_positions(positions, BANDAI_NAMCO, 15.0)
    again = read_bvh(write_bvh(tmp_path / "deep" / "walk.bvh", motion), scale=0.01)
    order = [again.skeleton.names.index(name) for name in BANDAI_NAMCO.names]
    assert (again.positions[:, order] - positions).norm(dim=-1).max() < 1e-5
    assert again.fps == pytest.approx(15.0)
    assert 100 * round_trip_error(positions, BANDAI_NAMCO, 15.0).max() < 1e-3  # centimetres


@pytest.mark.parametrize("order", ["ZXY", "XYZ", "YZX"])
def test_the_rotation_order_is_the_writers_choice(order):
    motion = from_positions(walk(), BANDAI_NAMCO, 15.0)
    text = format_bvh(motion, 100, order)
    assert "CHANNELS 3 " + " ".join(f"{a}rotation" for a in order) in text
    assert torch.allclose(read_bvh(io.StringIO(text), 0.01).positions, motion.positions, atol=1e-5)


def test_from_bvh_to_features_and_back_to_bvh():
    representation = Essential(BANDAI_NAMCO, compatible=False)
    source = read_bvh(io.StringIO(format_bvh(from_positions(walk(), BANDAI_NAMCO, 15.0), 100)), 0.01)
    decoded = representation.decode(representation.encode(source.positions))
    assert 100 * round_trip_error(decoded, BANDAI_NAMCO, 15.0).max() < 1e-3
    assert (decoded - representation.canonicalize(source.positions)[:-1]).norm(dim=-1).max() < 1e-10


def test_joints_are_written_depth_first_whatever_their_number():
    motion = from_positions(walk(4), BANDAI_NAMCO, 15.0)
    breadth = sorted(range(21), key=lambda j: len(_ancestors(j)))
    new = {j: i for i, j in enumerate(breadth)}
    from plugins.motion.skeletons import Skeleton

    shuffled = Skeleton(
        tuple(BANDAI_NAMCO.names[j] for j in breadth),
        tuple(new.get(BANDAI_NAMCO.parents[j], -1) for j in breadth),
        motion.skeleton.offsets[breadth],
    )
    other = BVH(shuffled, motion.rotations[:, breadth], motion.translations[:, breadth], 15.0)
    again = read_bvh(io.StringIO(format_bvh(other, 100)), 0.01)
    order = [again.skeleton.names.index(name) for name in BANDAI_NAMCO.names]
    assert torch.allclose(again.positions[:, order], motion.positions, atol=1e-5)


def _ancestors(j):
    return [] if j < 0 else [j, *_ancestors(BANDAI_NAMCO.parents[j])]


def test_motion_inside_the_body_cannot_be_written_silently():
    with pytest.raises(ValueError, match="from_positions"):
        format_bvh(read_bvh(io.StringIO(SMALL)))
    with pytest.raises(ValueError, match="at least one frame"):
        from_positions(torch.zeros(0, 21, 3), BANDAI_NAMCO, 15.0)
