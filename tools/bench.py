"""Times of the losses beside others' on this machine's CPU: tables in Markdown, and a figure.

    python tools/bench.py                       to the terminal; some minutes
    python tools/bench.py --out docs            docs/performance.md and docs/performance.png
    python tools/bench.py --compile             torch.compile too: it compiles each function first
    python tools/bench.py --step                only: the share of the loss in a training step
    python tools/bench.py --simulate            only: boxes descending losses, beside plain autograd

Medians of runs in which all functions take short turns, so that a busy moment meets them all; quote the ratios.
"""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torchvision.ops
from torch import Tensor

from boxloss import LOSSES, kernels, pairwise
from boxloss.simulation import CHUNK, SimulationConfig
from boxloss.simulation.cases import PER_CENTER, cases, centers
from boxloss.simulation.config import Descent
from boxloss.simulation.descent import descend
from boxloss.yolo import Grid, TinyYolo, Truths, YoloLoss, kmeans_anchors

Loss = Callable[[Tensor, Tensor], Tensor]
Runs = dict[str, Callable[[], object]]

COUNTS = (100, 1_000, 10_000, 100_000, 1_000_000)
MATRICES = ((8_400, 20), (8_400, 100), (33_600, 100))
REQUIRED = {"mpdiou": {"image_size": (640, 480)}, "nwd": {"constant": 64.0}}
"""Parameters without a default."""
COMPARED = ("giou", "diou", "ciou")
"""The losses that others have too."""
TORCHVISION = {
    "giou": torchvision.ops.generalized_box_iou_loss,
    "diou": torchvision.ops.distance_box_iou_loss,
    "ciou": torchvision.ops.complete_box_iou_loss,
}
TORCHVISION_PAIRWISE = {
    "giou": torchvision.ops.generalized_box_iou,
    "diou": torchvision.ops.distance_box_iou,
    "ciou": torchvision.ops.complete_box_iou,
}
TURN = 0.02
"""Seconds."""
BYTES = 4 * (4 + 4 + 4)  # of a pair: both boxes read, a gradient written


def by_formula(function: Loss) -> Loss:
    def run(pred: Tensor, target: Tensor) -> Tensor:
        with kernels.disabled():
            return function(pred, target)

    return run


def others(name: str) -> dict[str, Loss]:
    """What else computes a loss, summed: of torchvision, and of fvcore and ultralytics if they are installed."""
    found: dict[str, Loss] = {"torchvision": functools.partial(TORCHVISION[name], reduction="sum")}
    try:
        from fvcore import nn

        if hasattr(nn, f"{name}_loss"):  # its releases have giou alone
            found["fvcore"] = functools.partial(getattr(nn, f"{name}_loss"), reduction="sum")
    except ImportError:
        pass
    try:
        from ultralytics.utils.metrics import bbox_iou

        options = {"giou": {"GIoU": True}, "diou": {"DIoU": True}, "ciou": {"CIoU": True}}[name]
        found["ultralytics"] = lambda p, t: (1 - bbox_iou(p, t, xywh=False, **options)).sum()
    except ImportError:
        pass
    return found


def draw(n: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=g) * 500
    return torch.cat((low, low + 5 + torch.rand(n, 2, generator=g) * 200), 1)


def near(boxes: Tensor) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return boxes + torch.rand(boxes.shape, generator=g) * 4 - 2


def step(function: Loss, pred: Tensor, target: Tensor) -> Callable[[], None]:
    """Forward and backward of a summed loss."""
    pred = pred.clone().requires_grad_()

    def run() -> None:
        pred.grad = None
        function(pred, target).backward()

    return run


def medians(runs: Runs, seconds: float) -> dict[str, float]:
    """Median seconds of each, which take turns of some calls in a row for about ``seconds`` in all.

    The first call of a turn does not count: it finds the caches full of another's code and data.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(next(iter(times.values()))) < 5:
        for name, run in runs.items():
            run()
            until = time.perf_counter() + TURN
            while True:
                start = time.perf_counter()
                run()
                end = time.perf_counter()
                times[name].append(end - start)
                if end > until:
                    break
    return {name: statistics.median(values) for name, values in times.items()}


def functions(name: str, compiled: bool) -> dict[str, Loss]:
    """All that compute a loss, summed."""
    ours = functools.partial(LOSSES[name].function, reduction="sum", **REQUIRED.get(name, {}))
    found = {"kernel": ours, "formula": by_formula(ours)} | (others(name) if name in COMPARED else {})
    if compiled and name in COMPARED:
        found["torch.compile"] = torch.compile(found["torchvision"], dynamic=True)
    return found


def elementwise(n: int, seconds: float, *, backward: bool, compiled: bool) -> dict[str, dict[str, float]]:
    """Seconds by loss and function, of the losses that others have too."""
    pred = draw(n)
    target = near(pred)
    found = {}
    for name in COMPARED:
        runs: Runs = {
            called: step(function, pred, target) if backward else functools.partial(function, pred, target)
            for called, function in functions(name, compiled).items()
        }
        found[name] = medians(runs, seconds / len(COMPARED))
    return found


def copying(n: int, seconds: float) -> float:
    """Seconds to copy as many bytes as a loss of n pairs and its gradient have to read and write."""
    source = torch.rand(n * BYTES // 8)  # each byte copied is read and written
    return medians({"copy": source.clone}, seconds)["copy"]


def all_losses(n: int, seconds: float) -> Iterator[str]:
    pred = draw(n)
    target = near(pred)
    runs: Runs = {}
    for name in LOSSES:
        for called, function in functions(name, False).items():
            if called in ("kernel", "formula"):
                runs[f"{name} {called}"] = step(function, pred, target)
    found = medians(runs, seconds)
    yield "| loss | kernel, ns a pair | formula, ns a pair | ratio |"
    yield "|---|---|---|---|"
    for name in LOSSES:
        kernel, formula = (found[f"{name} {called}"] / n * 1e9 for called in ("kernel", "formula"))
        yield f"| `{name}` | {kernel:.1f} | {formula:.0f} | {formula / kernel:.0f} |"


def table(measured: dict[int, dict[str, dict[str, float]]], names: list[str]) -> Iterator[str]:
    """A row for each loss and count: our microseconds, and how many times longer the others take."""
    yield "| loss | pairs | kernel, µs | " + " | ".join(f"{name} / kernel" for name in names) + " |"
    yield "|---|---|---|" + "---|" * len(names)
    for name in COMPARED:
        for n, by_loss in measured.items():
            times = by_loss[name]
            ratios = " | ".join(f"{times[other] / times['kernel']:.1f}" if other in times else "–" for other in names)
            yield f"| `{name}` | {n:,} | {times['kernel'] * 1e6:,.0f} | {ratios} |"


def matrices(seconds: float) -> Iterator[str]:
    yield "Memory: by how much the process grew at most, in units of the output."
    yield ""
    yield "| loss | boxes | kernel, ms | torchvision / kernel | memory, kernel | torchvision |"
    yield "|---|---|---|---|---|---|"
    for n, m in MATRICES:
        a, b = draw(n), draw(m, seed=1)
        for name, peer in TORCHVISION_PAIRWISE.items():
            runs: Runs = {"kernel": functools.partial(pairwise, name, a, b), "peer": functools.partial(peer, a, b)}
            found = medians(runs, seconds / len(MATRICES) / len(TORCHVISION_PAIRWISE))
            ratio = found["peer"] / found["kernel"]
            memory = [extra_memory(n, m, call) / (4 * n * m) for call in (f"pairwise({name!r}, a, b)", called(peer))]
            cells = [f"`{name}`", f"{n:,} × {m}", f"{found['kernel'] * 1e3:.2f}", f"{ratio:.1f}"]
            yield "| " + " | ".join([*cells, *(f"{share:.2f}" for share in memory)]) + " |"


def called(peer: Callable[..., Tensor]) -> str:
    return f"torchvision.ops.{peer.__name__}(a, b)"


def extra_memory(n: int, m: int, call: str) -> float:
    """Bytes by which a process grows at most in a call, its output among them; NaN where Linux doesn't tell."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    program = f"""
import torch, torchvision
from boxloss import pairwise
def most():  # since the counter was set back
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
torch.manual_seed(0)
a, b = (torch.rand(count, 4).cumsum(1) for count in ({n}, {m}))
small = torch.rand(64, 4).cumsum(1)
(lambda a, b: {call})(small, small)  # what a first call costs once
open("/proc/self/clear_refs", "w").write("5")
before = most()
out = {call}
print((most() - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def figure(measured: dict[int, dict[str, dict[str, float]]], names: list[str], path: Path) -> None:
    """Nanoseconds a pair by how many pairs, of each function."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4), layout="constrained")
    axes = drawn.subplots(1, len(COMPARED), sharey=True)
    for axis, name in zip(axes, COMPARED, strict=True):
        for color, other in enumerate(("kernel", *names)):
            times = {n: by_loss[name][other] / n * 1e9 for n, by_loss in measured.items() if other in by_loss[name]}
            axis.loglog(list(times), list(times.values()), f"C{color}o-", markersize=4, label=other)
        axis.set(title=name, xlabel="pairs")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ns a pair, forward + backward")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=1 + len(names), frameon=False)
    drawn.savefig(path, dpi=110)


def page(seconds: float, compiled: bool, out: Path | None) -> Iterator[str]:
    yield "# How fast"
    yield ""
    yield f"Written by `python tools/bench.py --out docs{' --compile' if compiled else ''}` on {machine()}."
    yield "Float32. Medians of runs in which all functions take short turns of calls in a row; quote the ratios."
    measured = {n: elementwise(n, seconds, backward=True, compiled=compiled) for n in COUNTS}
    names = [name for name in measured[COUNTS[0]]["giou"] if name != "kernel"]
    yield ""
    yield "## Forward and backward, summed"
    yield ""
    yield from table(measured, names)
    if out:
        figure(measured, names, out / "performance.png")
        yield ""
        yield "![Time a pair by number of pairs](performance.png)"
    yield ""
    yield "## Forward alone, summed"
    yield ""
    yield from table({n: elementwise(n, seconds, backward=False, compiled=compiled) for n in COUNTS}, names)
    yield ""
    yield "## Every loss, 100,000 pairs, forward and backward"
    yield ""
    yield from all_losses(100_000, 2 * seconds)
    yield ""
    copied, alone = copying(100_000, seconds / 4), kernel_alone(100_000, seconds / 4)
    shares = ", ".join(f"`{name}` {time / copied:.1f}" for name, time in alone.items())
    yield f"Copying what such a loss reads and writes, {BYTES} bytes a pair, takes {copied * 1e6:.0f} µs here. The"
    yield f"kernels alone, without Python and autograd, take so many times as long: {shares}."
    yield ""
    yield "## Every box with every other, forward"
    yield ""
    yield from matrices(seconds)


def kernel_alone(n: int, seconds: float) -> dict[str, float]:
    """Seconds of the kernels themselves: value, sum and gradient."""
    pred = draw(n)
    target, gradient = near(pred), torch.empty(n, 4)
    runs: Runs = {}
    for name in ("l1", *COMPARED):
        kernel = kernels.find(name, {}, torch.float32)
        if isinstance(kernel, kernels.Kernel):
            runs[name] = functools.partial(
                kernel.library.rows,
                *(kernel.place, kernel.numbers, pred, target, n, (4, 4)),
                gradients=(gradient, None),
                sum=True,
            )
    return medians(runs, seconds) if runs else {}


def machine() -> str:
    cpu = next((line for line in cpu_lines() if line.startswith("model name")), platform.processor())
    library = kernels.library()
    instructions = "no kernels" if isinstance(library, str) else library.instructions[0]
    threads = torch.get_num_threads()
    return f"{cpu.partition(':')[2].strip() or cpu}, {threads} threads, {instructions}, torch {torch.__version__}"


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


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

    runs: Runs = {}
    for name, loss in losses.items():
        runs[f"{name} loss"] = lambda loss=loss: loss_alone(loss)
        runs[f"{name} step"] = lambda loss=loss: whole(loss)
    found = medians(runs, seconds)
    print(f"\na training step of TinyYolo, {side} px, batch {images}, {boxes} boxes an image")
    print(f"{'':12} {'loss, ms':>9} {'step':>7} {'share':>7}")
    for name in losses:
        alone, step_time = found[f"{name} loss"], found[f"{name} step"]
        print(f"{name:12} {alone * 1e3:9.1f} {step_time * 1e3:7.1f} {alone / step_time:7.1%}")


def simulation(centres: int = 512, iterations: int = 20) -> None:
    """Descents of some of the DIoU paper's cases, by `boxloss simulate` and by plain autograd; what all would take."""
    config = SimulationConfig(losses=["iou", *COMPARED, "eiou"], centres=centres, iterations=iterations)
    at = centers(centres, "sunflower")
    whole = 1_715_000 * 200 / (centres * PER_CENTER * iterations)
    print(
        f"\n{centres * PER_CENTER:,} cases, {iterations} iterations; what 1,715,000 cases and 200 iterations would take"
    )
    print(f"{'':16} {'simulate, s':>12} {'all, s':>8} {'plain, s':>9} {'all, s':>8} {'ratio':>6}")
    for descent in config.descents():
        ours = statistics.median(timed(lambda d=descent: in_chunks(config, d, at)) for _ in range(3))
        text = f"{descent.name:16} {ours:12.2f} {ours * whole:8.0f}"
        if descent.rule == "exact":
            with kernels.disabled():
                plain = timed(lambda d=descent: plain_descent(LOSSES[d.loss].function, at, config.rates()))
            text += f" {plain:9.2f} {plain * whole:8.0f} {plain / ours:6.1f}"
        print(text, flush=True)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_chunks(config: SimulationConfig, descent: Descent, at: Tensor) -> None:
    """As `simulate` does it, without its folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(functools.partial(descend, config, descent), at.split(CHUNK)))
    torch.set_num_threads(threads)


def plain_descent(loss: Callable[..., Tensor], at: Tensor, rates: list[float]) -> list[float]:
    """What one would write: all cases at once, autograd through the formula; the sum of errors by iteration."""
    boxes, targets = (columns.T.contiguous() for columns in cases(at))
    edges = torch.cat((targets[:, :2] - targets[:, 2:] / 2, targets[:, :2] + targets[:, 2:] / 2), 1)
    errors = []
    for rate in rates:
        leaf = boxes.requires_grad_()
        rows = torch.cat((leaf[:, :2] - leaf[:, 2:] / 2, leaf[:, :2] + leaf[:, 2:] / 2), 1)
        (gradient,) = torch.autograd.grad(loss(rows, edges, reduction="sum"), leaf)
        iou = 1 - LOSSES["iou"].function(rows.detach(), edges)
        boxes = boxes.detach() - rate * (2 - iou)[:, None] * gradient
        errors.append((boxes - targets).abs().sum().item())
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="per number of pairs (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder of performance.md and performance.png")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--step", action="store_true", help="only: the share of the loss in a training step")
    parser.add_argument("--simulate", action="store_true", help="only: boxes descending losses")
    options = parser.parse_args()
    if options.simulate:
        simulation()
        return
    if options.step:
        training_step(options.seconds)
        return
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)  # now, not after minutes
    lines = []
    for line in page(options.seconds, options.compile, options.out):
        print(line, flush=True)
        lines.append(line)
    if options.out:
        (options.out / "performance.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
