"""Peak memory of a piece of work, measured at the allocator."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import profiler


def peak_allocation(work: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Most bytes of tensors that `work` had alive at once, beyond what was alive before it.

    On the CPU from the profiler's record of every allocation and release, on CUDA from the allocator's own counter;
    neither sees what libraries allocate outside torch.
    """
    device = torch.device(device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else every profile writes two lines to stderr
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak
