"""Simulations: cases, rules, the figures they give, and that nothing but the configuration counts."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from variants import DEFAULTS, REQUIRED, WITH_FUNCTIONS

from boxloss import LOSSES, kernels
from boxloss.cli import main
from boxloss.config import read_config, write_config
from boxloss.simulation import LAYOUTS, PUBLISHED, STARTS, SimulationConfig, simulate, simulation_text
from boxloss.simulation import run as run_module
from boxloss.simulation.cases import AREAS, ASPECTS, CENTER, PER_CENTER, RADIUS, cases, centers, starts
from boxloss.simulation.config import Descent
from boxloss.simulation.descent import FARTHEST, UNIT, Stopped, Tally, _by_formula, descend, steps
from boxloss.simulation.rules import exact, published

CONFIGS = Path(__file__).parent.parent / "configs/simulate"
FIGURES = ("errors.png", "shares.png", "groups.png")


def some(n=12, seed=1):
    """Some of the cases, from all of the disc."""
    boxes, targets = cases(centers(n, "random", seed))
    chosen = torch.randperm(boxes.shape[1], generator=torch.Generator().manual_seed(seed))[: 40 * n]
    return boxes[:, chosen], targets[:, chosen]


def small(**changes):
    return SimulationConfig(**{"losses": ["iou", "ciou"], "centres": 6, "iterations": 9, **changes})


# -- cases ------------------------------------------------------------------------------------------------------------


def test_the_cases_are_the_papers():
    boxes, targets = cases(centers(5, "random"))
    assert boxes.shape == targets.shape == (4, 5 * 343)
    assert len({tuple(case) for case in torch.cat((boxes, targets)).T.tolist()}) == 5 * 343
    torch.testing.assert_close(targets[2] * targets[3], torch.ones(5 * 343, dtype=torch.float64))
    assert torch.equal(targets[:2], torch.full_like(targets[:2], CENTER))
    areas, aspects = boxes[2] * boxes[3], boxes[2] / boxes[3]
    assert sorted({round(area, 9) for area in areas.tolist()}) == list(AREAS)
    assert sorted({round(aspect, 9) for aspect in aspects.tolist()}) == [round(aspect, 9) for aspect in ASPECTS]
    # The paper's list of targets, in its words.
    named = {(0.5, 2), (math.sqrt(3) / 3, math.sqrt(3)), (math.sqrt(2) / 2, math.sqrt(2)), (1, 1)}
    named |= {(h, w) for w, h in named}
    found = {(round(w, 12), round(h, 12)) for w, h in targets[2:].T.tolist()}
    assert found == {(round(w, 12), round(h, 12)) for w, h in named}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_centers_fill_the_disc(layout):
    at = centers(4000, layout, seed=3) - CENTER
    radius = at.norm(dim=1)
    assert radius.max() <= RADIUS
    # Uniform: a quarter of them within half the radius, in each of four quadrants a quarter.
    assert (radius < RADIUS / 2).double().mean().item() == pytest.approx(0.25, abs=0.02)
    for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert ((at[:, 0] * x > 0) & (at[:, 1] * y > 0)).double().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(centers(50, layout, 3), centers(50, layout, 3))
    assert torch.equal(centers(50, "random", 3), centers(50, "random", 4)) is False


def test_starts():
    boxes, targets = some()
    for k, place in enumerate(starts(boxes, targets).tolist()):
        x, y, w, h = boxes[:, k].tolist()
        X, Y, W, H = targets[:, k].tolist()
        spans = [(x - w / 2, x + w / 2, X - W / 2, X + W / 2), (y - h / 2, y + h / 2, Y - H / 2, Y + H / 2)]
        apart = any(low >= to or high <= since for low, high, since, to in spans)
        inside = all(low >= since and high <= to for low, high, since, to in spans)
        around = all(low <= since and high >= to for low, high, since, to in spans)
        assert STARTS[place] == ("disjoint" if apart else "contained" if inside or around else "overlapping")


# -- rules ------------------------------------------------------------------------------------------------------------


def published_by_hand(name, box, target):
    """The published rules for one box, as simulation_rules.md and the paper's code state them, a number at a time."""
    x, y, w, h = box
    X, Y, W, H = target
    t, b, l, r = y - h / 2, y + h / 2, x - w / 2, x + w / 2  # noqa: E741
    T, B, L, R = Y - H / 2, Y + H / 2, X - W / 2, X + W / 2
    Iw, Ih = min(r, R) - max(l, L), min(b, B) - max(t, T)
    inter = Iw * Ih
    union = w * h + W * H - inter
    Cw, Ch = max(r, R) - min(l, L), max(b, B) - min(t, T)
    d_inter = (-Iw * (t > T), Iw * (b < B), -Ih * (l > L), Ih * (r < R))
    d_box = (-w, w, -h, h)
    d_union = [p - q for p, q in zip(d_box, d_inter, strict=True)]
    overlap = Iw > 0 and Ih > 0 and union > 0
    iou = inter / union if overlap else 0.0
    s = [(union * p - inter * q) / union**2 if overlap else 0.0 for p, q in zip(d_inter, d_union, strict=True)]
    if name == "giou":
        hull = Cw * Ch
        d_hull = (-Cw * (t < T), Cw * (b > B), -Ch * (l < L), Ch * (r > R))
        s = [v + (hull * p - union * q) / hull**2 for v, p, q in zip(s, d_union, d_hull, strict=True)]
    st, sb, sl, sr = s
    g = [sl + sr, st + sb, sr - sl, sb - st]
    if name in ("diou", "ciou"):
        C, d = Cw**2 + Ch**2, (x - X) ** 2 + (y - Y) ** 2
        ax, ay = (r > R) - (l < L), (b > B) - (t < T)
        bw, bh = 0.5 * (r > R) + 0.5 * (l < L), 0.5 * (b > B) + 0.5 * (t < T)
        bw2 = -1.0 if l < L and r > R else bw
        bh2 = -1.0 if t < T and b > B else bh
        g[0] += (2 * (X - x) * C - (2 * Cw + 2 * Ch) * ax * d) / C**2
        g[1] += (2 * (Y - y) * C - (2 * Cw + 2 * Ch) * ay * d) / C**2
        g[2] += (2 * Cw * bw2 + 2 * Ch * bw) * d / C**2
        g[3] += (2 * Cw * bh + 2 * Ch * bh2) * d / C**2
    if name == "ciou":
        q = math.atan(W / H) - math.atan(w / h)
        v = 4 * q**2 / math.pi**2
        alpha = v / (1 - iou + v + 1e-7)
        g[2] += alpha * 8 / math.pi**2 * q * h
        g[3] -= alpha * 8 / math.pi**2 * q * w
    return g, iou


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rules(name):
    boxes, targets = some()
    boxes = torch.cat((boxes, targets), 1)  # on the target too
    targets = torch.cat((targets, targets), 1)
    direction, iou = published(name, boxes, targets)
    for k in range(boxes.shape[1]):
        wanted, wanted_iou = published_by_hand(name, boxes[:, k].tolist(), targets[:, k].tolist())
        assert direction[:, k].tolist() == pytest.approx(wanted, rel=1e-12, abs=1e-13)
        assert iou[k].item() == pytest.approx(wanted_iou, rel=1e-12)


@pytest.mark.parametrize("wh_factor", [1.0, 2.0])
@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
def test_exact_is_minus_the_gradient(name, required, wh_factor):
    boxes, targets = some()
    direction, iou = exact(name, required, wh_factor, boxes, targets)
    leaf = boxes.clone().requires_grad_()
    rows, target_rows = (torch.cat((b[:2] - b[2:] / 2, b[:2] + b[2:] / 2)).T for b in (leaf, targets))
    with kernels.disabled():
        LOSSES[name].function(rows, target_rows, reduction="sum", **required).backward()
        torch.testing.assert_close(iou, 1 - LOSSES["iou"].function(rows, target_rows).detach(), rtol=0, atol=1e-15)
    factors = torch.tensor([1, 1, wh_factor, wh_factor], dtype=torch.float64)[:, None]
    torch.testing.assert_close(direction, -leaf.grad * factors, rtol=1e-11, atol=1e-12)


DESCENTS = [Descent("exact", name) for name in LOSSES if name not in REQUIRED]
DESCENTS += [Descent("published", name) for name in PUBLISHED]


@pytest.mark.skipif(isinstance(kernels.library(), str), reason="no kernels")
@pytest.mark.parametrize("instructions", range(3))
@pytest.mark.parametrize("descent", DESCENTS)
def test_the_loop_in_one_pass_is_the_loop_of_formulas(descent, instructions, monkeypatch):
    """Bit for bit after some steps, where nothing is rounded in two ways; a rest of a block, too."""
    library = kernels.library()
    if instructions >= len(library.instructions):
        pytest.skip("not on this machine")
    monkeypatch.setattr(library, "used", instructions)
    config = small(losses=[descent.loss], rule=descent.rule, iterations=5, wh_factor=1.5, decay=[0.5])
    at = centers(2, "random", 8)
    tally, last = descend(config, descent, at)
    with kernels.disabled():
        wanted, wanted_last = descend(config, descent, at)
    assert tally.above.sum() == wanted.above.sum() == 6 * 2 * 343
    if descent.loss in WITH_FUNCTIONS:
        torch.testing.assert_close(last, wanted_last, rtol=1e-9, atol=2)
        torch.testing.assert_close(tally.errors, wanted.errors, rtol=1e-9, atol=2)
        assert (tally.above - wanted.above).abs().sum() <= 4
    else:
        assert torch.equal(last, wanted_last)
        assert all(map(torch.equal, tally, wanted))


def test_simulations_use_the_kernels(monkeypatch):
    if isinstance(kernels.library(), str):
        pytest.skip("no kernels")
    monkeypatch.setattr("boxloss.simulation.descent._by_formula", lambda *_: pytest.fail("the formula was asked"))
    for descent in (Descent("exact", "giou"), Descent("published", "ciou")):
        descend(small(losses=[descent.loss]), descent, centers(1, "random"))
    with pytest.raises(pytest.fail.Exception), kernels.disabled():
        descend(small(), Descent("exact", "ciou"), centers(1, "random"))


def test_own_parameters_count():
    config = small(losses=["smooth_l1"], rule="exact", parameters={"smooth_l1": {"beta": 0.01}})
    boxes, targets = some(2)
    ways = [
        torch.stack([b for b, _ in steps(c, Descent("exact", "smooth_l1"), boxes, targets)])
        for c in (config, small(losses=["smooth_l1"], rule="exact"))
    ]
    assert not torch.equal(*ways)


def test_a_step_by_hand():
    """A box beside its target, IoU 1/3: with L2 it goes by -2·Δ of each edge, times 2 - IoU, times the rate."""
    boxes = torch.tensor([[10.5], [10.0], [1.0], [1.0]], dtype=torch.float64)
    targets = torch.tensor([[10.0], [10.0], [1.0], [1.0]], dtype=torch.float64)
    config = SimulationConfig(losses=["l2"], rule="exact", iterations=2, lr=0.1, decay=[0.5], wh_factor=1.0)
    assert config.rates() == [0.1, 0.01]
    ways = [b[:, 0].tolist() for b, _ in steps(config, Descent("exact", "l2"), boxes, targets)]
    # d/dx (2·(x - 10)²) = 4·0.5 = 2; 0.1 · (2 - 1/3) · 2 = 1/3: from 10.5 to 10.1666…, IoU (5/6)/(7/6) = 5/7;
    # then 0.01 · (2 - 5/7) · 4/6 = 0.0085714…
    assert ways[1] == pytest.approx([10.5 - 1 / 3, 10, 1, 1], abs=1e-14)
    assert ways[2] == pytest.approx([10.5 - 1 / 3 - 0.01 * (9 / 7) * (2 / 3), 10, 1, 1], abs=1e-14)


def test_adam_is_torchs():
    boxes, targets = some(1)
    config = small(rule="exact", optimizer="adam", losses=["diou"], lr=0.05, decay=[], iterations=6)
    *_, (last, _) = steps(config, Descent("exact", "diou"), boxes, targets)
    leaf = boxes.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.05)
    for _ in range(6):
        direction, iou = exact("diou", {}, config.wh_factor, leaf.detach(), targets)
        leaf.grad = -(2 - iou) * direction
        optimizer.step()
    torch.testing.assert_close(last, leaf.detach(), rtol=1e-10, atol=1e-12)


# -- figures ----------------------------------------------------------------------------------------------------------

# Error per case summed over the iterations, from simulation_rules.md.
SUMS = {
    ("published", 2): {"iou": 700.7, "giou": 315.2, "diou": 94.7, "ciou": 83.9},
    ("exact", 2): {"iou": 700.5, "giou": 195.6, "diou": 213.0, "ciou": 193.5, "eiou": 165.0},
    ("exact", 1): {"iou": 702.3, "giou": 158.2, "diou": 198.2, "ciou": 176.4, "eiou": 148.7},
}
ABOVE_95 = {
    ("published", 2): {"iou": 0.156, "giou": 0.691, "diou": 1.0, "ciou": 1.0},
    ("exact", 2): {"iou": 0.156, "giou": 0.993, "diou": 0.991, "ciou": 0.999, "eiou": 0.881},
    ("exact", 1): {"iou": 0.156, "giou": 0.987, "diou": 0.979, "ciou": 0.997, "eiou": 1.0},
}


@pytest.mark.parametrize(
    ("rule", "wh_factor", "count", "close"),
    [
        ("published", 2, 48, 0.01),
        ("exact", 2, 48, 0.01),
        ("exact", 1, 48, 0.01),
        pytest.param("published", 2, 1200, 0.002, marks=pytest.mark.slow),
        pytest.param("exact", 2, 250, 0.002, marks=pytest.mark.slow),
        pytest.param("exact", 1, 250, 0.002, marks=pytest.mark.slow),
    ],
)
def test_the_figures(rule, wh_factor, count, close):
    sums = SUMS[rule, wh_factor]
    config = SimulationConfig(list(sums), rule, centres=count, centres_layout="sunflower", wh_factor=wh_factor)
    at = centers(count, "sunflower")
    for name, wanted in sums.items():
        parts = [descend(config, Descent(rule, name), at[k : k + 32])[0] for k in range(0, count, 32)]
        errors = sum(part.errors.sum(1) for part in parts).double() * UNIT / (count * PER_CENTER)
        assert errors[1:].sum().item() == pytest.approx(wanted, rel=close), name
        above = sum(part.above[-1, 3].sum().item() for part in parts) / (count * PER_CENTER)
        assert above == pytest.approx(ABOVE_95[rule, wh_factor][name], abs=0.02), name


# -- the folder -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_report(monkeypatch):
    """Figures take seconds."""
    monkeypatch.setattr(run_module, "write_report", lambda *_: None)


def tables(folder):
    return [(folder / name).read_bytes() for name in ("curves.csv", "groups.csv")]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation") / "run"
    return folder, simulate(small(), folder, threads=1)


@pytest.mark.usefixtures("no_report")
def test_neither_threads_nor_chunks_change_a_digit(done, tmp_path):
    folder, _ = done
    for threads, chunk in ((2, 1), (2, 4), (1, 5)):
        other = tmp_path / f"{threads}-{chunk}"
        simulate(small(), other, threads=threads, chunk=chunk)
        assert tables(other) == tables(folder)
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("no_report")
def test_nor_do_they_without_kernels(tmp_path, monkeypatch):
    """On the pool's threads, too, they are disabled."""
    config = small(losses=["ciou", "log_iou"], centres=3)
    with kernels.disabled():
        if not isinstance(kernels.library(), str):
            monkeypatch.setattr(type(kernels.library()), "descend", lambda *_, **__: pytest.fail("a kernel was asked"))
        for threads, chunk in ((1, 3), (2, 1), (2, 2)):
            simulate(config, tmp_path / f"{threads}-{chunk}", threads=threads, chunk=chunk)
    assert tables(tmp_path / "1-3") == tables(tmp_path / "2-1") == tables(tmp_path / "2-2")


def test_tables_and_summary(done):
    folder, summary = done
    assert {(d["rule"], d["loss"]) for d in summary["descents"]} == {
        (rule, loss) for rule in ("published", "exact") for loss in ("iou", "ciou")
    }
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 10
    boxes, targets = cases(centers(6, "random"))
    at_start = (boxes - targets).abs().sum(0)
    for row in rows:
        if row["iteration"] == "0":
            assert float(row["error"]) == pytest.approx(at_start.mean().item(), rel=1e-9)
            assert float(row["error_sum"]) == pytest.approx(at_start.sum().item(), rel=1e-9)
    with (folder / "groups.csv").open() as file:
        groups = list(csv.DictReader(file))
    first = [row for row in groups if row["rule"] == "exact" and row["loss"] == "ciou" and row["iteration"] == "0"]
    for name in ("start", "area", "aspect", "target aspect"):
        of_name = [row for row in first if row["group"] == name]
        assert sum(int(row["cases"]) for row in of_name) == 6 * 343
        assert sum(float(row["error_sum"]) for row in of_name) == pytest.approx(at_start.sum().item(), rel=1e-9)
    by_area = {float(row["value"]): float(row["error"]) for row in first if row["group"] == "area"}
    mask = (boxes[2] * boxes[3] - 0.67).abs() < 1e-9
    assert by_area[0.67] == pytest.approx(at_start[mask].mean().item(), rel=1e-9)
    by_start = {row["value"]: int(row["cases"]) for row in first if row["group"] == "start"}
    for place, name in enumerate(STARTS):
        assert by_start.get(name, 0) == (starts(boxes, targets) == place).sum()
    assert len(by_start) > 1
    saved = json.loads((folder / "summary.json").read_text())
    assert saved["descents"] == summary["descents"]
    assert "6 iterations" not in simulation_text(summary)
    assert "2,058 cases, 9 iterations" in simulation_text(summary)


def test_shares_are_of_the_boxes(done):
    _, summary = done
    boxes, targets = cases(centers(6, "random"))
    (exact_ciou,) = (d for d in summary["descents"] if d["rule"] == "exact" and d["loss"] == "ciou")
    for k, (_, iou) in enumerate(steps(small(), Descent("exact", "ciou"), boxes, targets)):
        for shares, level in zip(exact_ciou["shares"], (0.5, 0.75, 0.95), strict=True):
            assert shares[k] == pytest.approx((iou > level).double().mean().item(), abs=1e-3)


def test_page(done):
    folder, _ = done
    page = (folder / "report.html").read_text()
    assert not re.search(r"<script|<link|src=\"(?!data:image/(png|gif);base64,)", page)
    assert page.count("data:image/png") == 5
    assert page.count("data:image/gif") == 2
    for name in (*FIGURES, "surface-exact.png", "walks-published.gif"):
        assert (folder / "figures" / name).stat().st_size > 1000
    assert "2,058 boxes" in page
    assert LOSSES["ciou"].definition.split(",")[0] in page


@pytest.mark.parametrize("rule", ["published", "exact"])
def test_a_rule_alone_and_a_center_alone(tmp_path, rule):
    summary = simulate(small(rule=rule, centres=1, iterations=1), tmp_path / "run")
    assert {d["rule"] for d in summary["descents"]} == {rule}


@pytest.mark.usefixtures("no_report")
def test_a_folder_goes_on_after_a_stop(done, tmp_path, monkeypatch):
    folder, _ = done
    monkeypatch.setattr(run_module, "_SAVE_EVERY", 0.0)
    computed = []

    def stops(config, descent, at, stop):
        computed.append(len(at))
        if sum(computed) > 15:
            raise KeyboardInterrupt
        return descend(config, descent, at, stop)

    monkeypatch.setattr(run_module, "descend", stops)
    with pytest.raises(KeyboardInterrupt):
        simulate(small(), tmp_path / "run", threads=1, chunk=2)
    assert len(list((tmp_path / "run/descents").iterdir())) in (2, 3)  # two whole ones, and what else was counted
    computed.clear()

    def counted(config, descent, at, stop):
        computed.append(len(at))
        return descend(config, descent, at, stop)

    monkeypatch.setattr(run_module, "descend", counted)
    simulate(small(), tmp_path / "run", threads=1, chunk=3)
    assert 6 <= sum(computed) <= 4 * 6 - 12
    assert tables(tmp_path / "run") == tables(folder)
    computed.clear()
    simulate(small(), tmp_path / "run")
    assert not computed


@pytest.mark.usefixtures("no_report")
def test_a_damaged_file_is_made_again(done, tmp_path):
    folder, _ = done
    simulate(small(), tmp_path / "run")
    for name, text in (("exact-iou", b""), ("exact-ciou", b"PK damaged"), ("published-iou", None)):
        path = tmp_path / f"run/descents/{name}.npz"
        path.write_bytes(path.read_bytes()[:-300] if text is None else text)
    simulate(small(), tmp_path / "run")
    assert tables(tmp_path / "run") == tables(folder)


@pytest.mark.usefixtures("no_report")
def test_arrays_that_do_not_fit_are_made_again(done, tmp_path):
    """Of a file that is whole, but not what was written: nothing of it is counted twice or believed."""
    folder, _ = done
    simulate(small(), tmp_path / "run")
    path = tmp_path / "run/descents/exact-iou.npz"
    with np.load(path) as file:
        whole = dict(file)
    fewer = whole["done"].copy()
    fewer[0] = False
    for changes in (
        {"final": None},
        {"errors": whole["errors"][:3]},
        {"errors": whole["errors"].astype(np.uint16)},
        {"above": whole["above"][:, :2]},
        {"done": np.array(True)},
        {"done": fewer},
        {"above": 0 * whole["above"]},
    ):
        np.savez(path, **{name: array for name, array in {**whole, **changes}.items() if array is not None})
        simulate(small(), tmp_path / "run")
        assert tables(tmp_path / "run") == tables(folder)
    for name in ("descents/.a.part", "figures/.b.part"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    simulate(small(), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.usefixtures("no_report")
def test_whole_numbers_are_numbers(tmp_path):
    config = small(lr=1, wh_factor=np.float64(2), centres=np.int64(2), parameters={"ciou": {}})
    assert config == small(lr=1.0, wh_factor=2.0, centres=2, parameters={"ciou": {}})
    for _ in range(2):
        simulate(config, tmp_path / "run")


def test_a_stop_is_heeded_within_a_chunk(monkeypatch):
    monkeypatch.setattr("boxloss.simulation.descent._AT_ONCE", 1)
    asked = []
    with pytest.raises(Stopped):
        descend(small(), Descent("exact", "iou"), centers(3, "random"), lambda: asked.append(1) or len(asked) > 3)
    assert len(asked) == 4


def test_levels_are_compared_in_full_precision():
    """An IoU between .95 and its float32."""
    config = small(rule="exact", optimizer="adam", iterations=1)
    boxes = torch.tensor([[10.0], [10.0], [1.0], [1.0]], dtype=torch.float64)
    targets = boxes.clone()
    boxes[2] = 0.95 - 5e-9
    tally = Tally.empty(1)
    _by_formula(config, Descent("exact", "iou"), boxes, targets, torch.zeros(1, dtype=torch.int64), tally, bool)
    assert tally.above[0, :, 0].tolist() == [0, 0, 1, 0]


@pytest.mark.usefixtures("no_report")
def test_a_simulation_grows_and_is_no_other(tmp_path):
    simulate(small(losses=["ciou"], rule="exact"), tmp_path / "run")
    before = (tmp_path / "run/descents/exact-ciou.npz").stat().st_mtime_ns
    simulate(small(losses=["iou", "ciou"]), tmp_path / "run")
    assert (tmp_path / "run/descents/exact-ciou.npz").stat().st_mtime_ns == before
    for other in (small(centres=7), small(losses=["iou"]), small(seed=1), small(wh_factor=1.0)):
        with pytest.raises(ValueError, match=r"run holds another simulation \(.* there and .* here"):
            simulate(other, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(ValueError, match="full is not empty and holds no simulation"):
        simulate(small(), tmp_path / "full")


def test_lost_boxes_are_counted_and_not_spread(tmp_path):
    summary = simulate(small(lr=1e300, losses=["giou", "l2"], rule="exact", iterations=3), tmp_path / "run")
    for descent in summary["descents"]:
        assert all(math.isfinite(error) and error <= FARTHEST for error in descent["error"])
    assert summary["descents"][1]["error"][-1] == FARTHEST
    assert (tmp_path / "run/report.html").exists()


# -- configuration and command ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "exakt"}, "rule: expected one of both, published, exact, got 'exakt'"),
        ({"losses": []}, "losses: expected names, none twice"),
        ({"losses": ["iou", "iou"]}, "losses: expected names, none twice"),
        ({"losses": ["giuo"]}, "giou"),
        ({"losses": ["eiou", "iou"], "rule": "published"}, "rule published: there is none for eiou; of iou, giou"),
        ({"centres": 0}, "centres: expected 1 to 1,000,000, got 0"),
        ({"iterations": -3}, "iterations: expected 1 to"),
        ({"centres_layout": "grid"}, "centres_layout: expected one of random, sunflower"),
        ({"optimizer": "lbfgs"}, "optimizer: expected one of sgd, adam"),
        ({"lr": math.nan}, "lr: expected a finite number > 0, got nan"),
        ({"lr": math.inf}, "lr: expected a finite number > 0, got inf"),
        ({"wh_factor": 0.0}, "wh_factor: expected a finite number > 0, got 0.0"),
        ({"decay": [0.5, 1.5]}, "decay: expected shares of the iterations between 0 and 1"),
        ({"decay": [0.5] * 400}, "decay: expected 20 shares at most, got 400"),
        ({"decay": 0.5}, "decay: expected a list of shares, got 0.5"),
        ({"centres": 3.5}, "centres: expected a whole number, got 3.5"),
        ({"losses": "iou"}, "losses: expected names"),
        ({"parameters": {"iou": None}}, "parameters: expected a mapping of losses to their parameters"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"parameters": {"giou": {}}}, "parameters: giou is none of the losses iou, ciou"),
        ({"parameters": {"ciou": {"gate": True}}}, "ciou: unknown parameter 'gate'"),
        ({"parameters": {"ciou": {"gated": "yes"}}}, "gated: expected True or False, got 'yes'"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        small(**changes)


@pytest.mark.parametrize(("name", "value"), [("threads", 0), ("chunk", 0), ("chunk", 4096)])
def test_bad_options(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name}: expected 1"):
        simulate(small(), tmp_path / "run", **{name: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["diou_paper", "quick"])
def test_shipped_configurations(name, tmp_path):
    config = read_config(CONFIGS / f"{name}.yaml", SimulationConfig)
    assert config.centres == {"diou_paper": 5000, "quick": 100}[name]
    assert config.rates() == [0.1] * 160 + [0.1 / 10] * 20 + [0.1 / 100] * 20
    write_config(tmp_path / "a.yaml", config)
    assert read_config(tmp_path / "a.yaml", SimulationConfig) == config


def test_command(tmp_path, capsys):
    folder = tmp_path / "run"
    options = ["--losses", "giou,diou", "--centres", "2", "--iterations", "3", "--rule", "exact", "--wh-factor", "1"]
    assert (
        main(["simulate", str(CONFIGS / "quick.yaml"), *options, "--centres-layout=random", "--out", str(folder)]) == 0
    )
    shown = capsys.readouterr().out
    assert "686 cases, 3 iterations" in shown
    assert shown.rstrip().endswith(str(folder / "report.html"))
    kept = read_config(folder / "simulation.yaml", SimulationConfig)
    assert (kept.losses, kept.centres, kept.wh_factor, kept.centres_layout) == (["giou", "diou"], 2, 1.0, "random")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("losses: [giuo]", "did you mean 'giou'"),
        ("centers: 5", "centers: no such field"),
        ("centres: null", "centres: expected a value, got null"),
        ("lr: fast", "lr"),
        ("- a list", "expected some of the fields"),
        ("parameters: {ciou: {gated: 3}}", "parameters: gated: expected True or False, got 3"),
    ],
)
def test_command_with_a_bad_file(tmp_path, capsys, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    try:
        status = main(["simulate", str(path), "--out", str(tmp_path / "run")])
    except SystemExit as stopped:
        status = stopped.code
    assert status != 0
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "run").exists()
