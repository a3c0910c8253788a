"""State-space layers for long sequences: HiPPO, S4, S4D, S5, and their perturb-then-diagonalise forms S4-PTD and S5-PTD."""
