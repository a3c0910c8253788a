"""Real motion with a part made anew by a trained generator."""

from __future__ import annotations

import torch

from framework.errors import UserError
from framework.study import Study
from plugins.motion.networks import length_mask
from plugins.motion.studies.trained import load_trained, seeded, write_motions

TASKS = ("inbetween", "continue")


class EditMotion(Study):
    """In-betweening (the middle is made anew) or continuation (all after the beginning is), on held-out clips.

    Writes ``edited.html`` with the real clip and the edited one side by side, given and generated frames in colours of
    their own, and BVH and GIF files.

    Args:
        task: ``inbetween`` or ``continue``.
        keep: share of the frames that is given: half of it at each end, or all at the start; in (0, 1).
        prompt: a sentence for what is made anew; the clip's own held-out sentence when omitted.
        clips: how many held-out clips, evenly from the test set.
        run, runs, sampler, seed: of ``GenerateMotion``.

    Metrics: ``error/given`` and ``error/generated``, mean distance in metres of joints from the real clip's in given
    and in generated frames, relative to the body's place; ``error/frozen`` the same when the nearest given frame is
    repeated; ``jump`` the largest step of a joint across an edge of the edit over that of the real clip.
    """

    def __init__(
        self,
        task: str = "inbetween",
        keep: float = 0.4,
        prompt: str | None = None,
        clips: int = 4,
        run: str | None = None,
        runs: str = "runs",
        sampler: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
        if not 0 < keep < 1:
            raise ValueError(f"keep must lie strictly between 0 and 1, not {keep}")
        if clips < 1:
            raise ValueError(f"clips must be at least 1, not {clips}")
        self.task, self.keep, self.prompt, self.clips = task, keep, prompt, clips
        self.run, self.runs, self.sampler, self.seed = run, runs, sampler, seed

    def study(self) -> dict[str, float]:
        trained = load_trained(self.run, self.runs)
        data, row = trained.data, trained.row(self.sampler)
        unit = data.unit_length
        if self.clips > len(data.test_set):
            raise UserError(f"clips={self.clips}: the run's data holds {len(data.test_set)} test clips")
        chosen = torch.linspace(0, len(data.test_set) - 1, self.clips).long().tolist()
        batch = data.test_set.__getitems__(chosen)
        motion, lengths = batch["motion"], batch["lengths"]
        texts = [self.prompt] * self.clips if self.prompt else batch["text"]
        known = torch.zeros(motion.shape[:2], dtype=torch.bool)
        for i, length in enumerate(lengths.tolist()):
            # whole latent tokens, so that no generator has to keep half of one
            given = max(unit, round(self.keep * length / unit) * unit)
            if self.task == "continue":
                known[i, :given] = True
            else:
                head = max(unit, given // 2 // unit * unit)
                known[i, :head] = True
                known[i, length - head : length] = True
        sample = trained.model.sampler(row)
        edited = sample(data.encode_text(texts), lengths, seeded(self.seed), known=known, motion=motion)
        mask = length_mask(lengths, motion.shape[1])
        metrics = self._errors(trained, motion, edited, known, mask)
        shown = []
        for real, made, stays, length, text in zip(
            trained.positions(motion), trained.positions(edited), known, lengths.tolist(), texts, strict=True
        ):
            shown += [
                trained.clip(real[:length], text, "real", torch.zeros(length, dtype=torch.bool)),
                trained.clip(made[:length], text, f"{row}, {self.task}", ~stays[:length]),
            ]
        note = f"{row} of {trained.path.name}; given frames and generated frames in different colours"
        write_motions(self, shown, data.skeleton, "edited", "Edited motions", note)
        return metrics

    @staticmethod
    def _errors(trained, motion, edited, known, mask) -> dict[str, float]:  # type: ignore[no-untyped-def]
        from plugins.motion.mardm.method import nearest_known

        columns = trained.data.representation.groups["positions"]

        def body(x: torch.Tensor) -> torch.Tensor:
            return trained.data.normalizer.denormalize(x.double())[..., columns].unflatten(-1, (-1, 3))

        real, made, frozen = body(motion), body(edited), body(nearest_known(motion, known))
        error, still = ((x - real).norm(dim=-1).mean(-1) for x in (made, frozen))
        edge = (known[:, 1:] != known[:, :-1]) & mask[:, 1:]
        steps = [x.diff(dim=1).norm(dim=-1).amax(-1)[edge] for x in (made, real)]
        return {
            "error/given": float(error[known].mean()),
            "error/generated": float(error[mask & ~known].mean()),
            "error/frozen": float(still[mask & ~known].mean()),
            "jump": float((steps[0] / steps[1].clamp_min(1e-6)).median()),
        }
