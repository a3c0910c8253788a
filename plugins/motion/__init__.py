"""Motion diffusion: motion capture as data, few-step adversarial and masked autoregressive generators, honest judges."""
