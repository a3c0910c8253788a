"""Lie-group convolutions: groups as interchangeable objects, Haar integration, layers equivariant to affine maps."""
