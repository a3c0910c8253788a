"""Equivariant SE(n) networks: weight sharing in position-orientation space, potentials and generation of molecules."""
