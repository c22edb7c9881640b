"""One box descends to its target under every loss: IoU on the way, from three starts.

All losses take steps of the same length, against their gradient, so that what differs is the direction: losses that are
a function of the same quantity, such as the three of IoU alone, take the same path.
"""

from __future__ import annotations

import torch

from boxloss import LOSSES, similarity

TARGET = torch.tensor([4.0, 4, 8, 7])
STARTS = {
    "overlapping": torch.tensor([2.0, 2, 6, 6]),
    "apart": torch.tensor([0.0, 0, 2, 2]),
    "inside": torch.tensor([5.5, 5, 6, 5.5]),
}
SHOWN = (0, 10, 20, 40, 80, 160)
STEP = 0.1


def ious(name: str, start: torch.Tensor) -> list[float]:
    """IoU before the steps in ``SHOWN``. The step shrinks in the last quarter, so that it can end in the target."""
    box = start.clone()
    found = []
    for k in range(SHOWN[-1] + 1):
        if k in SHOWN:
            found.append(similarity("iou", box, TARGET).item())
        box.requires_grad_()
        (gradient,) = torch.autograd.grad(LOSSES[name].function(box, TARGET), box)
        length = gradient.norm()
        step = STEP * min(1.0, 4 * (1 - k / SHOWN[-1]))
        box = (box - step * gradient / length if length > 0 else box).detach()
    return found


def main() -> None:
    for label, start in STARTS.items():
        print(f"\nIoU of a box that starts {label}: {start.tolist()} -> {TARGET.tolist()}, steps of {STEP}")
        print(f"{'after step':12}" + "".join(f"{k:>7}" for k in SHOWN))
        for name in LOSSES:
            print(f"{name:12}" + "".join(f"{iou:7.3f}" for iou in ious(name, start)))


if __name__ == "__main__":
    main()
