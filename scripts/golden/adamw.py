"""Makes tests/golden/adamw.json: ten steps of torch.optim.AdamW, and what torch clips off a gradient.

Needs torch. Run from the repository's root:

    python scripts/golden/adamw.py

Two groups of values with learning rates of their own, a schedule on both, gradients clipped as in training.
"""

import json
import math
from pathlib import Path

from environment import ensure

ensure()

import torch

STEPS, RATES, SIZES = 10, [1e-2, 3e-4], [4, 3]
SETTINGS = {"betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.05}
MAX_NORM = 1.0


def main() -> None:
    torch.manual_seed(7)
    groups = [torch.nn.Parameter(torch.randn(size)) for size in SIZES]
    start = torch.cat(groups).tolist()
    optimizer = torch.optim.AdamW(
        [{"params": [group], "lr": rate} for group, rate in zip(groups, RATES)], **SETTINGS
    )
    steps = []
    for step in range(STEPS):
        schedule = min(1.0, (step + 1) / 4) * (0.55 + 0.45 * math.cos(math.pi * step / STEPS))
        for part, group, rate in zip(optimizer.param_groups, groups, RATES):
            part["lr"] = rate * schedule
            # From small to far above the norm at which clipping begins.
            group.grad = torch.randn_like(group) * 4.0 ** (step % 3 - 1)
        gradient = torch.cat([group.grad for group in groups]).tolist()
        norm = torch.nn.utils.clip_grad_norm_(groups, MAX_NORM).item()
        clipped = torch.cat([group.grad for group in groups]).tolist()
        optimizer.step()
        values = torch.cat([group.detach() for group in groups]).tolist()
        steps.append(
            {"schedule": schedule, "gradient": gradient, "norm": norm, "clipped": clipped, "values": values}
        )
    golden = {
        "torch": torch.__version__,
        "rates": [rate for rate, size in zip(RATES, SIZES) for _ in range(size)],
        "max_norm": MAX_NORM,
        **SETTINGS,
        "start": start,
        "steps": steps,
    }
    Path("tests/golden/adamw.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
