"""The YOLOv3 head against Darknet's rules, restated here cell by cell in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
import torch.multiprocessing
from variants import DEFAULTS

from boxloss import LOSSES, BoxLoss
from boxloss.yolo import (
    DARKNET_ANCHORS,
    Grid,
    TinyYolo,
    Truths,
    YoloLoss,
    assign,
    detect,
    ignored,
    kmeans_anchors,
    shape_iou,
)

SIZE = (96, 128)  # height, width of the network's input
CLASSES = 3
GRID = Grid((((10.0, 13.0), (16.0, 30.0)), ((30.0, 25.0), (62.0, 45.0))), CLASSES)
CELLS = ((12, 16), (6, 8))  # rows and columns of each scale


def outputs(batch=2, seed=0, spread=1.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(batch, GRID.channels, *cells, generator=g, dtype=dtype) * spread).requires_grad_()
        for cells in CELLS
    ]


def truths(boxes, labels=None, images=None, crowd=None):
    n = len(boxes)
    return Truths(
        torch.tensor(images or [0] * n, dtype=torch.long),
        torch.tensor(boxes, dtype=torch.float64).reshape(n, 4),
        torch.tensor(labels or [0] * n, dtype=torch.long),
        torch.tensor(crowd or [False] * n, dtype=torch.bool),
    )


def crowded(n=40, batch=2, seed=1):
    """Many truths of all shapes: some share a cell and anchor, some lie on the border, some are crowds."""
    g = torch.Generator().manual_seed(seed)
    center = torch.rand(n, 2, generator=g, dtype=torch.float64) * torch.tensor([SIZE[1], SIZE[0]])
    center[: n // 4] = center[0] + torch.rand(n // 4, 2, generator=g) * 3
    half = 4 * 10 ** torch.rand(n, 2, generator=g, dtype=torch.float64)
    box = torch.cat((center - half, center + half), 1)
    limit = torch.tensor([SIZE[1], SIZE[0]] * 2, dtype=torch.float64)
    box = torch.minimum(box.clamp(min=0), limit)
    image = torch.randint(batch, (n,), generator=g)
    image[: n // 4] = 0
    crowd = torch.rand(n, generator=g) < 0.1
    return Truths(image, box, torch.randint(CLASSES, (n,), generator=g), crowd)


# -- Darknet's rules, one number at a time -------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def darknet_deltas(raws, truth, threshold=0.7):
    """Per scale ``(B, A, H, W, 5 + C)``: the negated deltas, which are gradients of the summed loss."""
    height, width = SIZE
    anchors = [size for scale in GRID.anchors for size in scale]
    per_scale = len(GRID.anchors[0])
    found = [torch.zeros_like(raw) for raw in raws]
    rows = [
        (int(image), box, int(label), bool(crowd))
        for image, box, label, crowd in zip(truth.image, truth.box.tolist(), truth.label, truth.crowd, strict=True)
    ]
    for scale, raw in enumerate(raws):
        batch, _, lines, columns, _ = raw.shape
        for b in range(batch):
            for a in range(per_scale):
                for i in range(lines):
                    for j in range(columns):
                        tx, ty, tw, th, to = raw[b, a, i, j, :5].tolist()
                        aw, ah = GRID.anchors[scale][a]
                        x, y = (j + sigmoid(tx)) * width / columns, (i + sigmoid(ty)) * height / lines
                        w, h = math.exp(tw) * aw, math.exp(th) * ah
                        here = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                        best = max((overlap(here, box) for image, box, _, _ in rows if image == b), default=0.0)
                        if best <= threshold:
                            found[scale][b, a, i, j, 4] = sigmoid(to)
    taken = {}
    for image, (x1, y1, x2, y2), label, crowd in rows:
        if crowd:
            continue
        w, h, x, y = x2 - x1, y2 - y1, (x1 + x2) / 2, (y1 + y2) / 2
        shapes = [min(w, aw) * min(h, ah) / (w * h + aw * ah - min(w, aw) * min(h, ah)) for aw, ah in anchors]
        best = shapes.index(max(shapes))
        scale, a = divmod(best, per_scale)
        lines, columns = raws[scale].shape[2:4]
        i, j = min(int(y / height * lines), lines - 1), min(int(x / width * columns), columns - 1)
        taken.setdefault((scale, image, a, i, j), set()).add(label)
        raw = raws[scale][image, a, i, j].tolist()
        delta = found[scale][image, a, i, j]
        importance = 2 - w * h / (width * height)
        aw, ah = anchors[best]
        delta[0] = importance * (sigmoid(raw[0]) - (x / width * columns - j))
        delta[1] = importance * (sigmoid(raw[1]) - (y / height * lines - i))
        delta[2] = importance * (raw[2] - math.log(w / aw))
        delta[3] = importance * (raw[3] - math.log(h / ah))
        delta[4] = sigmoid(raw[4]) - 1
        for c in range(CLASSES):
            delta[5 + c] = sigmoid(raw[5 + c]) - (c in taken[scale, image, a, i, j])
    return found, taken


def merged(deltas):
    """``(B, A, H, W, 5 + C)`` → the layout of raw outputs."""
    return deltas.permute(0, 1, 4, 2, 3).flatten(1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_the_negated_darknet_delta(seed):
    raw = outputs(seed=seed)
    truth = crowded(seed=seed + 10)
    # Some predictions lie on truths, so that cells are ignored.
    with torch.no_grad():
        for output in raw:
            output[:, [2, 3, 10, 11]] *= 0.3
    loss = YoloLoss(GRID, coordinates="darknet", reduction="sum")(raw, truth, SIZE)
    gradients = torch.autograd.grad(loss.total, raw)
    expected, taken = darknet_deltas([r.detach() for r in GRID.split(raw)], truth)
    for gradient, deltas in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, merged(deltas), rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient, merged(deltas), rtol=0, atol=1e-12)
    assert loss.positives == len(taken)
    # The case has what it is to show: shared places, both scales, ignored cells.
    assert len(taken) < int((~truth.crowd).sum())
    assert any(len(labels) > 1 for labels in taken.values())
    assert {key[0] for key in taken} == {0, 1}
    boxes = GRID.decode_all(GRID.split(raw), SIZE)
    assert sum(int(i.sum()) for i in ignored(boxes, truth, 0.7)) > 0


def test_later_truths_take_the_place_and_classes_add_up():
    first, second = [40.0, 40, 70, 65], [41.0, 41, 71, 66]
    raws = GRID.split(outputs())
    for order in ([first, second], [second, first]):
        fine, coarse = assign(GRID, raws, SIZE, truths(order, labels=[0, 2]))
        assert len(fine.box) == 0
        assert coarse.box.tolist() == [order[1]]
        assert coarse.classes.tolist() == [[1, 0, 1]]


def test_many_truths_in_one_place_keep_the_last():
    n = 500
    boxes = torch.tensor([40.0, 40, 70, 65], dtype=torch.float64) + torch.arange(n, dtype=torch.float64)[:, None] * 1e-3
    truth = Truths(torch.zeros(n, dtype=torch.long), boxes, torch.arange(n) % 2, torch.zeros(n, dtype=torch.bool))
    _, coarse = assign(GRID, GRID.split(outputs()), SIZE, truth)
    assert torch.equal(coarse.box, boxes[-1:])
    assert coarse.classes.tolist() == [[1, 1, 0]]


def test_of_equal_anchors_the_first_wins():
    grid = Grid((((10.0, 20.0), (20.0, 10.0)),), CLASSES)
    raws = grid.split([torch.zeros(1, grid.channels, 4, 4)])
    (positives,) = assign(grid, raws, (64, 64), truths([[10.0, 10, 25, 25]]))
    assert positives.anchor.tolist() == [0]


def test_a_center_on_the_far_border_belongs_to_the_last_cell():
    raws = GRID.split(outputs())
    fine, _ = assign(GRID, raws, SIZE, truths([[123.0, 90, 133, 102]]))
    assert (fine.row.tolist(), fine.column.tolist()) == ([11], [15])


def test_crowds_ignore_but_never_train():
    raw = outputs()
    boxes = GRID.decode_all(GRID.split(raw), SIZE)
    target = boxes[0][0, 0, 5, 5].tolist()
    loss = YoloLoss(GRID, reduction="sum")
    for crowd, positives in ((False, 1), (True, 0)):
        truth = truths([target], crowd=[crowd])
        assert ignored(boxes, truth, 0.7)[0][0, 0, 5, 5]
        assert loss(raw, truth, SIZE).positives == positives


# -- the terms -----------------------------------------------------------------------------------------------------


def test_terms_add_up_with_their_gains():
    raw, truth = outputs(), crowded()
    plain = YoloLoss(GRID, reduction="sum")(raw, truth, SIZE)
    gains = {"xy": 2.0, "wh": 3.0, "objectness": 0.5, "classification": 0.25}
    scaled = YoloLoss(GRID, reduction="sum", gains=gains)(raw, truth, SIZE)
    for name, gain in gains.items():
        torch.testing.assert_close(getattr(scaled, name), gain * getattr(plain, name))
    parts = [scaled.xy, scaled.wh, scaled.box, scaled.objectness, scaled.classification]
    torch.testing.assert_close(scaled.total, sum(parts))
    assert plain.box == 0


def test_reductions():
    raw, truth = outputs(), crowded()
    total = YoloLoss(GRID, reduction="sum")(raw, truth, SIZE)
    torch.testing.assert_close(YoloLoss(GRID, reduction="batch")(raw, truth, SIZE).total, total.total / 2)
    positives = YoloLoss(GRID, reduction="positives")(raw, truth, SIZE).total
    torch.testing.assert_close(positives, total.total / total.positives)


@pytest.mark.parametrize(("name", "required"), DEFAULTS, ids=LOSSES)
@pytest.mark.parametrize("unit", ["pixel", "cell", "image"])
def test_any_box_loss(name, required, unit):
    raw, truth = outputs(), crowded()
    module = BoxLoss(name, **required)
    found = YoloLoss(GRID, coordinates=module, box_unit=unit, reduction="sum")(raw, truth, SIZE)
    raws = GRID.split(raw)
    expected = 0
    boxes = GRID.decode_all(raws, SIZE)
    for scale, positives in enumerate(assign(GRID, raws, SIZE, truth)):
        box = boxes[scale][positives.image, positives.anchor, positives.row, positives.column]
        sides = {"pixel": (1, 1), "cell": (SIZE[1] / CELLS[scale][1], SIZE[0] / CELLS[scale][0]), "image": SIZE[::-1]}
        by = torch.tensor(sides[unit], dtype=torch.float64).repeat(2)
        expected = expected + LOSSES[name].function(box / by, positives.box / by, **required).sum()
    torch.testing.assert_close(found.box, expected)
    assert found.xy == found.wh == 0
    for gradient in torch.autograd.grad(found.total, raw):
        assert gradient.isfinite().all()


def test_a_module_lends_its_parameters_and_gain():
    raw, truth = outputs(), crowded()
    module = BoxLoss("smooth_l1", beta=3.0, gain=2.0, reduction="mean", box_format="cxcywh")
    found = YoloLoss(GRID, coordinates=module, reduction="sum")(raw, truth, SIZE).box
    plain = YoloLoss(GRID, coordinates=BoxLoss("smooth_l1", beta=3.0), reduction="sum")(raw, truth, SIZE).box
    torch.testing.assert_close(found, 2 * plain)


def test_iou_of_the_positives_and_as_objectness():
    raw, truth = outputs(), crowded()
    found = YoloLoss(GRID, reduction="sum", objectness="iou")(raw, truth, SIZE)
    assert found.iou.shape == (found.positives,)
    assert not found.iou.requires_grad
    assert ((found.iou >= 0) & (found.iou <= 1)).all()
    raws = GRID.split(raw)
    (gradient, _) = torch.autograd.grad(found.objectness, raw)
    fine = assign(GRID, raws, SIZE, truth)[0]
    place = (fine.image, fine.anchor, fine.row, fine.column)
    per_place = GRID.split([gradient, torch.zeros_like(raw[1])])[0][place][:, 4]
    torch.testing.assert_close(per_place, raws[0][place][:, 4].sigmoid() - found.iou[: len(fine.box)])


def test_paper_coordinates_and_smoothing_and_focal():
    raw = outputs()
    truth = truths([[40.0, 40, 70, 65]], labels=[1])
    (_, coarse) = assign(GRID, GRID.split(raw), SIZE, truth)
    chosen = GRID.split(raw)[1][coarse.image, coarse.anchor, coarse.row, coarse.column][0]
    importance = 2 - 30 * 25 / (96 * 128)
    paper = YoloLoss(GRID, coordinates="paper", reduction="sum")(raw, truth, SIZE)
    cell = torch.tensor([55 / 16 - 3, 52.5 / 16 - 3], dtype=torch.float64)
    torch.testing.assert_close(paper.xy, importance * 0.5 * ((chosen[:2].sigmoid() - cell) ** 2).sum())
    smooth = YoloLoss(GRID, label_smoothing=0.2, reduction="sum")(raw, truth, SIZE).classification
    wanted = torch.tensor([0.1, 0.9, 0.1], dtype=torch.float64)
    torch.testing.assert_close(
        smooth, torch.nn.functional.binary_cross_entropy_with_logits(chosen[5:], wanted, reduction="sum")
    )
    focal = YoloLoss(GRID, classification="focal", reduction="sum")(raw, truth, SIZE).classification
    p = chosen[5:].sigmoid()
    by_hand = -0.25 * (1 - p[1]) ** 2 * p[1].log() - 0.75 * sum(p[c] ** 2 * (1 - p[c]).log() for c in (0, 2))
    torch.testing.assert_close(focal, by_hand)
    softmax = YoloLoss(GRID, classification="softmax", reduction="sum")(raw, truth, SIZE).classification
    torch.testing.assert_close(softmax, -chosen[5:].log_softmax(0)[1])
    softened = YoloLoss(GRID, classification="softmax", label_smoothing=0.3, reduction="sum")
    shares = torch.tensor([0.1, 0.8, 0.1], dtype=torch.float64)
    torch.testing.assert_close(softened(raw, truth, SIZE).classification, -(shares * chosen[5:].log_softmax(0)).sum())


@pytest.mark.parametrize("classification", ["bce", "focal", "softmax"])
def test_class_weights(classification):
    """Of softmax the weight of the right class; else each class has its own."""
    raw, truth = outputs(), truths([[40.0, 40, 70, 65], [10, 10, 30, 30]], labels=[1, 2], images=[0, 0])

    def term(weight):
        chosen = YoloLoss(GRID, classification=classification, class_weight=weight, reduction="sum")
        return chosen(raw, truth, SIZE).classification

    torch.testing.assert_close(term([1.0, 1, 1]), term(None))
    torch.testing.assert_close(term(torch.tensor([2, 2, 2])), 2 * term(None))
    parts = [term([float(k == c) for k in range(3)]) for c in range(3)]
    torch.testing.assert_close(sum(parts), term(None))
    assert (parts[0] == 0) == (classification == "softmax")
    assert not YoloLoss(GRID, class_weight=[1.0, 2, 3]).state_dict()
    with pytest.raises(ValueError, match="class_weight: expected 3 finite numbers >= 0"):
        term([1.0, -1, 1])
    with pytest.raises(ValueError, match=r"class_weight: expected \(3,\), got \(2,\)"):
        term([1.0, 1])


def test_a_prediction_for_truths_of_two_classes_shares_them():
    raw = outputs()
    truth = truths([[40.0, 40, 70, 65]] * 2, labels=[1, 2], images=[0, 0])
    (_, coarse) = assign(GRID, GRID.split(raw), SIZE, truth)
    assert coarse.classes.tolist() == [[0, 1, 1]]
    chosen = GRID.split(raw)[1][coarse.image, coarse.anchor, coarse.row, coarse.column][0]
    softmax = YoloLoss(GRID, classification="softmax", reduction="sum")(raw, truth, SIZE).classification
    torch.testing.assert_close(softmax, -chosen[5:].log_softmax(0)[1:].mean())


def test_detections_of_softmax():
    raw = outputs()
    found = detect(GRID, raw, SIZE, score_threshold=0.0, iou_threshold=1.0, limit=10_000, classification="softmax")
    scores = sum(float(one.score.sum()) for one in found)
    objectness = sum(part[..., 4].detach().sigmoid().sum().item() for part in GRID.split(raw))
    assert scores == pytest.approx(objectness)  # the classes of a prediction share it
    with pytest.raises(ValueError, match="classification: expected 'sigmoid' or 'softmax'"):
        detect(GRID, raw, SIZE, classification="bce")


@pytest.mark.parametrize("coordinates", ["darknet", "paper", "ciou", "l1"])
@pytest.mark.parametrize("reduction", ["sum", "batch", "positives"])
def test_no_boxes(coordinates, reduction):
    raw = outputs()
    for truth in (truths([]), truths([[40.0, 40, 70, 65]], images=[1]), truths([[40.0, 40, 40, 65]])):
        loss = YoloLoss(GRID, coordinates=coordinates, reduction=reduction)(raw, truth, SIZE)
        assert loss.total.isfinite()
        for gradient in torch.autograd.grad(loss.total, raw):
            assert gradient.isfinite().all()
            assert (gradient != 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves(dtype):
    raw = [o.detach().to(dtype).requires_grad_() for o in outputs(dtype=torch.float32)]
    loss = YoloLoss(GRID, coordinates="ciou")(raw, crowded(), SIZE)
    assert loss.total.dtype == torch.float32
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.total, raw))


def test_wild_outputs_stay_finite():
    raw = outputs(spread=1000.0, dtype=torch.float32)
    for coordinates in ("ciou", "giou", "eiou"):
        loss = YoloLoss(GRID, coordinates=coordinates)(raw, crowded(), SIZE)
        assert loss.total.isfinite()
        assert all(not g.isnan().any() for g in torch.autograd.grad(loss.total, raw))


# -- anchors and the grid --------------------------------------------------------------------------------------------


def test_shape_iou_is_the_iou_of_centered_boxes():
    a, b = torch.rand(5, 2) * 50 + 1, torch.rand(7, 2) * 50 + 1
    centered = [torch.cat((-size / 2, size / 2), 1) for size in (a, b)]
    from boxloss import pairwise

    torch.testing.assert_close(shape_iou(a, b), 1 - pairwise("iou", *centered))


def test_kmeans_anchors():
    g = torch.Generator().manual_seed(0)
    centers = torch.tensor([[10.0, 12.0], [40.0, 30.0], [90.0, 120.0]])
    sizes = (centers[:, None] * (1 + 0.1 * (torch.rand(3, 200, 2, generator=g) - 0.5))).flatten(0, 1)
    found = kmeans_anchors(sizes, 3, seed=1)
    torch.testing.assert_close(found, centers, rtol=0.02, atol=0)
    assert torch.equal(found, kmeans_anchors(sizes, 3, seed=1))
    nine = kmeans_anchors(sizes, 9)
    assert (nine.prod(1).diff() >= 0).all()
    assert shape_iou(sizes, nine).amax(1).mean() > shape_iou(sizes, found).amax(1).mean()
    for none, k in ((torch.empty(0, 2), 1), (sizes, 0)):
        with pytest.raises(ValueError, match=f"expected at least one size and one anchor, got {len(none)} and {k}"):
            kmeans_anchors(none, k)
    with pytest.raises(ValueError, match=r"sizes: expected finite positive widths and heights \(N, 2\)"):
        kmeans_anchors(torch.tensor([[1.0, 0]]), 1)
    assert len(DARKNET_ANCHORS) == 3


@pytest.mark.parametrize(
    ("sizes", "k", "expected"),
    [
        ([[20, 30]] * 5, 3, [[20, 30]] * 3),
        ([[50, 40], [20, 20], [50, 40]], 9, [[20, 20]] * 5 + [[50, 40]] * 4),
        ([[20, 20], [20.0001, 20], [19.9999, 20]], 2, [[20, 20]] * 2),
        ([[20, 20], [20, 20.001], [300, 9], [300.2, 9]], 3, [[20, 20.0005], [20, 20.0005], [300.1, 9]]),
        ([[30, 10], [10, 30], [30, 10]], 3, [[30, 10], [30, 10], [10, 30]]),
    ],
)
def test_anchors_of_fewer_sizes_repeat_them(sizes, k, expected):
    assert kmeans_anchors(torch.tensor(sizes, dtype=torch.float32), k).tolist() == torch.tensor(expected).tolist()


def test_sizes_that_differ_by_rounding_are_merged_only_where_too_few_are_left():
    """As golden: three sizes and one by rounding are four to k-means as long as three anchors are asked for."""
    sizes = torch.tensor([[20.0, 20.0], [20.001, 20.0], [60.0, 40.0], [200.0, 100.0], [200.0, 110.0]])
    assert kmeans_anchors(sizes, 3).tolist() == torch.tensor([[20.0005, 20], [60, 40], [200, 105]]).tolist()
    assert len(kmeans_anchors(sizes, 4).unique(dim=0)) == 4
    assert len(kmeans_anchors(sizes, 5).unique(dim=0)) == 4
    # A difference of half a percent is one of the boxes.
    assert len(kmeans_anchors(torch.tensor([[20.0, 20.0], [20.1, 20.0]]), 2).unique(dim=0)) == 2


def test_an_anchor_that_repeats_another_answers_for_nothing():
    grid = Grid((((20.0, 20.0),) * 2, ((20.0, 20.0),) * 2), 1)
    raws = [torch.zeros(1, 2, side, side, 6) for side in (8, 4)]
    box = torch.tensor([[4.0, 4, 24, 24], [30, 30, 60, 50], [0, 0, 64, 64]])
    truths = Truths(torch.zeros(3).long(), box, torch.zeros(3).long(), torch.zeros(3, dtype=torch.bool))
    first, second = assign(grid, raws, (64, 64), truths)
    assert first.anchor.tolist() == [0, 0, 0]
    assert not len(second.anchor)


def test_decode():
    grid = Grid((((10.0, 20.0),),), 1)
    raw = torch.zeros(1, 1, 2, 4, 6)
    (boxes,) = grid.decode_all([raw], (64, 128))
    assert boxes[0, 0, 1, 2].tolist() == [2.5 * 32 - 5, 1.5 * 32 - 10, 2.5 * 32 + 5, 1.5 * 32 + 10]
    raw[..., :2] = 100.0
    raw[..., 2:4] = torch.tensor([2.0, 4.0]).log()
    for stretch, reach in ((1.0, 1.0), (2.0, 1.5)):
        (boxes,) = Grid(grid.anchors, 1, stretch).decode_all([raw], (64, 128))
        x, y = (2 + reach) * 32, (1 + reach) * 32
        torch.testing.assert_close(boxes[0, 0, 1, 2], torch.tensor([x - 10, y - 40, x + 10, y + 40]))


def test_bad_calls():
    with pytest.raises(ValueError, match="reduction: expected one of 'sum', 'batch', 'positives', got 'mean'"):
        YoloLoss(GRID, reduction="mean")
    with pytest.raises(ValueError, match=r"no loss named 'cio'; did you mean 'ciou'\?"):
        YoloLoss(GRID, coordinates="cio")
    with pytest.raises(ValueError, match="gains: expected one of 'xy', 'wh'"):
        YoloLoss(GRID, gains={"cls": 1.0})
    with pytest.raises(ValueError, match="coordinates: a BoxLoss with normalize_weight"):
        YoloLoss(GRID, coordinates=BoxLoss("focal_eiou", normalize_weight=True))
    with pytest.raises(ValueError, match="coordinates: 'darknet' has no target for a stretched center"):
        YoloLoss(Grid(GRID.anchors, 1, 2.0))
    with pytest.raises(ValueError, match=r"outputs: expected \(B, 16, H, W\), got \(2, 17, 3, 3\)"):
        GRID.split([torch.zeros(2, 17, 3, 3)] * 2)
    with pytest.raises(ValueError, match="outputs: expected 2 scales, got 1"):
        GRID.split([torch.zeros(2, 16, 3, 3)])
    with pytest.raises(ValueError, match="anchors: expected as many for each scale"):
        Grid((((1.0, 1.0),), ()), 1)


# -- several processes -----------------------------------------------------------------------------------------------


def nine_and_none():
    """Image 0 has nine positives, image 1 none."""
    low = torch.rand(9, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 50
    return truths(torch.cat((low, low + 12), 1).tolist(), labels=[0, 1, 2] * 3)


def joined_gradients(reduction, coordinates):
    raw = outputs()
    loss = YoloLoss(GRID, coordinates=coordinates, reduction=reduction)(raw, nine_and_none(), SIZE)
    return torch.autograd.grad(loss.total, raw)


def _rank(rank, address, results):
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    truth = nine_and_none()
    mine = Truths(*(column[truth.image == rank] for column in truth))
    for reduction in ("sum", "batch", "positives"):
        for coordinates in ("darknet", "ciou"):
            raw = [o.detach()[rank : rank + 1].requires_grad_() for o in outputs()]
            loss = YoloLoss(GRID, coordinates=coordinates, reduction=reduction)(raw, mine, SIZE)
            results[rank, reduction, coordinates] = loss.positives, torch.autograd.grad(loss.total, raw)
            own = parameter_gradients(two_pictures()[rank : rank + 1], mine, reduction, coordinates)
            results[rank, reduction, coordinates, "parameters"] = own
    torch.distributed.destroy_process_group()


def parameter_gradients(pictures, truth, reduction, coordinates):
    """Of a network whose norms are frozen, under DistributedDataParallel if there are several processes."""
    torch.manual_seed(0)
    model = TinyYolo(GRID, width=4).double().eval()
    network = model
    if torch.distributed.is_initialized():
        network = torch.nn.parallel.DistributedDataParallel(model)
    loss = YoloLoss(GRID, coordinates=coordinates, reduction=reduction)(network(pictures), truth, SIZE)
    loss.total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def two_pictures():
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def test_two_processes_are_one_on_the_joined_batch(tmp_path):
    """DistributedDataParallel averages gradients, so half of a rank's must be the joined batch's."""
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_rank, (f"file://{tmp_path}/store", results), nprocs=2)
        for reduction in ("sum", "batch", "positives"):
            for coordinates in ("darknet", "ciou"):
                ranks = [results[rank, reduction, coordinates] for rank in range(2)]
                assert ranks[0][0] > 0 == ranks[1][0]
                for joined, first, second in zip(
                    joined_gradients(reduction, coordinates), ranks[0][1], ranks[1][1], strict=True
                ):
                    torch.testing.assert_close(torch.cat((first, second)) / 2, joined, rtol=1e-12, atol=1e-15)
                whole = parameter_gradients(two_pictures(), nine_and_none(), reduction, coordinates)
                for rank in range(2):
                    own = results[rank, reduction, coordinates, "parameters"]
                    assert own.keys() == whole.keys()
                    for name, gradient in whole.items():
                        torch.testing.assert_close(own[name], gradient, rtol=1e-9, atol=1e-12)
