"""Losses compared on pairs of boxes: the figures by hand, the files, the page, every error."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from variants import REQUIRED

from boxloss import LOSSES, BoxLoss
from boxloss.page import agreement, environment, number, percent
from boxloss.study.pairs import compare_pairs, every_loss, measure_pairs, pairs_text, rank_agreement, read_pairs

VOC = Path("/work/shared/data/voc_pairs/pairs.csv")
HEADER = "px1,py1,px2,py2,gx1,gy1,gx2,gy2\n"
# IoU 1/7, 1/2, 0 (2 apart), 0 (8 apart); the last pair of a smaller target.
ROWS = "0,0,2,2,1,1,3,3\n0,0,2,1,0,0,1,1\n0,0,1,1,3,0,4,1\n0,0,1,1,9,0,9.25,1\n"
IOU = [1 / 7, 1 / 2, 0, 0]


@pytest.fixture
def pairs(tmp_path):
    return written(tmp_path / "pairs.csv", HEADER + ROWS)


def written(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def losses(*names, **options):
    return {name: BoxLoss(name, reduction="none", **options) for name in names}


def by_name(figures):
    return {row["name"]: row for row in figures["losses"]}


# -- figures ----------------------------------------------------------------------------------------------------------


def test_values_and_gradients_by_hand(pairs):
    figures = measure_pairs(pairs, losses("l1", "l2", "iou", "giou")).figures
    rows = by_name(figures)

    assert figures["pairs"] == 4
    assert figures["pairs_by_iou"] == {"0": 2, "0-0.25": 1, "0.25-0.5": 1, "0.5-0.75": 0, "0.75-1": 0}
    assert rows["l1"]["value"] == pytest.approx({"mean": 28.25 / 4, "median": 5, "q05": 1.45, "q95": 15.5625})
    # The coordinates that differ have the gradient -1 or 1: four, one, two, two of them.
    norms = [2, 1, math.sqrt(2), math.sqrt(2)]
    assert rows["l1"]["gradient"]["mean"] == pytest.approx(np.mean(norms))
    assert rows["l1"]["gradient"]["median"] == pytest.approx(math.sqrt(2))
    assert rows["l1"]["gradient"]["by_iou"] == {
        "0": pytest.approx(math.sqrt(2)),
        "0-0.25": 2,
        "0.25-0.5": 1,
        "0.5-0.75": None,
        "0.75-1": None,
    }
    # d² has the gradient 2d: d = (1, 1, 1, 1), (1), (3, 3), (9, 8.25).
    norms = [4, 2, 2 * math.sqrt(18), 2 * math.hypot(9, 8.25)]
    assert rows["l2"]["gradient"]["mean"] == pytest.approx(np.mean(norms))
    assert rows["iou"]["value"]["mean"] == pytest.approx(np.mean([1 - iou for iou in IOU]))
    # Hulls 9, 2, 4 and 9.25, unions 7, 2, 2 and 1.25.
    assert rows["giou"]["value"]["mean"] == pytest.approx(np.mean([6 / 7 + 2 / 9, 1 / 2, 1 + 2 / 4, 1 + 8 / 9.25]))


def test_zero_gradients(pairs):
    rows = by_name(measure_pairs(pairs, losses("iou", "giou", "focal_eiou")).figures)
    shares = {name: (row["gradient"]["zero_share"], row["gradient"]["zero_share_apart"]) for name, row in rows.items()}
    assert shares == {"iou": (0.5, 1), "giou": (0, 0), "focal_eiou": (0.5, 1)}


def test_some_gradients_vanish(tmp_path):
    """Boxes that only touch lie apart, but iou pulls them together."""
    path = written(tmp_path / "pairs.csv", HEADER + "0,0,1,1,1,0,2,1\n0,0,1,1,5,0,6,1\n")
    figures = measure_pairs(path, losses("giou", "iou")).figures
    assert by_name(figures)["iou"]["gradient"]["zero_share_apart"] == 0.5
    assert "2 of 2 pairs (100 %) do not overlap. There iou (50 % of them) gives no gradient" in figures["findings"][0]


def test_ratio_and_gain(pairs):
    options = {"once": BoxLoss("l1", reduction="none", gain=2), "thrice": BoxLoss("l1", reduction="none", gain=6)}
    rows = by_name(measure_pairs(pairs, options | {"none": BoxLoss("l1", reduction="none", gain=0)}).figures)
    assert rows["once"]["gradient"]["ratio"] == 1
    assert rows["thrice"]["gradient"]["ratio"] == pytest.approx(3)
    assert rows["thrice"]["gradient"]["gain"] == pytest.approx(2), "with which it would pull as the reference"
    assert rows["thrice"]["value"]["mean"] == pytest.approx(3 * rows["once"]["value"]["mean"])
    assert (rows["none"]["gradient"]["ratio"], rows["none"]["gradient"]["gain"]) == (0, None)

    l1, giou = by_name(measure_pairs(pairs, losses("l1", "giou")).figures).values()
    gain = giou["gradient"]["gain"]
    again = losses("l1") | losses("giou", gain=gain)
    matched = by_name(measure_pairs(pairs, again).figures)["giou"]
    assert matched["gradient"]["mean"] == pytest.approx(l1["gradient"]["mean"])
    assert matched["gradient"]["ratio"] == pytest.approx(1)


def test_agreement_with_iou(pairs):
    rows = by_name(measure_pairs(pairs, losses("iou", "log_iou", "giou", "l1", "focal_eiou")).figures)
    found = {name: row["agreement"] for name, row in rows.items()}
    assert found["iou"] == found["log_iou"] == {"all": 1, "overlapping": 1}
    # IoU ranks 3, 4, 1.5, 1.5; giou 3, 4, 2, 1 from bad to good: 4.5 / sqrt(4.5 · 5).
    assert found["giou"] == {"all": pytest.approx(4.5 / math.sqrt(22.5)), "overlapping": 1}
    assert found["l1"]["all"] == pytest.approx(4.5 / math.sqrt(22.5))  # l1 4, 1, 6, 17.25
    assert found["focal_eiou"]["all"] < 0, "0 where boxes lie apart: as good as equal ones"


def test_rank_with_size(tmp_path):
    """Boxes of three sizes, off by a tenth of their sides: per pixel, IoU pulls the small one hardest."""
    rows = "".join(f"0,0,{s},{s},0,0,{0.9 * s},{s}\n" for s in (1, 10, 100))
    path = written(tmp_path / "pairs.csv", HEADER + rows)
    iou, l2 = by_name(measure_pairs(path, losses("iou", "l2")).figures).values()
    assert iou["gradient"]["rank_with_size"] == pytest.approx(-1)
    assert l2["gradient"]["rank_with_size"] == pytest.approx(1)


def test_float64(tmp_path):
    """A difference that float32 does not see."""
    path = written(tmp_path / "pairs.csv", HEADER + "0,0,1,1.000000000001,0,0,1,1\n")
    (row,) = measure_pairs(path, losses("l1")).figures["losses"]
    assert row["value"]["mean"] == pytest.approx(1e-12, rel=1e-3)
    assert row["agreement"] == {"all": None, "overlapping": None}


def test_ranks_with_ties():
    # Ranks 1, 2.5, 2.5, 4 and 4, 2, 2, 2, centered -1.5, 0, 0, 1.5 and 1.5, -.5, -.5, -.5: -3 / sqrt(4.5 · 3).
    assert rank_agreement(np.array([1, 5, 5, 7]), np.array([9, 3, 3, 3])) == pytest.approx(-3 / math.sqrt(13.5))
    assert rank_agreement(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert rank_agreement(np.array([]), np.array([])) is None


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30))
def test_ranks_know_only_order(numbers):
    a, b = np.array(numbers, dtype=float).T
    agreed = rank_agreement(a, b)
    assert rank_agreement(np.exp(a), b**3 - 5) == agreed
    assert rank_agreement(b, a) == agreed
    if agreed is None:
        assert len(set(a)) == 1 or len(set(b)) == 1
    else:
        assert rank_agreement(-a, b) == pytest.approx(-agreed)
        assert -1 - 1e-12 <= agreed <= 1 + 1e-12
        assert rank_agreement(a, a) == 1


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("g", "t"), "\ufeff" + HEADER.replace(",", " , ")])
def test_columns_are_found_by_name(tmp_path, header):
    text = header.replace("\n", ",note\n\n") + "0,1,2,3,4,5,6,7,x\n"
    pred, target = read_pairs(written(tmp_path / "a.csv", text))
    assert pred.dtype == target.dtype == torch.float64
    assert (pred.tolist(), target.tolist()) == ([[0, 1, 2, 3]], [[4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column px1, .*; found: nothing"),
        ("a,px1,py1,px2,py2\n", "line 1: no column gx1, gy1, gx2, gy2; found: a, px1, py1, px2, py2"),
        (HEADER, "no rows under the header"),
        (HEADER + "0,0,1,1,0,0,1,one\n", "line 2, column gy2: expected a number, got 'one'"),
        (HEADER + "0,0,1,1,0,0,1,1\n\n0,,1,1,0,0,1,1\n", "line 4, column py1: expected a number, got ''"),
        (HEADER + "0,0,1,nan,0,0,1,1\n", "line 2, column py2: expected a finite number, got 'nan'"),
        (HEADER.replace("g", "t") + "0,0,1,1,0,0,inf,1\n", "line 2, column tx2: expected a finite number, got 'inf'"),
        (HEADER + "2,0,1,1,0,0,1,1\n", "line 2, columns px1, px2: the box is inverted: 2 > 1"),
        (HEADER + "0,0,1,1,0,3,1,1\n", "line 2, columns gy1, gy2: the box is inverted: 3 > 1"),
        (HEADER + "0,0,1,1,0,0,1\n", "line 2: 7 cells under a header of 8"),
        (HEADER + "0,0,1,1,0,0,1,1,5\n", "line 2: 9 cells under a header of 8"),
        (HEADER + '0,0,1,1,0,0,1,"1\n', "line 2: unexpected end of data"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not UTF-8 text"),
        (b"PK\x03\x04\0\0", "is not UTF-8 text: it holds a NUL"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    path = written(tmp_path / "bad.csv", text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{message}"):
        compare_pairs(path, losses("l1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of pairs .*nothing\.csv"):
        read_pairs(tmp_path / "nothing.csv")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (BoxLoss("giou"), "g: expected reduction 'none' and box_format 'xyxy', got 'mean', 'xyxy'"),
        (BoxLoss("giou", reduction="none", box_format="xywh"), "got 'none', 'xywh'"),
    ],
)
def test_losses_that_cannot_be_compared(pairs, tmp_path, loss, message):
    with pytest.raises(ValueError, match=message):
        compare_pairs(pairs, {"g": loss}, tmp_path / "out")
    with pytest.raises(ValueError, match="no losses to compare"):
        compare_pairs(pairs, {}, tmp_path / "out")


def test_what_is_not_finite_is_named(tmp_path):
    path = written(tmp_path / "pairs.csv", HEADER + "0,0,1,1,0,0,1,1\n0,0,1e200,1,0,0,1,1\n")
    with pytest.raises(ValueError, match=r"l2: its value is not finite at pair 2, \[0.0, 0.0, 1e\+200, 1.0\]"):
        compare_pairs(path, losses("l1", "l2"), tmp_path / "out")


def test_a_folder_of_something_else_is_kept(pairs, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    compare_pairs(pairs, losses("l1"), folder)
    compare_pairs(pairs, losses("giou"), folder)
    assert [row["name"] for row in json.loads((folder / "pairs.json").read_text())["losses"]] == ["giou"]

    other = tmp_path / "other"
    other.mkdir()
    written(other / "thesis.tex", "x")
    with pytest.raises(ValueError, match=r"not empty and holds no comparison of pairs: choose .* with --out"):
        compare_pairs(pairs, losses("l1"), other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("px1,py1,px2,py2,gx1,gy1,gx2,gy2,px1", "px1"),
        ("\ufeffpx1,py1,px2,py2,gx1,gy1,gx2,gy2, px1 ", "px1"),
        ('px1,py1,px2,py2,gx1,gy1,gx2,gy2,"gy2"', "gy2"),
        ("px1,py1,px2,py2,tx1,ty1,tx2,ty2,tx2\t", "tx2"),
        ("px1,py2,py1,px2,py2,gx1,gy1,gx2,gx2,gy2", "py2, gx2"),
    ],
)
def test_a_column_given_twice(tmp_path, header, names):
    row = ",".join("0011001177"[: header.count(",") + 1])
    path = written(tmp_path / "pairs.csv", f"{header}\n{row}\n")
    with pytest.raises(ValueError, match=rf"pairs\.csv, line 1: expected each column once, got {names} more than once"):
        read_pairs(path)


def test_other_columns_may_be_there_twice(tmp_path):
    path = written(tmp_path / "pairs.csv", "note,px1,py1,px2,py2,gx1,gy1,gx2,gy2,note,,\na,0,0,1,1,0,0,2,2,b,,\n")
    assert read_pairs(path)[1].tolist() == [[0, 0, 2, 2]]


def test_two_sets_of_targets(tmp_path):
    """Neither is taken in silence; a single column of the other's is none of them."""
    row = ",".join("001100221133")
    both = written(tmp_path / "both.csv", "px1,py1,px2,py2,tx1,ty1,tx2,ty2,gx1,gy1,gx2,gy2\n" + row + "\n")
    text = r"both\.csv, line 1: expected columns gx1, gy1, gx2, gy2 or tx1, ty1, tx2, ty2, got both; rename"
    with pytest.raises(ValueError, match=text):
        read_pairs(both)
    one = written(tmp_path / "one.csv", "px1,py1,px2,py2,tx1,gx1,gy1,gx2,gy2\n0,0,1,1,5,0,0,2,2\n")
    assert read_pairs(one)[1].tolist() == [[0, 0, 2, 2]]


# -- files and page ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.links, self.sources, self.ids, self.text = [], [], [], [], ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.ids.append(given.get("id"))
        self.links += [value for name, value in attributes if name == "href"]
        self.sources += [value for name, value in attributes if name == "src"]
        assert tag != "img" or given["alt"]

    def handle_data(self, data):
        self.text += data


def test_page_stands_alone(pairs, tmp_path):
    folder = tmp_path / "out"
    names = {r"<b>x</b> & $\no$": BoxLoss("ciou", reduction="none", gated=True, gain=2), **losses("iou", "l1")}
    figures = compare_pairs(pairs, names, folder)
    assert figures == json.loads((folder / "pairs.json").read_text())
    page = Page(folder / "pairs.html")

    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert page.links
    assert {link[1:] for link in page.links if link[0] == "#"} == {link[1:] for link in page.links} <= set(page.ids)
    assert not {"script", "link", "iframe", "b"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", (folder / "pairs.html").read_text())
    for name in names:
        assert page.text.count(name) >= 4
    assert "gated=True" in page.text
    assert "gain=2.0" in page.text
    assert "2 of 4 pairs (50\u00a0%) do not overlap. There iou gives no gradient" in page.text
    assert "viewport" in (folder / "pairs.html").read_text()


def test_summary_has_a_row_per_loss(pairs, tmp_path, monkeypatch):
    for name in ("plot_pair_values", "plot_pair_gradients"):  # twelve panels take seconds
        monkeypatch.setattr(f"boxloss.plots.{name}", lambda *given: given[-1].write_bytes(b""))
    figures = compare_pairs(pairs, every_loss(), tmp_path / "out")
    with (tmp_path / "out" / "pairs_summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [name for name in LOSSES if name not in REQUIRED]
    for row, loss in zip(rows, figures["losses"], strict=True):
        assert float(row["gradient_mean"]) == loss["gradient"]["mean"]
        assert float(row["agreement_all"]) == loss["agreement"]["all"]
        assert row["gradient_by_iou_0.75-1"] == ""


def test_the_same_bytes_again(pairs, tmp_path):
    found = []
    for _ in range(2):
        compare_pairs(pairs, losses("eiou"), tmp_path / "out")
        found.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert found[0] == found[1]
    assert sorted(found[0]) == ["gradients.png", "pairs.html", "pairs.json", "pairs_summary.csv", "values.png"]


def test_text_is_aligned(pairs):
    text = pairs_text(measure_pairs(pairs, losses("l1", "iou", "squared_iou")).figures)
    table, findings = text.split("\n\n")
    lines = table.splitlines()
    assert [line.split()[0] for line in lines] == ["loss", "l1", "iou", "squared_iou"]
    assert len({len(line) for line in lines}) == 1
    assert "There iou and squared_iou give no gradient" in findings


def test_findings_of_pairs_that_coincide(tmp_path):
    """Nothing to rank, nothing to pull."""
    path = written(tmp_path / "pairs.csv", HEADER + "0,0,1,1,0,0,1,1\n" * 2)
    figures = compare_pairs(path, losses("iou"), tmp_path / "out")
    assert figures["findings"] == [
        "All pairs overlap.",
        "IoU does not rank these pairs: fewer than two overlap, or all by the same share.",
    ]
    assert "100 %" in pairs_text(figures)


def test_a_page_misses_no_variable():
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("{{ nothing }}").render()


def test_numbers_for_people():
    assert [number(x) for x in (0.09996, 999.6, 1e7, -1e-9)] == ["0.100", "1,000", "1.00e+07", "−1.00e-09"]
    assert [percent(x) for x in (0.004, 0.996, 0.5)] == ["< 1 %", "> 99 %", "50 %"]
    assert [agreement(x) for x in (0.99949, 0.9996, 1.0)] == ["0.999", "> 0.999", "1.000"]


@pytest.mark.skipif(not VOC.exists(), reason="the pairs of a real detector are not here")
def test_a_real_detector():
    figures = measure_pairs(VOC, losses("l1", "iou", "giou", "focal_eiou")).figures
    with VOC.open() as file:
        iou = np.array([float(row["iou"]) for row in csv.DictReader(file)])
    assert figures["pairs"] == len(iou) == 356
    assert figures["pairs_by_iou"]["0"] == (iou == 0).sum() == 62
    rows = by_name(figures)
    assert rows["iou"]["value"]["mean"] == pytest.approx((1 - iou).mean(), abs=1e-6)
    assert rows["iou"]["agreement"]["all"] == 1
    assert rows["giou"]["agreement"]["overlapping"] > 0.99
    assert rows["focal_eiou"]["gradient"]["zero_share_apart"] == 1
