"""Training-free samplers: each solver takes any denoiser and any explicit grid of noise levels."""

from .adams_bashforth import PLMS, RhoAB
from .adaptive import AdaptiveResult, DormandPrince
from .adjoint import adjoint_sample
from .ancestral import DDIM, Ancestral
from .base import Denoiser, Evaluator, NoiseSource, Past, Solver, StepInfo
from .bdia import BDIA, BDIAWarning, ddim_invert
from .brownian import BrownianTree
from .deis import TimeAB, log_rho
from .dpm_solver_pp import DPMSolverPP2M, DPMSolverPP3M
from .dpm_solver_sde import DPMSolverPP2MSDE
from .dpm_solver_v3 import DPMSolverV3
from .ems import EMS, compute_ems
from .euler import Euler
from .exponential import Exponential
from .momentum import GHVB, HeavyBall
from .multistep import Multistep
from .ready_made import PROVEN, READY_MADE
from .registry import ORDERS, SOLVERS, OrderCase, Problem, register, register_order
from .runge_kutta import Heun, RungeKutta
from .schedule_search import search_schedule
from .trigonometric import Angular
from .unified import SolverSchedule, StepGenes, Unified
from .unipc import UniPC

__all__ = [
    "BDIA",
    "DDIM",
    "EMS",
    "GHVB",
    "ORDERS",
    "PLMS",
    "PROVEN",
    "READY_MADE",
    "SOLVERS",
    "AdaptiveResult",
    "Ancestral",
    "Angular",
    "BDIAWarning",
    "BrownianTree",
    "DPMSolverPP2M",
    "DPMSolverPP2MSDE",
    "DPMSolverPP3M",
    "DPMSolverV3",
    "Denoiser",
    "DormandPrince",
    "Euler",
    "Evaluator",
    "Exponential",
    "HeavyBall",
    "Heun",
    "Multistep",
    "NoiseSource",
    "OrderCase",
    "Past",
    "Problem",
    "RhoAB",
    "RungeKutta",
    "Solver",
    "SolverSchedule",
    "StepGenes",
    "StepInfo",
    "TimeAB",
    "UniPC",
    "Unified",
    "adjoint_sample",
    "compute_ems",
    "ddim_invert",
    "log_rho",
    "register",
    "register_order",
    "search_schedule",
]
