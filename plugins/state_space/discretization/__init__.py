"""From continuous time to steps."""

from plugins.state_space.discretization.rules import DISCRETIZATIONS, bilinear, discretize, log_steps, zoh

__all__ = ["DISCRETIZATIONS", "bilinear", "discretize", "log_steps", "zoh"]
