"""Training-free samplers: each solver takes any denoiser and any explicit grid of noise levels."""

from .adams_bashforth import PLMS, RhoAB
from .adaptive import AdaptiveResult, DormandPrince
from .ancestral import DDIM, Ancestral
from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, StepInfo
from .brownian import BrownianTree
from .deis import TimeAB, log_rho
from .dpm_solver_pp import DPMSolverPP2M, DPMSolverPP3M
from .dpm_solver_sde import DPMSolverPP2MSDE
from .euler import Euler
from .exponential import Exponential
from .momentum import GHVB, HeavyBall
from .multistep import Multistep
from .ready_made import PROVEN, READY_MADE
from .registry import ORDERS, SOLVERS, OrderCase, Problem, register, register_order
from .runge_kutta import Heun, RungeKutta
from .trigonometric import Angular
from .unipc import UniPC

__all__ = [
    "DDIM",
    "GHVB",
    "ORDERS",
    "PLMS",
    "PROVEN",
    "READY_MADE",
    "SOLVERS",
    "AdaptiveResult",
    "Ancestral",
    "Angular",
    "BrownianTree",
    "DPMSolverPP2M",
    "DPMSolverPP2MSDE",
    "DPMSolverPP3M",
    "Denoiser",
    "DormandPrince",
    "Euler",
    "Evaluator",
    "Exponential",
    "Heun",
    "HeavyBall",
    "Multistep",
    "NoiseSource",
    "OrderCase",
    "Past",
    "Problem",
    "RhoAB",
    "RungeKutta",
    "Solver",
    "StepInfo",
    "TimeAB",
    "UniPC",
    "log_rho",
    "register",
    "register_order",
]
