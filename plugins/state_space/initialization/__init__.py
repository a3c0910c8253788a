"""Where a layer's eigenvalues, modes and input vector start, by name."""

from plugins.state_space.initialization.modes import INITIALIZATIONS, Modes, initial_modes

__all__ = ["INITIALIZATIONS", "Modes", "initial_modes"]
