"""diffusers' schedulers on our denoiser and grids: the peers of the solver benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One diffusers scheduler with its options.

    Attributes:
        scheduler: class name in diffusers.
        options: its constructor's arguments.
        ours: our configuration of the same method, for the comparison of overhead; None if there is none.
        stages: evaluations a step.
    """

    scheduler: str
    options: dict[str, Any]
    ours: str | None = None
    stages: int = 1

    def prepare(self, sigmas: Tensor) -> Any:
        """The scheduler, made to step through exactly these levels (no final zero is added)."""
        schedulers = _diffusers()
        steps = len(sigmas) - 1
        if self.scheduler == "IPNDMScheduler":
            # Its grid is set by its betas, which are sigma of the variance-preserving schedule.
            betas = (sigmas / (1 + sigmas.square()).sqrt()).tolist()
            scheduler = schedulers.IPNDMScheduler(trained_betas=betas)
            scheduler.set_timesteps(steps)
            scheduler.levels = sigmas
            return scheduler
        scheduler = getattr(schedulers, self.scheduler)(**self.options)
        scheduler.set_timesteps(max(steps, 2))
        scheduler.num_inference_steps = steps
        levels = sigmas
        if self.stages == 2:
            levels = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
        scheduler.sigmas = levels.clone()
        scheduler.timesteps = torch.arange(self.stages * steps, 0, -1, dtype=torch.float32)
        scheduler.levels = levels
        return scheduler

    def run(self, scheduler: Any, denoiser: Denoiser, y: Tensor) -> Tensor:
        """Carry y over the prepared levels; the state y = x / alpha comes and goes in our variables."""
        levels = scheduler.levels
        preserving = self.scheduler not in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler")
        alphas = (1 + levels.square()).rsqrt() if preserving else torch.ones_like(levels)
        x = y * alphas[0]
        for i, t in enumerate(scheduler.timesteps):
            scheduler.scale_model_input(x, t)
            denoised = denoiser(x / alphas[i], levels[i])
            if self.scheduler == "IPNDMScheduler":
                denoised = (alphas[i] * x - denoised) / (alphas[i] * levels[i])
            x = scheduler.step(denoised.to(x.dtype), t, x, return_dict=False)[0]
        return x / alphas[-1]

    def sample(self, denoiser: Denoiser, y: Tensor, sigmas: Tensor) -> Tensor:
        """:meth:`prepare` and :meth:`run`."""
        return self.run(self.prepare(sigmas), denoiser, y)


def _diffusers() -> Any:
    try:
        import diffusers.schedulers as schedulers
    except ImportError as error:
        raise ImportError(
            "peers=true compares with the diffusers package: install it with the extra 'peers' of this framework"
        ) from error
    return schedulers


_SAMPLE: dict[str, Any] = {"prediction_type": "sample"}


def _multistep(family: str, order: int, ours: str | None, **options: Any) -> Peer:
    if family != "DEIS":
        options["final_sigmas_type"] = "sigma_min"
    return Peer(f"{family}MultistepScheduler", {**_SAMPLE, "solver_order": order, **options}, ours)


PEERS: dict[str, Peer] = {
    "euler": Peer("EulerDiscreteScheduler", dict(_SAMPLE), "euler"),
    "heun": Peer("HeunDiscreteScheduler", dict(_SAMPLE), "heun", stages=2),
    "lms4": Peer("LMSDiscreteScheduler", dict(_SAMPLE), "rho_ab4"),
    "ipndm4": Peer("IPNDMScheduler", {}, "plms4"),
    "dpmpp_2m": _multistep("DPMSolver", 2, "dpm_solver_pp_2m_final"),
    "dpmpp_2m_plain": _multistep("DPMSolver", 2, "dpm_solver_pp_2m", lower_order_final=False),
    "dpmpp_2m_heun": _multistep("DPMSolver", 2, "dpm_solver_pp_2m_heun_final", solver_type="heun"),
    "dpmpp_3m": _multistep("DPMSolver", 3, "dpm_solver_pp_3m_final"),
    "dpmpp_3m_plain": _multistep("DPMSolver", 3, "dpm_solver_pp_3m", lower_order_final=False),
    "dpm_2m": _multistep("DPMSolver", 2, None, algorithm_type="dpmsolver"),
    "dpm_3m": _multistep("DPMSolver", 3, None, algorithm_type="dpmsolver"),
    "unipc2": _multistep("UniPC", 2, "unipc2_final"),
    "unipc3": _multistep("UniPC", 3, "unipc3_final"),
    "unipc3_bh1": _multistep("UniPC", 3, "unipc3_bh1_final", solver_type="bh1"),
    "unipc3_plain": _multistep("UniPC", 3, "unipc3", lower_order_final=False),
    "deis2": _multistep("DEIS", 2, "log_rho2_final"),
    "deis3": _multistep("DEIS", 3, "log_rho3_final"),
    "deis3_plain": _multistep("DEIS", 3, "log_rho3", lower_order_final=False),
}
"""Name -> scheduler; "plain" switches off the lower orders of the last steps."""
