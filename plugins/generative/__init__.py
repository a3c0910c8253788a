"""Generative models: noise schedules, parameterizations, time grids, training-free samplers and their acceleration."""
