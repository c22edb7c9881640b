"""The answers of `boxloss advise` against numbers by hand, and the figures of `boxloss plot`."""

from __future__ import annotations

import importlib
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from PIL import Image

from boxloss import LOSSES
from boxloss.advice import CASES, QUESTIONS, answer_text
from boxloss.advice.classes import class_panels, cross_entropy_or_dice, focal_gamma, mse_or_cross_entropy
from boxloss.advice.fields import (
    along,
    gradient_field,
    landscape,
    make_loss,
    plain_losses,
    pull,
    read_losses,
    read_size,
)
from boxloss.advice.imbalance import Task, best_threshold, draw, losses, score, try_losses
from boxloss.advice.overlap import eiou_moving_away, ranges, which_iou_loss
from boxloss.advice.regression import l1_or_l2, smooth_l1_regimes
from boxloss.advice.report import imbalance, unbroken
from boxloss.cli import main
from boxloss.region import dice_loss

QUICK = Task(images=6, side=40, steps=40, rate=0.05)
ROOT = Path(__file__).parent.parent


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def text_of(answer):
    return " ".join(answer.sentences)


# -- classes and masks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "t"), [(0.2, 0.7), (0.7, 0.2), (0.01, 1.0), (0.3, 0.0)])
def test_gradient_of_dice(p, t):
    at = double(p).requires_grad_()
    dice_loss(at[:, None], double(t)[:, None], squared=True, activation="none").sum().backward()
    assert at.grad.item() == pytest.approx(-2 * t * (t**2 - p**2) / (p**2 + t**2) ** 2, rel=1e-12, abs=1e-15)


def test_cross_entropy_or_dice():
    answer = cross_entropy_or_dice()
    found = answer.numbers
    assert found["off"] < 1e-13
    p, t = 0.001, 0.01
    assert found["explodes"] == pytest.approx(-2 * t * (t**2 - p**2) / (p**2 + t**2) ** 2)
    assert found["explodes"] < -190
    assert found["empty"] == 0
    assert found["smoothed"] == pytest.approx(2 * 0.3 / (0.3**2 + 1) ** 2)
    assert found["cross-entropy"] == pytest.approx(0.001 - 1)
    assert found["Dice, of one pixel"] == pytest.approx(-2 * (1 - 1e-6) / (1 + 1e-6) ** 2 * 0.001 * 0.999)
    assert "it is −194" in text_of(answer)


def test_mse_or_cross_entropy():
    found = mse_or_cross_entropy().numbers
    p = 1 / (1 + math.exp(10))
    assert found["stuck"]["cross-entropy"] == pytest.approx(1 - p)
    assert found["stuck"]["squared error"] == pytest.approx(2 * (1 - p) * p * (1 - p))
    assert found["steps"]["cross-entropy"] == 7  # -6, and six and a bit steps of nearly 1
    assert found["steps"]["squared error"] > 20 * found["steps"]["cross-entropy"]
    lopsided, level = found["three classes"]["cross-entropy"]
    assert (lopsided, level) == pytest.approx((-math.log(0.6),) * 2)
    lopsided, level = found["three classes"]["squared error"]
    assert lopsided == pytest.approx(0.4**2 + 0.39**2 + 0.01**2)
    assert level == pytest.approx(0.4**2 + 2 * 0.2**2)


def test_focal_gamma():
    found = focal_gamma().numbers
    for gamma in (0.0, 0.2, 2.0, 5.0):
        assert found["factor"][gamma] == pytest.approx(0.1**gamma)
        easy, hard = 0.1**gamma * -math.log(0.9), 0.9**gamma * -math.log(0.1)
        assert found["crowd"][gamma] == pytest.approx(1000 * easy / hard)


def test_class_panels():
    value, by_p, by_logit = class_panels(3)
    assert value.lines["cross-entropy"][0] == pytest.approx([0.01, 0.5, 0.99])
    by_hand = {
        "cross-entropy": (math.log(2), -2, -0.5),
        "squared error": (0.25, -1, -0.25),
        "focal, γ = 2": (math.log(2) / 4, -2 * 0.5 * math.log(2) - 0.25 / 0.5, None),
        "Dice, of one pixel": (1 - 2 * 0.5 / 1.25, -2 * (1 - 0.25) / 1.25**2, None),
    }
    for name, (loss, slope, of_logit) in by_hand.items():
        assert value.lines[name][1][1] == pytest.approx(loss)
        assert by_p.lines[name][1][1] == pytest.approx(slope)
        assert by_logit.lines[name][1][1] == pytest.approx(slope / 4 if of_logit is None else of_logit)


# -- coordinates ------------------------------------------------------------------------------------------------------


def test_l1_or_l2():
    answer = l1_or_l2()
    found = answer.numbers["settles"]
    assert found["L1"] == pytest.approx(1000, abs=1e-6)
    assert found["L2"] == pytest.approx(0.95 * 1000 + 0.05 * 10, abs=1e-3)
    assert found["smooth L1"] == pytest.approx(1000 - 5 / 95, abs=1e-5)  # 95 slopes of d hold 5 of 1
    assert "1000.0 under L1" in text_of(answer)
    assert "950.5 under L2" in text_of(answer)
    assert "the other way round" in answer.wrong


def test_smooth_l1():
    found = smooth_l1_regimes().numbers
    assert found["regimes"] == pytest.approx({-2: -1, 0.5: 0.5, 2: 1})
    assert found["ratio"] == pytest.approx(0.5, abs=1e-12)
    assert sorted(found["ends"]["L1"]) == pytest.approx([0.1, 0.2])  # 10 - 33 * 0.3, and 0.3 beyond
    assert max(*found["ends"]["smooth L1"], *found["ends"]["L2"]) < 1e-20


# -- boxes ------------------------------------------------------------------------------------------------------------


def test_which_iou_loss():
    answer = which_iou_loss()
    pulls = answer.numbers["pulls"]
    assert set(pulls) == set(plain_losses())
    still_apart = {name for name, of in pulls.items() if of["apart"][0] == 0}
    assert {"iou", "log_iou", "squared_iou", "dice_box", "tversky_box", "focal_eiou"} <= still_apart
    assert not {"giou", "diou", "ciou", "eiou", "cdiou"} & still_apart
    for case in ("contained", "around"):
        still = {name for name, of in pulls.items() if of[case][0] == 0}
        assert {"iou", "giou", "log_iou"} <= still
        assert not {"diou", "ciou", "eiou", "cdiou", "focal_eiou"} & still
    # DIoU, apart: ρ²/c² with ρ² = 5, c² = 3² + 2²; along the way dρ² = 2√5, dc² = 2(3·2 + 2·1)/√5.
    assert pulls["diou"]["apart"][0] == pytest.approx(
        2 * math.sqrt(5) / 13 - 5 * 2 * (3 * 2 + 2) / math.sqrt(5) / 13**2
    )
    # IoU, contained: 1 − wh of a target of 1 × 1; the slopes by w and h are −h and −w.
    assert pulls["iou"]["contained"][1] == pytest.approx(0.8)
    assert set(answer.numbers["always"]) >= {"diou", "ciou", "eiou", "cdiou"}
    assert not {"iou", "giou", "focal_eiou"} & set(answer.numbers["always"])
    assert [row[0] for row in answer.table[1:]] == list(pulls)


def test_eiou_falls_while_a_box_moves_away():
    found = eiou_moving_away().numbers
    assert found["touching"] == pytest.approx(1 + 5.5**2 / (11**2 + 1) + 9**2 / 11**2)  # 1.917
    assert found["touching"] == pytest.approx(1.917, abs=5e-4)
    at = found["at"]
    assert found["lowest"] == pytest.approx(1 + at**2 / ((at + 5.5) ** 2 + 1) + 9**2 / (at + 5.5) ** 2)
    assert found["lowest"] < 1.733
    value, slope = along(make_loss("eiou", {}), double(12.0), (10, 1), (1, 1))
    assert value.item() == pytest.approx(1.733, abs=5e-4)
    assert slope.item() < 0
    assert "eiou" in found["falling"]
    assert not {"iou", "giou", "diou", "ciou", "cdiou"} & set(found["falling"])
    farthest, steps = found["walk"]
    assert farthest > 6
    assert 0 < steps < 20_000


def test_ranges():
    found = ranges().numbers
    assert found["iou apart"] == (1, 1)
    assert found["slope apart"] == 0
    assert found["giou far"] == pytest.approx(-1 + 2 / (1e6 + 1), abs=1e-12)
    assert found["giou loss at 6"] == pytest.approx(1 + 5 / 7)


@pytest.mark.parametrize("case", CASES)
def test_fields_point_against_the_gradient(case):
    """A small step against the gradient makes the loss smaller, wherever the map shows one."""
    one = gradient_field(make_loss("ciou", {}), CASES[case], 8)  # an even number: no ties in the middle
    assert one.value.shape == one.along_x.shape == (8, 8)
    chosen = CASES[case]
    target = double(0, 0, *chosen.target)
    for row, column in ((1, 2), (6, 3), (0, 7)):
        x, y = one.x[column], one.y[row]
        box = double(x, y, *chosen.pred) if chosen.reach else double(0, 0, x, y)
        loss = make_loss("ciou", {})
        assert loss(box, target).item() == one.value[row, column]
        step = torch.zeros(4, dtype=torch.float64)
        first = 0 if chosen.reach else 2
        step[first], step[first + 1] = float(one.along_x[row, column]), float(one.along_y[row, column])
        assert step.norm() > 0
        assert loss(box - 1e-4 * step, target) < loss(box, target)


def test_contained_fields_are_contained():
    for case, inner, outer in (("contained", "pred", "target"), ("around", "target", "pred")):
        one = CASES[case]
        assert max(getattr(one, inner)) / 2 + one.reach <= min(getattr(one, outer)) / 2
        assert not gradient_field(make_loss("giou", {}), one).along_x.any()


def test_landscape():
    one = landscape(make_loss("l1", {}), (4, 2), (1, 1), points=5)
    assert one.x.tolist() == [-7.5, -3.75, 0, 3.75, 7.5]
    assert one.value[2, 2] == pytest.approx(2 * 1.5 + 2 * 0.5)
    assert one.value[0, 4] == pytest.approx(2 * 7.5 + 2 * 4.5)


def test_pull_of_sides_is_towards_the_target():
    of_place, of_sides = pull(make_loss("l2", {}), CASES["centered"])
    assert of_place == 0
    assert of_sides == pytest.approx(1 + 0.5)  # sides off by 1 and -0.5: 2 (d/2)² each


def test_read_losses():
    read = read_losses("giou, smooth_l1:beta=2, ciou:gated=true:aspect_gradient=unit")
    assert [loss.name for loss in read.values()] == ["giou", "smooth_l1", "ciou"]
    assert read["ciou:gated=true:aspect_gradient=unit"].loss_parameters == {"gated": True, "aspect_gradient": "unit"}
    assert read["giou"].box_format == "cxcywh"
    assert set(plain_losses()) <= set(LOSSES)
    assert not {"l1", "l2", "smooth_l1"} & set(plain_losses())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guou", "did you mean 'giou'"),
        ("giou,", "expected names separated by commas"),
        ("giou:reduction=mean", "unknown parameter 'reduction'"),
        ("giou:beta=2", "unknown parameter 'beta'.*giou:NAME=VALUE"),
        ("smooth_l1:beta=-1", "beta: expected a finite number >= 0, got -1"),
        ("smooth_l1:beta", "expected a parameter as NAME=VALUE"),
    ],
)
def test_bad_losses(text, message):
    with pytest.raises(ValueError, match=message):
        read_losses(text)


@pytest.mark.parametrize("text", ["10", "10x", "1x2x3", "0x1", "-1x1", "infx1", "nanx1"])
def test_bad_sizes(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        read_size(text)


# -- imbalance --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits():
    told = []
    share, found = try_losses(QUICK, told.append)
    assert len(told) == len(found) == 6
    return share, found


def test_about_one_percent_is_drawn():
    images, masks = draw(Task(images=100), 5)
    assert images.shape == masks.shape == (100, 1, 48, 48)
    assert masks.mean().item() == pytest.approx(0.01, abs=0.001)
    assert masks.sum((1, 2, 3)).min() > 5
    assert images[masks == 1].mean() - images[masks == 0].mean() == pytest.approx(1.2, abs=0.05)
    assert torch.equal(draw(QUICK, 5)[0], draw(QUICK, 5)[0])
    assert not torch.equal(draw(QUICK, 5)[0], draw(QUICK, 6)[0])


def test_imbalance(fits):
    """What each loss is after, not which is best."""
    share, found = fits
    assert 0.005 < share < 0.015
    plain, weighted, dice = found["cross-entropy"], found["weighted cross-entropy"], found["Dice"]
    assert plain.scores.recall + 0.2 < weighted.scores.recall
    assert weighted.scores.precision < dice.scores.precision
    assert found["focal"].scores.recall < weighted.scores.recall
    assert plain.scores.dice < dice.scores.dice
    assert plain.best.dice > plain.scores.dice
    for fit in found.values():
        assert fit.losses[-1] < fit.losses[0]
        assert len(fit.losses) == 40
        assert fit.steps[0] == 0
        assert fit.steps[-1] == 40
        assert fit.recall[-1] == fit.scores.recall


def test_all_start_from_the_same_weights(fits):
    assert len({fit.recall[0] for fit in fits[1].values()}) == 1


def test_weighted_by_frequency():
    logits, masks = double(0.3, -0.2)[None, None], double(1, 0)[None, None]
    of = losses(99.0)
    plain = of["cross-entropy"](logits, masks)
    missed = torch.nn.functional.softplus(double(-0.3))
    assert of["weighted cross-entropy"](logits, masks) - plain == pytest.approx((98 * missed / 2).item())
    assert of["cross-entropy + Dice"](logits, masks).item() == pytest.approx((plain + of["Dice"](logits, masks)).item())


def test_scores():
    probability, truth = double(0.9, 0.8, 0.6, 0.2), double(1, 1, 0, 1)
    assert score(probability, truth) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert score(probability, truth, 0.95) == (0, 0, 0)
    assert best_threshold(probability, truth) == 0.01  # all four: 2·3/(4 + 3), more than 2·2/(2 + 3)


def test_text_of_imbalance(fits):
    _, found = fits
    torch.set_num_threads(2)
    try:
        answer = imbalance(lambda _: None, QUICK)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert answer.numbers["fits"] == found  # threads do not count, nor what was computed before
    assert f"{100 * found['weighted cross-entropy'].scores.recall:.0f} %" in text_of(answer)
    assert [row[0] for row in answer.table[1:]] == list(found)
    assert answer.table[3][3] == f"{found['Dice'].scores.dice:.3f}"


def test_the_page_in_docs_is_in_step(monkeypatch):
    """Of what is answered at once; fits take seconds, and other machines round otherwise."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("make_choosing")
    page = (ROOT / "docs/choosing.md").read_text()
    assert page.startswith(tool.HEAD)
    for key, question in QUESTIONS.items():
        assert f"\n## {question.text}\n" in page
        picture = ROOT / f"docs/choosing-{key}.png"
        assert f"({picture.name})" in page
        assert picture.stat().st_size < 100_000
        if key != "imbalance":
            assert f"\n{tool.section(key, question.answer(print))}\n" in page, "run `make choosing`"


# -- the commands -----------------------------------------------------------------------------------------------------


def test_advise(tmp_path, capsys):
    keys = ["l1-or-l2", "ranges"]
    assert main(["advise", *keys, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(f"{tmp_path / 'advice.html'}\n")
    page = (tmp_path / "advice.html").read_text()
    for key in keys:
        assert f"{key}: {QUESTIONS[key].text}" in printed
        assert f'<h2 id="{key}">' in page
        with Image.open(tmp_path / f"{key}.png") as picture:
            picture.load()
            assert min(picture.size) > 300
        assert (tmp_path / f"{key}.png").stat().st_size < 100_000
    assert page.count("data:image/png;base64,") == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)  # works with no network
    assert "950.5 under L2" in page.replace("\u00a0", " ")


def test_advise_lists_its_questions(capsys):
    assert main(["advise", "--list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == list(QUESTIONS)


def test_unknown_question(tmp_path, capsys):
    assert main(["advise", "l1-or-l3", "--out", str(tmp_path)]) == 1
    assert "no question named 'l1-or-l3'; did you mean 'l1-or-l2'?" in capsys.readouterr().err
    assert main(["advise", "???", "--out", str(tmp_path)]) == 1
    assert "known: cross-entropy-or-dice, " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_lines_break_outside_formulas():
    assert unbroken("a − b = 3 × 4, 5 % of it") == "a\u00a0−\u00a0b\u00a0=\u00a03\u00a0×\u00a04, 5\u00a0% of it"
    text = answer_text("l1-or-l2", l1_or_l2())
    assert max(map(len, text.splitlines())) <= 100
    assert "\u00a0" not in text


PLOTS = [
    ["gradients", "--losses", "smooth_l1:beta=0.5", "--case", "apart,centered"],
    ["landscape", "--losses", "eiou,l1", "--pred", "10x1", "--target", "1x1"],
    ["classification"],
]


@pytest.mark.parametrize("options", PLOTS, ids=lambda options: options[0])
def test_plot(options, tmp_path, capsys):
    png, svg = tmp_path / "new" / "figure.png", tmp_path / "figure.SVG"
    assert main(["plot", *options, "--out", str(png)]) == 0
    assert capsys.readouterr().out == f"{png}\n"
    with Image.open(png) as picture:
        assert picture.format == "PNG"
        picture.load()
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert main(["plot", *options, "--out", str(svg)]) == 0
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure_is_the_same_again(ending, tmp_path):
    first, second = tmp_path / f"first.{ending}", tmp_path / f"second.{ending}"
    for path in (first, second):
        assert main(["plot", "classification", "--out", str(path)]) == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gradients", "--losses", "guou", "--out", "x.png"], "no loss named 'guou'; did you mean 'giou'?"),
        (["gradients", "--case", "centred", "--out", "x.png"], "no case named 'centred'; did you mean 'centered'?"),
        (["gradients", "--out", "x.pdf"], "expected a file that ends in .png or .svg, got 'x.pdf'"),
        (["landscape", "--pred", "10", "--out", "x.png"], "a size: expected WIDTHxHEIGHT, such as 10x1, got '10'"),
        (["landscape", "--pred", "1e9x1", "--out", "x.png"], "a size: expected sides in [1e-6, 1e6], got '1e9x1'"),
        (["classification", "--out", "figure"], "expected a file that ends in .png or .svg, got 'figure'"),
    ],
)
def test_bad_plots(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_required_parameter(monkeypatch):
    """Of a loss that needs a number of its user's; the library has its own words for it."""
    from boxloss import define

    @define(source="", bounds=(0, math.inf))
    def needy_loss(pair, *, constant: float) -> torch.Tensor:
        """Needs a number.

        constant · (1 − I/U)
        """
        return constant * pair.iou_loss

    try:
        assert "needy" not in plain_losses()
        with pytest.raises(ValueError, match=r"parameter 'constant' is required.*needy:NAME=VALUE"):
            read_losses("needy")
        assert read_losses("needy:constant=12.8")["needy:constant=12.8"].loss_parameters == {"constant": 12.8}
    finally:
        del LOSSES["needy"]
