"""A plain training loop, for studies that need a small trained network and have none at hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import tqdm

from plugins.generative.objectives.flow_matching import flow_matching_loss, stratified_times


def fit_flow_matching(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    label_dropout: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """Train `network`, in place, on images (n, C, H, W) with labels (n,) and return it in evaluation mode.

    AdamW under a one-cycle rate, batches drawn with replacement. Works inside `torch.inference_mode`, provided the
    network was built outside it.

    Args:
        network: network(x, t, c) -> velocity, with `num_classes` labels and the null class after them.
        steps: Optimizer steps.
        batch_size: Images a step.
        learning_rate: At the top of the cycle.
        label_dropout: Share of the labels replaced by the null class.
        seed: Of the batches, times, noise and dropped labels.
        progress: Whether to show a progress bar.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    device = images.device
    generator = torch.Generator(device).manual_seed(seed)
    with torch.inference_mode(False), torch.enable_grad():
        images, labels = images.clone(), labels.clone()
        optimizer = torch.optim.AdamW(network.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=max(steps, 2), pct_start=0.1, cycle_momentum=False
        )
        network.train()
        for _ in tqdm(range(steps), "training the network", disable=not progress):
            chosen = torch.randint(len(images), (batch_size,), generator=generator, device=device)
            x0 = images[chosen]
            dropped = torch.rand(batch_size, generator=generator, device=device) < label_dropout
            c = labels[chosen].masked_fill(dropped, network.num_classes)
            t = stratified_times(batch_size, generator, device)
            noise = torch.randn(x0.shape, generator=generator, device=device)
            optimizer.zero_grad()
            flow_matching_loss(network, x0, t, noise, c).backward()
            optimizer.step()
            schedule.step()
    return network.eval()
