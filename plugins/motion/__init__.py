"""Motion diffusion: motion capture as data, few-step and masked autoregressive generators, honest judges."""
