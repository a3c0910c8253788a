"""Training-free studies: Haar integrals, equivariance against samples, and the cost of a layer."""
