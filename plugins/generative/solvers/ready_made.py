"""The ready-made configurations of the solvers that need nothing but a denoiser and a grid."""

from __future__ import annotations

from ..schedules import VPCosine
from .adams_bashforth import PLMS, RhoAB
from .base import Solver
from .deis import TimeAB, log_rho
from .dpm_solver_pp import DPMSolverPP2M, DPMSolverPP3M
from .euler import Euler
from .exponential import Exponential
from .momentum import GHVB, HeavyBall
from .registry import register, register_order
from .runge_kutta import Heun, RungeKutta
from .trigonometric import Angular
from .unipc import UniPC

READY_MADE: dict[str, Solver] = {
    "euler": Euler(),
    "heun": Heun(),
    "rho_kutta3": RungeKutta("kutta3"),
    "rho_ralston3": RungeKutta("ralston3"),
    "rho_heun3": RungeKutta("heun3"),
    "rho_van_der_houwen3": RungeKutta("van_der_houwen3"),
    "rho_ssprk3": RungeKutta("ssprk3"),
    "rho_rk4": RungeKutta("rk4"),
    "dpm_solver_pp_2m": DPMSolverPP2M(),
    "dpm_solver_pp_2m_final": DPMSolverPP2M(lower_order_final=True),
    "dpm_solver_pp_2m_heun": DPMSolverPP2M(kind="heun"),
    "dpm_solver_pp_2m_heun_final": DPMSolverPP2M("heun", lower_order_final=True),
    "dpm_solver_pp_3m": DPMSolverPP3M(),
    "dpm_solver_pp_3m_final": DPMSolverPP3M(lower_order_final=True),
    "dpm_solver_pp_3m_exact": DPMSolverPP3M(variant="exact"),
    "unipc1": UniPC(1),
    "unipc2": UniPC(2),
    "unipc3": UniPC(3),
    "unipc2_bh1": UniPC(2, "bh1"),
    "unipc3_bh1": UniPC(3, "bh1"),
    "unipc2_final": UniPC(2, lower_order_final=True),
    "unipc3_final": UniPC(3, lower_order_final=True),
    "unipc3_bh1_final": UniPC(3, "bh1", lower_order_final=True),
    "unip3": UniPC(3, corrector=False),
    "plms2": PLMS(2),
    "plms3": PLMS(3),
    "plms4": PLMS(4),
    "rho_ab2": RhoAB(1),
    "rho_ab3": RhoAB(2),
    "rho_ab4": RhoAB(3),
    "t_ab2": TimeAB(1),
    "t_ab3": TimeAB(2),
    "t_ab4": TimeAB(3),
    "t_ab4_cosine": TimeAB(3, VPCosine()),
    "log_rho2": log_rho(2),
    "log_rho2_final": log_rho(2, lower_order_final=True),
    "log_rho3": log_rho(3),
    "log_rho3_final": log_rho(3, lower_order_final=True),
    "log_rho4": log_rho(4),
    "data_lambda2": Exponential(2),
    "data_lambda3": Exponential(3),
    "data_lambda4": Exponential(4),
    "angular2": Angular(2),
    "angular3": Angular(3),
    "angular4": Angular(4),
    "angular3_predictor": Angular(3, corrector=False),
    "heavy_ball_plms4": HeavyBall(PLMS(4), 0.8),
    "heavy_ball_2m": HeavyBall(DPMSolverPP2M(), 0.8),
    "nesterov_plms4": HeavyBall(PLMS(4), 0.8, nesterov=True),
    "ghvb2": GHVB(2, 0.8),
    "ghvb3": GHVB(3, 0.8),
    "ghvb4": GHVB(4, 0.8),
    "ghvb4_sigma": GHVB(4, 0.8, weights="sigma"),
    "ghvb3_table": GHVB(3, 0.8, weights="table"),
    "ghvb4_table": GHVB(4, 0.8, weights="table"),
}

# name -> (solver, order, grid, exact history)
PROVEN: dict[str, tuple[Solver, float, str, int]] = {
    "euler": (Euler(), 1, "karras", 0),
    "heun": (Heun(), 2, "karras", 0),
    "rho_kutta3": (RungeKutta("kutta3"), 3, "karras", 0),
    "rho_ralston3": (RungeKutta("ralston3"), 3, "karras", 0),
    "rho_heun3": (RungeKutta("heun3"), 3, "karras", 0),
    "rho_van_der_houwen3": (RungeKutta("van_der_houwen3"), 3, "karras", 0),
    "rho_ssprk3": (RungeKutta("ssprk3"), 3, "karras", 0),
    "rho_rk4": (RungeKutta("rk4"), 4, "karras", 0),
    "dpm_solver_pp_2m": (DPMSolverPP2M(start="exact"), 2, "log_snr", 1),
    "dpm_solver_pp_2m_heun": (DPMSolverPP2M("heun", start="exact"), 2, "log_snr", 1),
    "dpm_solver_pp_3m_reference": (DPMSolverPP3M("reference", start="exact"), 2, "log_snr", 2),
    "dpm_solver_pp_3m_exact": (DPMSolverPP3M("exact", start="exact"), 3, "log_snr", 2),
    "unip1": (UniPC(1, corrector=False), 1, "log_snr", 0),
    "unip2": (UniPC(2, corrector=False, start="exact"), 2, "log_snr", 1),
    "unip3": (UniPC(3, corrector=False, start="exact"), 3, "log_snr", 2),
    "unipc1": (UniPC(1), 2, "log_snr", 0),
    "unipc2_bh1": (UniPC(2, "bh1", start="exact"), 3, "log_snr", 1),
    "unipc2": (UniPC(2, start="exact"), 3, "log_snr", 1),
    "unipc3": (UniPC(3, start="exact"), 4, "log_snr", 2),
    "plms2_uniform": (PLMS(2, start="exact"), 2, "uniform", 1),
    "plms3_uniform": (PLMS(3, start="exact"), 3, "uniform", 2),
    "plms4_uniform": (PLMS(4, start="exact"), 4, "uniform", 3),
    "plms4_karras": (PLMS(4, start="exact"), 2, "karras", 3),
    "rho_ab2": (RhoAB(1, start="exact"), 2, "karras", 1),
    "rho_ab3": (RhoAB(2, start="exact"), 3, "karras", 2),
    "rho_ab4": (RhoAB(3, start="exact"), 4, "karras", 3),
    "t_ab2": (TimeAB(1, start="exact"), 2, "karras", 1),
    "t_ab3": (TimeAB(2, start="exact"), 3, "karras", 2),
    "t_ab4": (TimeAB(3, start="exact"), 4, "karras", 3),
    "log_rho2": (Exponential(2, "noise", start="exact"), 2, "log_snr", 1),
    "log_rho3": (Exponential(3, "noise", start="exact"), 3, "log_snr", 2),
    "log_rho4": (Exponential(4, "noise", start="exact"), 4, "log_snr", 3),
    "data_lambda2": (Exponential(2, start="exact"), 2, "log_snr", 1),
    "data_lambda3": (Exponential(3, start="exact"), 3, "log_snr", 2),
    "data_lambda4": (Exponential(4, start="exact"), 4, "log_snr", 3),
    "angular1": (Angular(1), 2, "karras", 0),
    **{f"angular{k}": (Angular(k, start="exact"), k + 1, "karras", k - 1) for k in (2, 3, 4)},
    "angular3_predictor": (Angular(3, corrector=False, start="exact"), 3, "karras", 2),
    "heavy_ball_plms4": (HeavyBall(PLMS(4, start="exact"), 0.8), 1, "karras", 3),
    "heavy_ball_2m": (HeavyBall(DPMSolverPP2M(start="exact"), 0.8), 1, "log_snr", 1),
    "nesterov_plms4": (HeavyBall(PLMS(4, start="exact"), 0.8, nesterov=True), 1, "karras", 3),
    "ghvb1": (GHVB(1, 0.8, start="exact"), 1, "karras", 4),
    **{f"ghvb{k}": (GHVB(k, 0.8, start="exact"), k, "karras", k + 3) for k in range(2, 6)},
    **{f"ghvb{k}_sigma": (GHVB(k, 0.8, "sigma", start="exact"), k, "karras", k + 3) for k in range(2, 6)},
    **{f"ghvb{k}_table_uniform": (GHVB(k, 0.8, "table", start="exact"), k, "uniform", 12) for k in range(1, 6)},
    "ghvb4_table_karras": (GHVB(4, 0.8, "table", start="exact"), 2, "karras", 12),
}

for _name, _solver in READY_MADE.items():
    register(_name)(lambda problem, solver=_solver: solver)
for _name, (_solver, _order, _grid, _history) in PROVEN.items():
    register_order(_name, _order, _grid, _history)(lambda problem, solver=_solver: solver)
