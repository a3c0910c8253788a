"""Skeletons: joint names, parents, offsets, and which joints mean left, right, hips, shoulders and feet.

World axes everywhere: y up, in the rest pose the body faces +z. For HumanML3D and KIT the offsets are the unit
directions of the published preprocessing (no lengths); ``with_lengths`` turns them into a body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A tree of J joints, parents before children.

    Args:
        names: J joint names.
        parents: J indices; −1 for the root, which comes first.
        offsets: (J, 3) positions relative to the parent in the rest pose; the root's is zero.
        chains: paths through the tree from the root or a branching joint outwards, for swing inverse kinematics.
        face_joints: right hip, left hip, right shoulder, left shoulder: what tells the heading.
        feet: left ankle, left toe, right ankle, right toe.
        hands: left wrist, right wrist.
        contact_threshold: a foot joint counts as planted while its squared displacement between two frames is
            smaller (units² per frame²).
        leg: the two joints below the hip whose offset lengths measure a leg.

    Raises:
        ValueError: lengths differ, a parent comes after its child, or an index is out of range.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Tensor
    chains: tuple[tuple[int, ...], ...] = ()
    face_joints: tuple[int, int, int, int] | None = None
    feet: tuple[int, int, int, int] | None = None
    hands: tuple[int, int] | None = None
    contact_threshold: float = 0.002
    leg: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        offsets = torch.as_tensor(np.asarray(self.offsets), dtype=torch.float64)
        object.__setattr__(self, "offsets", offsets)
        for field in ("names", "parents"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "chains", tuple(tuple(chain) for chain in self.chains))
        joints = len(self.names)
        if len(self.parents) != joints or offsets.shape != (joints, 3):
            raise ValueError(
                f"{joints} names, {len(self.parents)} parents and offsets {tuple(offsets.shape)} do not make a skeleton"
            )
        if joints and self.parents[0] != -1:
            raise ValueError("joint 0 must be the root, with parent −1")
        for j, parent in enumerate(self.parents[1:], 1):
            if not 0 <= parent < j:
                raise ValueError(f"joint {j} ({self.names[j]}) has parent {parent}: parents must come before children")
        for chain in self.chains:
            for above, below in zip(chain, chain[1:], strict=False):
                if self.parents[below] != above:
                    raise ValueError(f"chain {chain} jumps from joint {above} to {below}, which is not its child")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Skeleton)
            and self.names == other.names
            and self.parents == other.parents
            and torch.equal(self.offsets, other.offsets)
        )

    def __hash__(self) -> int:
        return hash((self.names, self.parents))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The children of every joint."""
        below: list[list[int]] = [[] for _ in self.parents]
        for j, parent in enumerate(self.parents[1:], 1):
            below[parent].append(j)
        return tuple(tuple(c) for c in below)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) pairs, for drawing."""
        return tuple((parent, j) for j, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """For every joint the one on the other side of the body; itself in the middle. By name."""
        index = {name.lower(): j for j, name in enumerate(self.names)}
        swap = []
        for j, name in enumerate(self.names):
            swap.append(next((index[n] for n in _other_side(name.lower()) if n in index), j))
        return tuple(swap)

    def index(self, name: str) -> int:
        """Joint number of a name.

        Raises:
            ValueError: no such joint; lists those there are.
        """
        if name not in self.names:
            raise ValueError(f"there is no joint {name!r} among {', '.join(self.names)}")
        return self.names.index(name)

    def lengths(self, positions: Tensor) -> Tensor:
        """Bone lengths (…, J) of positions (…, J, 3); zero for the root."""
        parents = torch.tensor([max(p, 0) for p in self.parents], device=positions.device)
        return torch.linalg.vector_norm(positions - positions[..., parents, :], dim=-1)

    def with_lengths(self, positions: Tensor) -> Skeleton:
        """This skeleton with bones as long as those of one frame (J, 3), in its own rest directions."""
        if positions.shape != (len(self), 3):
            raise ValueError(f"positions must be one frame ({len(self)}, 3), not {tuple(positions.shape)}")
        norm = torch.linalg.vector_norm(self.offsets, dim=-1, keepdim=True)
        direction = self.offsets / torch.where(norm > 0, norm, torch.ones_like(norm))
        return dataclasses.replace(self, offsets=direction * self.lengths(positions.double()).cpu()[:, None])

    def require(self, *fields: str) -> None:
        """Raise a ValueError unless the named fields, such as ``feet``, are given."""
        for field in fields:
            if not getattr(self, field):
                raise ValueError(f"this needs a skeleton with {field}; set Skeleton(..., {field}=...)")


def _other_side(name: str) -> list[str]:
    found = []
    for one, other in (("left", "right"), ("right", "left")):
        if one in name:
            found.append(name.replace(one, other))
    for one, other in (("l", "r"), ("r", "l")):
        for shape in ("_{}", ".{}"):
            if name.endswith(shape.format(one)):
                found.append(name[:-1] + other)
        if name.startswith(f"{one}_"):
            found.append(other + name[1:])
    return found


def _build(tree: Sequence[tuple[str, int, tuple[float, float, float]]], **fields: object) -> Skeleton:
    names, parents, offsets = zip(*tree, strict=True)
    return Skeleton(names, parents, torch.tensor(offsets, dtype=torch.float64), **fields)  # type: ignore[arg-type]


# Bandai-Namco-Research-Motiondataset-2 without its joint_Root, metres, arms hanging down
BANDAI_NAMCO = _build(
    [
        ("Hips", -1, (0, 0, 0)),
        ("Spine", 0, (0, 0.157357, 0)),
        ("Chest", 1, (0, 0.0898455, -0.00406207)),
        ("Neck", 2, (0, 0.163773, 0)),
        ("Head", 3, (0, 0.0645672, 0)),
        ("Shoulder_L", 2, (0.0498039, 0.129943, -0.00242716)),
        ("UpperArm_L", 5, (0.0534811, 0, 0)),
        ("LowerArm_L", 6, (0, -0.2432875, 0)),
        ("Hand_L", 7, (0, -0.2229155, 0)),
        ("Shoulder_R", 2, (-0.0498039, 0.129943, -0.00242716)),
        ("UpperArm_R", 9, (-0.0534811, 0, 0)),
        ("LowerArm_R", 10, (0, -0.2432875, 0)),
        ("Hand_R", 11, (0, -0.2229155, 0)),
        ("UpperLeg_L", 0, (0.0646944, -0.021925, 0)),
        ("LowerLeg_L", 13, (0, -0.3908111, 0)),
        ("Foot_L", 14, (0, -0.4098540, 0)),
        ("Toes_L", 15, (0, 0, 0.117543)),
        ("UpperLeg_R", 0, (-0.0646944, -0.021925, 0)),
        ("LowerLeg_R", 17, (0, -0.3908111, 0)),
        ("Foot_R", 18, (0, -0.4098540, 0)),
        ("Toes_R", 19, (0, 0, 0.117543)),
    ],
    chains=((0, 17, 18, 19, 20), (0, 13, 14, 15, 16), (0, 1, 2, 3, 4), (2, 9, 10, 11, 12), (2, 5, 6, 7, 8)),
    face_joints=(17, 13, 10, 6),
    feet=(15, 16, 19, 20),
    hands=(8, 12),
    leg=(14, 15),
)

# the 22 SMPL joints with the rest directions of the published preprocessing (Guo et al. 2022)
HUMANML3D = _build(
    [
        ("pelvis", -1, (0, 0, 0)),
        ("left_hip", 0, (1, 0, 0)),
        ("right_hip", 0, (-1, 0, 0)),
        ("spine1", 0, (0, 1, 0)),
        ("left_knee", 1, (0, -1, 0)),
        ("right_knee", 2, (0, -1, 0)),
        ("spine2", 3, (0, 1, 0)),
        ("left_ankle", 4, (0, -1, 0)),
        ("right_ankle", 5, (0, -1, 0)),
        ("spine3", 6, (0, 1, 0)),
        ("left_foot", 7, (0, 0, 1)),
        ("right_foot", 8, (0, 0, 1)),
        ("neck", 9, (0, 1, 0)),
        ("left_collar", 9, (1, 0, 0)),
        ("right_collar", 9, (-1, 0, 0)),
        ("head", 12, (0, 0, 1)),
        ("left_shoulder", 13, (0, -1, 0)),
        ("right_shoulder", 14, (0, -1, 0)),
        ("left_elbow", 16, (0, -1, 0)),
        ("right_elbow", 17, (0, -1, 0)),
        ("left_wrist", 18, (0, -1, 0)),
        ("right_wrist", 19, (0, -1, 0)),
    ],
    chains=((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20)),
    face_joints=(2, 1, 17, 16),
    feet=(7, 10, 8, 11),
    hands=(20, 21),
    leg=(5, 8),
)

# KIT-ML's 21 joints; which side is called right follows the published preprocessing, whose rest pose has it at +x
KIT = _build(
    [
        ("root", -1, (0, 0, 0)),
        ("spine1", 0, (0, 1, 0)),
        ("spine2", 1, (0, 1, 0)),
        ("neck", 2, (0, 1, 0)),
        ("head", 3, (0, 1, 0)),
        ("right_shoulder", 3, (1, 0, 0)),
        ("right_elbow", 5, (0, -1, 0)),
        ("right_wrist", 6, (0, -1, 0)),
        ("left_shoulder", 3, (-1, 0, 0)),
        ("left_elbow", 8, (0, -1, 0)),
        ("left_wrist", 9, (0, -1, 0)),
        ("right_hip", 0, (1, 0, 0)),
        ("right_knee", 11, (0, -1, 0)),
        ("right_ankle", 12, (0, -1, 0)),
        ("right_heel", 13, (0, 0, 1)),
        ("right_foot", 14, (0, 0, 1)),
        ("left_hip", 0, (-1, 0, 0)),
        ("left_knee", 16, (0, -1, 0)),
        ("left_ankle", 17, (0, -1, 0)),
        ("left_heel", 18, (0, 0, 1)),
        ("left_foot", 19, (0, 0, 1)),
    ],
    chains=((0, 11, 12, 13, 14, 15), (0, 16, 17, 18, 19, 20), (0, 1, 2, 3, 4), (3, 5, 6, 7), (3, 8, 9, 10)),
    face_joints=(11, 16, 5, 8),
    feet=(19, 20, 14, 15),
    hands=(10, 7),
    contact_threshold=0.05,
    leg=(17, 18),
)


FACE = ("right_hip", "left_hip", "right_shoulder", "left_shoulder")
FEET = ("left_ankle", "left_toe", "right_ankle", "right_toe")
HANDS = ("left_wrist", "right_wrist")


def skeleton_from_names(
    names: Sequence[str], parents: Sequence[int], offsets: Tensor, joints: Mapping[str, str]
) -> Skeleton:
    """A skeleton of a file's joints, told which of them are the hips, shoulders, feet and hands.

    Args:
        names, parents, offsets: as the file has them.
        joints: ``right_hip``, ``left_hip``, ``right_shoulder``, ``left_shoulder`` → joint names; optionally
            ``left_ankle``, ``left_toe``, ``right_ankle``, ``right_toe``, and ``left_wrist``, ``right_wrist``.

    Raises:
        ValueError: a role is unknown or missing, or a joint does not exist.
    """
    unknown = set(joints) - {*FACE, *FEET, *HANDS}
    if unknown:
        raise ValueError(
            f"joints has an unknown role {sorted(unknown)[0]!r}; roles are {', '.join(FACE + FEET + HANDS)}"
        )
    body = Skeleton(tuple(names), tuple(parents), offsets.clone().index_fill(0, torch.tensor([0]), 0.0))

    def of(roles: tuple[str, ...], needed: bool) -> tuple[int, ...] | None:
        if not needed and not any(role in joints for role in roles):
            return None
        missing = [role for role in roles if role not in joints]
        if missing:
            raise ValueError(f"joints must say which joint is {missing[0]}")
        return tuple(body.index(joints[role]) for role in roles)

    return dataclasses.replace(
        body,
        chains=_chains(body),
        face_joints=of(FACE, True),
        feet=of(FEET, False),
        hands=of(HANDS, False),
    )


def _chains(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """Paths that cover every bone once: from the root, then from every branching joint for its further children."""
    chains = []
    starts = [(0, child) for child in skeleton.children[0]]
    while starts:
        above, below = starts.pop(0)
        chain = [above, below]
        while skeleton.children[chain[-1]]:
            first, *others = skeleton.children[chain[-1]]
            starts += [(chain[-1], other) for other in others]
            chain.append(first)
        chains.append(tuple(chain))
    return tuple(chains)
