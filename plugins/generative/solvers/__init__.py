"""Training-free samplers: each solver takes any denoiser and any explicit grid of noise levels."""

from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, StepInfo
from .dpm_solver_pp import DPMSolverPP2M, DPMSolverPP3M
from .euler import Euler
from .multistep import Multistep
from .registry import SOLVERS, Problem, register
from .runge_kutta import Heun, RungeKutta

__all__ = [
    "SOLVERS",
    "DPMSolverPP2M",
    "DPMSolverPP3M",
    "Denoiser",
    "Euler",
    "Evaluator",
    "Heun",
    "Multistep",
    "NoiseSource",
    "Past",
    "Problem",
    "RungeKutta",
    "Solver",
    "StepInfo",
    "register",
]
