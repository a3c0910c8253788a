"""Lie-group convolutions: groups as interchangeable objects, Haar integration, and layers equivariant to affine maps."""
