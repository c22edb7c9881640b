"""Times of the losses beside torchvision's, forward and backward, on this machine's CPU.

Medians of runs in which all functions take turns, so that a busy moment meets them all; the ratio is the one to quote.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision.ops
from torch import Tensor

from boxloss import LOSSES, pairwise
from boxloss.yolo import Grid, TinyYolo, Truths, YoloLoss, kmeans_anchors

PEERS = {
    "giou": torchvision.ops.generalized_box_iou_loss,
    "diou": torchvision.ops.distance_box_iou_loss,
    "ciou": torchvision.ops.complete_box_iou_loss,
}
PAIRWISE_PEERS = {
    "iou": torchvision.ops.box_iou,
    "giou": torchvision.ops.generalized_box_iou,
    "ciou": torchvision.ops.complete_box_iou,
}


def draw(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g) * 500
    return torch.cat((low, low + 5 + torch.rand(n, 2, generator=g) * 200), 1)


def near(boxes: Tensor) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return boxes + torch.rand(boxes.shape, generator=g) * 4 - 2


def step(function: Callable[[Tensor, Tensor], Tensor], pred: Tensor, target: Tensor) -> Callable[[], None]:
    pred = pred.clone().requires_grad_()

    def run() -> None:
        pred.grad = None
        function(pred, target).sum().backward()

    return run


def medians(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median seconds of each, of runs taken in turn for about ``seconds`` in all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def elementwise(n: int, seconds: float) -> None:
    pred = draw(n)
    target = near(pred)
    runs: dict[str, Callable[[], object]] = {name: step(loss.function, pred, target) for name, loss in LOSSES.items()}
    runs |= {f"torchvision {name}": step(peer, pred, target) for name, peer in PEERS.items()}
    found = medians(runs, seconds)
    print(f"\n{n:,} pairs, forward + backward, float32\n{'loss':12} {'µs':>9} {'ns/pair':>9} {'torchvision':>12} ratio")
    for name in LOSSES:
        peer = found.get(f"torchvision {name}")
        beside = f"{peer * 1e6:12.0f} {found[name] / peer:5.2f}" if peer else ""
        print(f"{name:12} {found[name] * 1e6:9.0f} {found[name] / n * 1e9:9.1f} {beside}")


def matrices(n: int, m: int, seconds: float) -> None:
    a, b = draw(n), draw(m, seed=1)
    runs: dict[str, Callable[[], object]] = {name: lambda name=name: pairwise(name, a, b) for name in PAIRWISE_PEERS}
    runs |= {f"torchvision {name}": lambda peer=peer: peer(a, b) for name, peer in PAIRWISE_PEERS.items()}
    found = medians(runs, seconds)
    print(f"\npairwise {n:,} × {m:,}, forward, float32\n{'loss':12} {'ms':>9} {'ns/pair':>9} {'torchvision':>12} ratio")
    for name in PAIRWISE_PEERS:
        peer = found[f"torchvision {name}"]
        ns = found[name] / (n * m) * 1e9
        print(f"{name:12} {found[name] * 1e3:9.1f} {ns:9.1f} {peer * 1e3:12.1f} {found[name] / peer:5.2f}")


def draw_truths(images: int, boxes: int, side: int) -> Truths:
    g = torch.Generator().manual_seed(2)
    count = images * boxes
    size = torch.exp(torch.rand(count, 2, generator=g) * 2.5 + 1.5)  # 4 … 55 pixels
    low = torch.rand(count, 2, generator=g) * (side - size)
    image = torch.arange(images).repeat_interleave(boxes)
    label = torch.randint(3, (count,), generator=g)
    return Truths(image, torch.cat((low, low + size), 1), label, torch.zeros(count, dtype=torch.bool))


def training_step(seconds: float, *, side: int = 160, images: int = 16, boxes: int = 12) -> None:
    """Where the time of a step of `TinyYolo` goes; "loss" is assignment, loss, and its gradient at the raw outputs."""
    truths, pictures = draw_truths(images, boxes, side), torch.rand(images, 3, side, side)
    anchors = kmeans_anchors(truths.box[:, 2:] - truths.box[:, :2], 6).view(2, 3, 2).tolist()
    grid = Grid(tuple(tuple((w, h) for w, h in scale) for scale in anchors), 3)
    model = TinyYolo(grid)
    optimizer = torch.optim.AdamW(model.parameters())
    raw = [output.detach().requires_grad_() for output in model(pictures)]
    losses = {name: YoloLoss(grid, coordinates=name, reduction="positives") for name in ("darknet", "ciou")}

    def loss_alone(loss: YoloLoss) -> None:
        torch.autograd.grad(loss(raw, truths, (side, side)).total, raw)

    def whole(loss: YoloLoss) -> None:
        optimizer.zero_grad()
        loss(model(pictures), truths, (side, side)).total.backward()
        optimizer.step()

    runs: dict[str, Callable[[], object]] = {}
    for name, loss in losses.items():
        runs[f"{name} loss"] = lambda loss=loss: loss_alone(loss)
        runs[f"{name} step"] = lambda loss=loss: whole(loss)
    found = medians(runs, seconds)
    print(f"\na training step of TinyYolo, {side} px, batch {images}, {boxes} boxes an image")
    print(f"{'':12} {'loss, ms':>9} {'step':>7} {'share':>7}")
    for name in losses:
        alone, step_time = found[f"{name} loss"], found[f"{name} step"]
        print(f"{name:12} {alone * 1e3:9.1f} {step_time * 1e3:7.1f} {alone / step_time:7.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15, help="per table")
    parser.add_argument("--step", action="store_true", help="only: the share of the loss in a training step")
    options = parser.parse_args()
    seconds = options.seconds
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads")
    if options.step:
        training_step(seconds)
        return
    for n in (1_000, 100_000):
        elementwise(n, seconds)
    matrices(2_000, 300, seconds)


if __name__ == "__main__":
    main()
