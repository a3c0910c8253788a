"""The optimised perturbation, and everything one wants to know of it."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.optimize
import torch
from torch import Tensor
from tqdm import tqdm

from plugins.state_space.diagnostics import deviation_sup
from plugins.state_space.hippo import hippo
from plugins.state_space.ptd.diagonalize import diagonalize
from plugins.state_space.ptd.objective import objective

STARTS = ("corner", "random")


@dataclass(frozen=True)
class PTDResult:
    """A perturbed HiPPO system A + E = V diag(lam) V^{-1}.

    Attributes:
        measure: name of the HiPPO measure.
        E: (n, n) float64, real.
        lam: (n,) complex128; conjugate pairs adjacent, positive imaginary part first.
        V: (n, n) complex128, unit columns.
        B: (n,) complex128, V^{-1} B_H, from a linear solve.
        kappa: condition number κ₂(V).
        eps: ‖E‖₂.
        abscissa: max Re lam; negative means stable.
        deviation: sup over ω of ‖V(iω−Λ)^{-1}B − (iω−A)^{-1}B_H‖₂.
    """

    measure: str
    E: Tensor
    lam: Tensor
    V: Tensor
    B: Tensor
    kappa: float
    eps: float
    abscissa: float
    deviation: float

    def save(self, path: str | Path) -> None:
        """Write to a file that ``load`` reads; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save({field.name: getattr(self, field.name) for field in dataclasses.fields(self)}, file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> PTDResult:
        """Read what ``save`` wrote; nothing but tensors, numbers and strings is unpickled."""
        return cls(**torch.load(path, weights_only=True, map_location="cpu"))


def evaluate_perturbation(measure: str, e: Tensor) -> PTDResult:
    """Diagonalise A + E for a given E and measure it against HiPPO.

    Args:
        measure: a HiPPO measure.
        e: (n, n) real; used in float64.

    Warns:
        IllConditionedWarning: the eigenvectors cannot be trusted in float64.
    """
    n = e.shape[0]
    a, b = hippo(measure, n)
    e = e.to(torch.float64)
    lam, v, kappa = diagonalize(a + e)
    modal_b = torch.linalg.solve(v, b.to(v.dtype))
    return PTDResult(
        measure=measure,
        E=e,
        lam=lam,
        V=v,
        B=modal_b,
        kappa=kappa,
        eps=torch.linalg.matrix_norm(e, 2).item(),
        abscissa=lam.real.max().item(),
        deviation=deviation_sup(measure, lam, modal_b, v),
    )


@dataclass(frozen=True)
class PTDSolver:
    """Minimise κ_F(V) + γ‖E‖_F over real E, where A + E = V Λ V^{-1} (perturb-then-diagonalise, section 4).

    A small γ buys well-conditioned eigenvectors, a large one stays closer to HiPPO. L-BFGS with the written-out
    gradient; the best iterate is kept. The same settings give the same result on the same machine.

    Attributes:
        gamma: price of ‖E‖_F, positive. For LegS, 10 to 300.
        steps: at most this many L-BFGS iterations.
        start: ``corner`` puts the whole start into the upper right entry, where the optimum of the lower triangular
            LegS matrix has its bulk, and uses no random numbers; ``random`` is Gaussian, scaled to ‖E₀‖₂.
        start_size: ‖E₀‖₂; by default n/16 for ``corner`` and 1e-3·‖A‖₂ for ``random``.
        seed: of the random start; ignored by ``corner``.
        abscissa_limit: negative; eigenvalues right of it are penalised, and what remains is shifted left of it.
        progress: show a bar.
    """

    gamma: float = 100.0
    steps: int = 100
    start: str = "corner"
    start_size: float | None = None
    seed: int = 0
    abscissa_limit: float = -0.1
    progress: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, not {self.gamma}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.start not in STARTS:
            raise ValueError(f"start must be one of {', '.join(STARTS)}, not {self.start!r}")
        if not self.abscissa_limit < 0:
            raise ValueError(f"abscissa_limit must be negative, not {self.abscissa_limit}")
        if self.start_size is not None and not self.start_size > 0:
            raise ValueError(f"start_size must be positive, not {self.start_size}")

    def initial(self, measure: str, n: int) -> Tensor:
        """The perturbation that the search starts from, (n, n) float64."""
        if self.start == "corner":
            e = torch.zeros(n, n, dtype=torch.float64)
            e[0, -1] = n / 16 if self.start_size is None else self.start_size
            return e
        a, _ = hippo(measure, n)
        size = 1e-3 * torch.linalg.matrix_norm(a, 2).item() if self.start_size is None else self.start_size
        e = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(self.seed))
        return e * (size / torch.linalg.matrix_norm(e, 2))

    def solve(self, measure: str, n: int) -> PTDResult:
        """Find E for a HiPPO system of size n, its spectrum left of ``abscissa_limit``.

        Raises:
            ValueError: as ``hippo``.
            RuntimeError: no iterate had independent eigenvectors.
        """
        a, _ = hippo(measure, n)
        best_value, best = np.inf, None
        weight = 1e3 * max(1.0, n / 16)

        def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal best_value, best
            e = torch.from_numpy(flat.reshape(n, n).copy())
            value, gradient = objective(a, e, self.gamma, self.abscissa_limit, weight)
            if value < best_value:
                best_value, best = value, e
            bar.set_postfix_str(f"objective {best_value:.4g}", refresh=False)
            return value, gradient.numpy().ravel()

        with tqdm(total=self.steps, desc=f"PTD {measure} n={n}", disable=not self.progress, leave=False) as bar:
            scipy.optimize.minimize(
                function,
                self.initial(measure, n).numpy().ravel(),
                jac=True,
                method="L-BFGS-B",
                callback=lambda _: bar.update(),
                options={"maxiter": self.steps, "maxcor": 20, "ftol": 1e-7},
            )
        if best is None:
            raise RuntimeError(f"no iterate for {measure}, n={n} had independent eigenvectors; use start='random'")
        result = evaluate_perturbation(measure, best)
        if result.abscissa > self.abscissa_limit:
            # a multiple of the identity moves the spectrum and leaves the eigenvectors, hence κ, as they are
            shift = (result.abscissa - self.abscissa_limit) * (1 + 1e-9) + 1e-12
            result = evaluate_perturbation(measure, best - shift * torch.eye(n, dtype=best.dtype))
        return result
