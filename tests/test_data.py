"""Annotation files, subsets, images, their changes, drawn scenes; and what is said of bad ones."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import picture, write_data, write_part

from boxloss.data import (
    Augment,
    CocoImages,
    CocoSubset,
    Letterbox,
    change_images,
    change_truths,
    collate,
    draw,
    find_data,
    read_annotations,
    shapes_folder,
)
from boxloss.data import shapes as shapes_module
from boxloss.files import replacing, write_json
from boxloss.yolo import Truths

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


def coco():
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 2, "bbox": [1, 2, 10, 20]},
            {"id": 6, "image_id": 1, "category_id": 2, "bbox": [3, 4, 5.5, 6], "area": 20, "iscrowd": 1},
        ],
        "categories": [{"id": 2, "name": "cat"}],
    }


def written(tmp_path, value):
    path = tmp_path / "boxes.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


# -- annotation files ------------------------------------------------------------------------------------------------


def test_a_good_file_is_filled_in_and_written_back(tmp_path):
    found = read_annotations(written(tmp_path, coco()))
    assert [(a["area"], a["iscrowd"]) for a in found.coco["annotations"]] == [(200, 0), (20, 1)]
    assert found.categories == ["cat"]
    found.write(tmp_path / "again.json")
    assert read_annotations(tmp_path / "again.json").coco == found.coco


def test_classes_go_by_category_id(tmp_path):
    write_part(tmp_path, "train", 2, seed=0)
    found = read_annotations(tmp_path / "train.json")
    assert (found.own.category_ids, found.category_ids, found.categories) == ([3, 7], [1, 2], ["green", "red"])


BAD_FILES = {
    "is not JSON": "{",
    "is not a COCO file: expected an object with the lists images, annotations, categories": {"images": []},
    "category number 0: expected an object, got 'cat'": coco() | {"categories": ["cat"]},
    "category number 0: expected an id, a number or text, got None": coco() | {"categories": [{"name": "cat"}]},
    "image number 0: expected an id, a number or text, got True": coco()
    | {"images": [{"id": True, "file_name": "a", "width": 3, "height": 3}]},
    "image number 0: expected an id, a number or text, got nan": coco()
    | {"images": [{"id": float("nan"), "file_name": "a", "width": 3, "height": 3}]},
    "expected at least one category": coco() | {"categories": [], "annotations": []},
    "image 1: expected its width and height in pixels, got none": coco() | {"images": [{"id": 1, "file_name": "a"}]},
    "image 1: expected a positive whole height in pixels, got 20.5": coco()
    | {"images": [{"id": 1, "file_name": "a", "width": 3, "height": 20.5}]},
    "image 1: the id is there twice, for a.png and a.png": coco() | {"images": coco()["images"] * 2},
    "images 1 and 2 have the same file_name, a.png": coco()
    | {"images": [coco()["images"][0], coco()["images"][0] | {"id": 2}]},
    "two categories have the same name: 'cat', with the ids 2 and 3": coco()
    | {
        "categories": [{"id": 2, "name": "cat"}, {"id": 3, "name": "cat"}],
        "annotations": [coco()["annotations"][k] | {"category_id": 2 + k} for k in range(2)],
    },
    "two different categories have the id 2: .*'cat'.*'dog'": coco()
    | {"categories": [{"id": 2, "name": "cat"}, {"id": 2, "name": "dog"}]},
    "image 1: expected a positive whole width in pixels, got 0": coco()
    | {"images": [{"id": 1, "file_name": "a", "width": 0, "height": 3}]},
}


@pytest.mark.parametrize(("reason", "value"), BAD_FILES.items(), ids=list(BAD_FILES))
def test_a_bad_file(tmp_path, reason, value):
    path = written(tmp_path, value)
    with pytest.raises(ValueError, match=reason) as error:
        read_annotations(path, skip_bad_boxes=True)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*nothing\.json"):
        read_annotations(tmp_path / "nothing.json")


BAD_ANNOTATIONS = {
    "annotation 5: no image has the id 9": {"image_id": 9},
    r"annotation 5: no category has the id 3; there are 2 \(cat\)": {"category_id": 3},
    "annotation 5: expected iscrowd 0 or 1, got 'maybe'": {"iscrowd": "maybe"},
    "annotation 5: expected iscrowd 0 or 1, got 2": {"iscrowd": 2},
    "annotation 5: expected a finite area >= 0, got -5": {"area": -5},
    "annotation 5: expected a finite area >= 0, got nan": {"area": float("nan")},
    "annotation 5: expected a finite area >= 0, got 'x'": {"area": "x"},
    "annotation 5: expected category_id, a number or text, got None": {"category_id": None},
    "annotation 5: expected image_id, a number or text, got": {"image_id": [1]},
}


@pytest.mark.parametrize(("reason", "change"), BAD_ANNOTATIONS.items(), ids=list(BAD_ANNOTATIONS))
def test_a_bad_annotation_is_an_error_even_if_bad_boxes_are_skipped(tmp_path, reason, change):
    value = coco()
    value["annotations"][0] |= change
    with pytest.raises(ValueError, match=reason):
        read_annotations(written(tmp_path, value), skip_bad_boxes=True)


BAD_BOXES = {
    "is not finite  ": [1, 2, 10**400, 3],
    "lies outside its image": [-0.5, 2, 0.5, 3],
    "has less than a thousandth of a pixel inside its image a.png": [-0.5, 2, 0.5005, 3],
    "has less than a thousandth of a pixel inside its image a.png ": [2, 2, 1e-7, 3],
    "is not finite": [1, 2, float("nan"), 3],
    "is not finite ": [1, 2, float("inf"), 3],
    r"bbox \[1, 2, 0, 3\] has no area: expected a positive width and height": [1, 2, 0, 3],
    "has no area": [1, 2, 5, -3],
    "lies outside its image a.png of 40 × 30 pixels": [40, 2, 8, 3],
    "lies outside its image a.png of": [-9, 2, 9, 3],
    r"expected bbox \[x, y, width, height\], got None": None,
    r"expected bbox \[x, y, width, height\], got ": [1, 2, 3, "4,5"],
    r"expected bbox \[x, y, width, height\], got  ": [1, 2, 3, True],
    r"expected bbox \[x, y, width, height\], got   ": [1, 2, 3],
}


@pytest.mark.parametrize(("reason", "box"), BAD_BOXES.items(), ids=list(BAD_BOXES))
def test_a_bad_box(tmp_path, reason, box):
    value = coco()
    value["annotations"][0]["bbox"] = box
    path = written(tmp_path, value)
    with pytest.raises(ValueError, match=f"annotation 5: .*{reason.strip()}.*--skip-bad-boxes") as error:
        read_annotations(path)
    assert str(path) in str(error.value)
    with pytest.warns(UserWarning, match="left out 1 bad box: .*annotation 5: .*" + reason.strip()):
        found = read_annotations(path, skip_bad_boxes=True)
    assert [a["bbox"] for a in found.coco["annotations"]] == [[3, 4, 5.5, 6]]


def test_bad_boxes_are_counted(tmp_path):
    value = coco()
    for box in value["annotations"]:
        box["bbox"] = [1, 1, -1, 1]
    with pytest.raises(ValueError, match=r"annotation 5: .* \(and 1 more\)"):
        read_annotations(written(tmp_path, value))


def test_a_box_over_the_edge_is_cut_for_training_and_stays_for_validation(tmp_path):
    value = coco()
    value["annotations"][0]["bbox"] = [-1.5, 2, 60, 40]  # the image is 40 × 30
    path = written(tmp_path, value)
    with pytest.warns(
        UserWarning, match="1 box over the edge of the image, the first is annotation 5; cut to the image"
    ):
        assert read_annotations(path).coco["annotations"][0]["bbox"] == [0, 2, 40, 28]
    assert read_annotations(path, part="val").coco["annotations"][0]["bbox"] == [-1.5, 2, 60, 40]


def test_a_box_over_the_edge_by_rounding_is_cut_without_a_word(tmp_path):
    value = coco()
    value["annotations"][0]["bbox"] = [30.5, 2, 9.51, 20]
    assert read_annotations(written(tmp_path, value)).coco["annotations"][0]["bbox"] == [30.5, 2, 9.5, 20]


def test_a_validation_box_outside_its_image_is_judged_and_said(tmp_path):
    value = coco()
    value["annotations"][0]["bbox"] = [50, 2, 10, 10]
    with pytest.warns(UserWarning, match="1 box without a pixel inside the image, the first is annotation 5; judged"):
        found = read_annotations(written(tmp_path, value), part="val")
    assert found.coco["annotations"][0]["bbox"] == [50, 2, 10, 10]


# -- subsets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    write_part(tmp_path, "train", 40, seed=3)
    return read_annotations(tmp_path / "train.json")


def ids(annotations):
    """The file's own."""
    assert [image["id"] for image in annotations.coco["images"]] == list(range(1, len(annotations.own.image_ids) + 1))
    return annotations.own.image_ids


def test_a_subset_depends_on_its_numbers_alone_and_grows(many):
    small, large = CocoSubset(images=5).of(many), CocoSubset(images=20).of(many)
    assert ids(small) == ids(CocoSubset(images=5).of(many))
    assert set(ids(small)) < set(ids(large)) < set(ids(many))
    assert ids(CocoSubset(images=20, seed=1).of(many)) != ids(large)
    names = {image["file_name"]: image["id"] for image in large.coco["images"]}
    assert list(names) == sorted(names)
    whole = {image["id"]: image["file_name"] for image in many.coco["images"]}
    expected = [(names[name], a["bbox"]) for a in many.coco["annotations"] if (name := whole[a["image_id"]]) in names]
    assert [(a["image_id"], a["bbox"]) for a in large.coco["annotations"]] == expected
    assert len(CocoSubset().of(many).coco["images"]) == 40


def test_a_subset_of_categories(many, tmp_path):
    found = CocoSubset(categories=["red"]).of(many)
    red = {many.own.image_ids[a["image_id"] - 1] for a in many.coco["annotations"] if a["category_id"] == 2}
    assert set(ids(found)) == red
    assert 0 < len(red) < 40
    assert {a["category_id"] for a in found.coco["annotations"]} == {1}
    assert (found.categories, found.own.category_ids) == (["red"], [7])
    found.write(tmp_path / "red.json")
    assert read_annotations(tmp_path / "red.json").coco == found.coco


def test_an_image_with_nothing_but_a_crowd_does_not_count(tmp_path):
    value = coco()
    value["annotations"][0]["iscrowd"] = 1
    annotations = read_annotations(written(tmp_path, value))
    with pytest.raises(ValueError, match="has no images with a box of cat"):
        CocoSubset(categories=["cat"]).of(annotations)


def test_bad_subsets(many):
    with pytest.raises(ValueError, match=r"no category 'rad'; did you mean 'red'\? It has: green, red"):
        CocoSubset(categories=["rad"]).of(many)
    with pytest.raises(ValueError, match="has 40 images; asked for: 41"):
        CocoSubset(images=41).of(many)
    with pytest.raises(ValueError, match="asked for: 0"):
        CocoSubset(images=0).of(many)


# -- images ----------------------------------------------------------------------------------------------------------


def test_letterbox():
    wide = Letterbox.fit(200, 100, (64, 64))  # 200 × 100 → 64 × 32, 16 rows of gray above
    assert wide == Letterbox(0, 16, 64, 32, (0.32, 0.32))
    box = torch.tensor([[50.0, 25, 100, 100]])
    assert wide.place(box).tolist() == [[16.0, 24.0, 32.0, 48.0]]
    torch.testing.assert_close(wide.back(wide.place(box)), box)
    # 33 rows of 47 columns → 22.47 is rounded to 22: by x and y it is not quite the same scale.
    odd = Letterbox.fit(47, 33, (32, 32))
    assert (odd.width, odd.height, odd.top) == (32, 22, 5)
    assert odd.scale == (32 / 47, 22 / 33)
    torch.testing.assert_close(odd.place(torch.tensor([0.0, 0, 47, 33])), torch.tensor([0.0, 5, 32, 27]))


def bright(image):
    """The box around the bright pixels of ``(3, H, W)`` in [0, 1], and what share of it is bright."""
    rows, columns = torch.where(image.amax(0) > 0.6)
    x, y, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return torch.stack((x, y, right, bottom)).float(), len(rows) / float((right - x) * (bottom - y))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64), (128, 192)])
def test_samples_hold_the_picture_and_its_box(tmp_path, size):
    (tmp_path / "images").mkdir()
    picture(96, 64, [(7, (30, 10, 40, 20))]).save(tmp_path / "images/a.png")
    value = coco() | {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [30, 10, 40, 20]}],
    }
    images = CocoImages(read_annotations(written(tmp_path, value)), tmp_path / "images", size)
    sample = images[0]
    assert sample.image.shape == (3, *size)
    assert sample.image.dtype == torch.uint8
    box, share = bright(sample.image.float() / 255)
    torch.testing.assert_close(sample.box[0], box, atol=1, rtol=0)
    assert share > 0.95
    torch.testing.assert_close(images.sizes(), sample.box[:, 2:] - sample.box[:, :2])


def test_samples_are_the_same_whether_kept_or_read(tmp_path):
    write_data(tmp_path)
    annotations = read_annotations(tmp_path / "train.json")
    kept = CocoImages(annotations, tmp_path / "images", (64, 64))
    read = CocoImages(annotations, tmp_path / "images", (64, 64), memory=0)
    for a, b in zip((kept[k] for k in range(len(kept))), (read[k] for k in range(len(read))), strict=True):
        assert all(torch.equal(torch.as_tensor(x), torch.as_tensor(y)) for x, y in zip(a, b, strict=True))
    batch = collate([kept[k] for k in (3, 0, 5)])
    assert batch.place.tolist() == [3, 0, 5]
    for k, place in enumerate((3, 0, 5)):
        assert torch.equal(batch.truths.box[batch.truths.image == k], kept[place].box)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_other_kinds_of_pictures(tmp_path, mode):
    write_part(tmp_path, "train", 1, seed=4, suffix="tiff")
    path = tmp_path / "images/train1.tiff"
    Image.open(path).convert(mode).save(path)
    assert CocoImages(read_annotations(tmp_path / "train.json"), tmp_path / "images", (64, 64))[0].image.shape[0] == 3


@pytest.mark.parametrize("memory", [1e9, 0.0])
def test_bad_pictures_are_found_at_once(tmp_path, memory):
    write_part(tmp_path, "train", 6, seed=5, suffix="jpg", size=(320, 200))
    annotations = read_annotations(tmp_path / "train.json")

    def read():
        return CocoImages(annotations, tmp_path / "images", (64, 64), memory=memory)

    read()
    path = tmp_path / "images/train4.jpg"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) * 2 // 3])
    with pytest.raises(ValueError, match=r"train4\.jpg cannot be read as an image: .*truncated"):
        read()
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"train4\.jpg cannot be read as an image"):
        read()
    Image.fromarray(np.full((200, 320), 60000, dtype=np.uint16)).save(path, format="png")
    with pytest.raises(ValueError, match=r"train4\.jpg has pixels of mode I;16; expected 8 bits a channel"):
        read()
    picture(40, 30, []).save(path)
    with pytest.raises(ValueError, match=r"train4\.jpg has 40 × 30 pixels, but .*train\.json says 320 × 200"):
        read()
    path.unlink()
    (tmp_path / "images/train5.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"train4\.jpg is missing and 1 other images, of 6 that .*train\.json"):
        read()


# -- changes ---------------------------------------------------------------------------------------------------------


def one_box(size, box):
    image = torch.full((1, 3, *size), 20, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[..., y1:y2, x1:x2] = 250
    truths = Truths(
        torch.tensor([0]), torch.tensor([box], dtype=torch.float32), torch.tensor([1]), torch.tensor([False])
    )
    return image, truths


@pytest.mark.parametrize("seed", range(24))
def test_boxes_move_with_their_pictures(seed):
    size = (96, 128)
    image, truths = one_box(size, (70, 20, 110, 60))
    augment = Augment(flip=0.5, flip_vertical=0.5, zoom=0.4, shift=0.15)
    draws = draw(augment, 1, torch.Generator().manual_seed(seed))
    changed = change_images(image, draws)
    moved = change_truths(truths, draws, size)
    found, share = bright(changed[0])
    torch.testing.assert_close(moved.box[0], found, atol=1.5, rtol=0)
    assert share > 0.9
    assert moved.label.tolist() == [1]


def test_what_is_drawn():
    augment = Augment(flip=0.25, flip_vertical=0.0, zoom=0.5, shift=0.2, color=0.3)
    draws = draw(augment, 4000, torch.Generator().manual_seed(0))
    assert 0.22 < draws.mirrored[:, 0].float().mean() < 0.28
    assert not draws.mirrored[:, 1].any()
    for values, low, high in ((draws.factor, 1 / 1.5, 1.5), (draws.shift, -0.2, 0.2), (draws.color, 0.7, 1.3)):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
    again = draw(augment, 4000, torch.Generator().manual_seed(0))
    halves = [again.share(rank, 2) for rank in range(2)]
    for whole, first, second in zip(draws, *halves, strict=True):
        assert torch.equal(whole[0::2], first)
        assert torch.equal(whole[1::2], second)


def test_no_change_at_all():
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    draws = draw(Augment(flip=0.0), 3, torch.Generator())
    torch.testing.assert_close(change_images(images, draws), images / 255)
    _, truths = one_box((32, 32), (3, 4, 10, 20))
    assert torch.equal(change_truths(truths, draws, (32, 32)).box, truths.box)


def test_colors_change_within_bounds_and_the_same_over_a_picture():
    images = torch.full((64, 3, 8, 8), 100, dtype=torch.uint8)
    images[:, 0] = 140
    changed = change_images(images, draw(Augment(flip=0, color=0.5), 64, torch.Generator().manual_seed(0)))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed == changed[..., :1, :1]).all()
    assert changed[:, 1, 0, 0].std() > 0.05


def test_a_box_of_which_little_is_left_is_dropped():
    _, truths = one_box((100, 100), (80, 40, 100, 60))
    draws = draw(Augment(flip=0), 1, torch.Generator())
    for shift, left in ((0.1, [[90.0, 40, 100, 60]]), (0.14, [[94.0, 40, 100, 60]]), (0.16, [])):
        moved = change_truths(truths, draws._replace(shift=torch.tensor([[shift, 0.0]])), (100, 100))
        torch.testing.assert_close(moved.box, torch.tensor(left).view(-1, 4))
        assert len(moved.image) == len(moved.label) == len(moved.crowd) == len(left)


def test_bad_changes():
    with pytest.raises(ValueError, match=r"augment\.flip: expected a number in \[0, 1\], got 2"):
        Augment(flip=2)
    with pytest.raises(ValueError, match=r"augment\.zoom: expected a number >= 0, got -1"):
        Augment(zoom=-1)


# -- drawn scenes and where data is ----------------------------------------------------------------------------------


def test_shapes_are_the_same_each_time_and_valid(tmp_path):
    first = shapes_folder(tmp_path / "a", train=12, val=4)
    second = shapes_folder(tmp_path / "b", train=12, val=4)
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 12 + 4 + 2
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    other = shapes_folder(tmp_path / "a", train=12, val=4, seed=1)
    assert (other / "train.json").read_bytes() != (first / "train.json").read_bytes()
    annotations = read_annotations(first / "train.json")
    images = CocoImages(annotations, first / "images", (160, 160))
    assert len(images) == 12
    assert not [p for p in (tmp_path / "a").iterdir() if "part" in p.name]
    before = (first / "train.json").stat().st_mtime_ns
    assert shapes_folder(tmp_path / "a", train=12, val=4) == first  # not drawn again
    assert (first / "train.json").stat().st_mtime_ns == before


def test_shapes_are_of_many_sizes_and_overlap():
    boxes = []
    overlaps = 0
    for number in range(60):
        _, found = shapes_module.draw_scene(160, np.random.default_rng((0, number)))
        assert 1 <= len(found) <= 5
        corners = np.array([(x, y, x + w, y + h) for _, (x, y, w, h) in found])
        low = np.maximum(corners[:, None, :2], corners[None, :, :2])
        high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
        overlaps += ((high > low).all(-1).sum() - len(found)) > 0
        boxes += [(label, w, h) for label, (_, _, w, h) in found]
    labels, width, height = map(np.array, zip(*boxes, strict=True))
    assert set(labels) == set(range(len(shapes_module.CLASSES)))
    assert np.quantile(width, 0.95) > 6 * np.quantile(width, 0.05)
    assert (width > 2 * height).mean() > 0.1
    assert (height > 2 * width).mean() > 0.1
    assert overlaps > 10


def test_boxes_of_shapes_are_tight(monkeypatch):
    monkeypatch.setattr(shapes_module, "_ground", lambda side, color, rng: Image.new("RGB", (side, side)))
    monkeypatch.setattr(
        shapes_module, "_paint", lambda side, color, rng: Image.new("RGB", (side, side), (255, 255, 255))
    )
    alone = 0
    for number in range(80):
        image, found = shapes_module.draw_scene(96, np.random.default_rng((5, number)))
        if len(found) == 1:
            alone += 1
            box, _ = bright(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255)
            x, y, w, h = found[0][1]
            assert box.tolist() == [x, y, x + w, y + h]
    assert alone > 4


def test_find_data(tmp_path):
    write_data(tmp_path / "flat")
    train, val = find_data(str(tmp_path / "flat"))
    assert (train.annotations.name, val.annotations.name, val.images.name) == ("train.json", "val.json", "images")
    layout = tmp_path / "coco"
    for part in ("train", "val"):
        write_json(layout / f"annotations/instances_{part}2017.json", {})
    train, val = find_data(str(layout))
    assert (train.images, val.images) == (layout / "train2017", layout / "val2017")
    with pytest.raises(FileNotFoundError, match=r"data: no folder .*nothing; expected 'shapes' or a folder"):
        find_data(str(tmp_path / "nothing"))
    expected = "holds no data set: expected train.json or annotations/instances_train2017.json, and the same of val"
    with pytest.raises(FileNotFoundError, match=expected):
        find_data(str(tmp_path))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
@pytest.mark.parametrize(("name", "images", "boxes"), [("bccd", 87, 1137), ("coco_subset", 200, 1706)])
def test_real_data(name, images, boxes):
    annotations = read_annotations(SHARED / name / "val.json")
    found = CocoImages(annotations, SHARED / name / "images", (64, 64))
    assert len(found) == images
    assert sum(len(found[k].box) for k in range(images)) == boxes


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    write_json(path, [1])
    assert path.read_text() == "[1]\n"
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask

    def break_off():
        with replacing(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, [2])
    assert path.read_text() == "[1]\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


# -- large pictures --------------------------------------------------------------------------------------------------


def test_large_pictures_are_decoded_one_at_a_time_and_shown_smaller(tmp_path, monkeypatch):
    from boxloss.data import pictures as module

    write_data(tmp_path, train=6, val=2)
    annotations = read_annotations(tmp_path / "train.json")
    small = CocoImages(annotations, tmp_path / "images", (64, 64))
    threads = set()
    real = module.Pictures.open

    def read(self, index, **how):
        threads.add(threading.current_thread())
        return real(self, index, **how)

    monkeypatch.setattr(module.Pictures, "open", read)
    CocoImages(annotations, tmp_path / "images", (64, 64))
    assert threading.main_thread() not in threads
    threads.clear()
    monkeypatch.setattr(module, "LARGE", 96 * 64 - 1)
    large = CocoImages(annotations, tmp_path / "images", (64, 64))
    assert threads == {threading.main_thread()}
    assert all(torch.equal(a.image, b.image) for a, b in zip(small, large, strict=True))
    monkeypatch.setattr(module, "SHOWN", 96 * 64 - 1)
    assert small.pictures.preview(0).size == (48, 32)
    monkeypatch.setattr(module, "SHOWN", 96 * 64)
    assert small.pictures.preview(0).size == (96, 64)
