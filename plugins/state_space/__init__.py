"""State-space layers for long sequences: HiPPO, S4, S4D, S5, and perturb-then-diagonalise (S4-PTD, S5-PTD)."""
