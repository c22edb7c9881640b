"""Data sets as people have them: formats, layouts, ids, types, orientations; and what is said of what can't be read."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from formats import NAMES, all_three, coco_of, draw, records, voc_xml, write_coco, write_voc, write_yolo, yolo_lines
from PIL import Image
from scenes import picture, write_data

from boxloss.cli import main
from boxloss.data import (
    CocoImages,
    convert,
    find_data,
    ids_beside,
    read_annotations,
    read_sources,
    shared_files,
)
from boxloss.files import read_json
from boxloss.training import coco_figures, evaluate_detections, evaluate_run, train
from boxloss.training.config import Detect, Network, TrainConfig
from boxloss.training.folder import read_copy
from boxloss.training.run import scenes
from boxloss.training.setup import read_data
from boxloss.yolo import DARKNET_ANCHORS, Grid

EVALUATORS = ("pycocotools", "faster-coco-eval")


def small(data, **changes):
    """A run of five steps."""
    network = Network(scales=2, width=4, anchors=1)
    fixed = {"network": network, "size": 64, "epochs": 1, "batch": 2, "evaluate_every": 0, "threads": 1}
    return TrainConfig(**{"data": str(data), "loss": "giou"} | fixed | changes)


def boxes_of(annotations):
    """(file name, category, bbox, crowd) of each box: what a data set says, whatever the numbers."""
    names = {image["id"]: image["file_name"] for image in annotations.coco["images"]}
    return [
        (names[box["image_id"]], annotations.categories[box["category_id"] - 1], tuple(box["bbox"]), box["iscrowd"])
        for box in annotations.coco["annotations"]
    ]


def expected_boxes(found, crowd=()):
    return [
        (name, NAMES[k], tuple(map(float, box)), int(n in crowd))
        for name, _, boxes in sorted(found)
        for n, (k, box) in enumerate(boxes)
    ]


# -- three formats of one data set -----------------------------------------------------------------------------------


def test_the_same_data_set_gives_the_same_copies_and_weights_in_every_format(tmp_path):
    parts, folders = all_three(tmp_path / "data")
    copies, weights = {}, {}
    for name, folder in folders.items():
        run = tmp_path / name
        train(small(folder, epochs=2), run, pictures=False)  # nine pictures, two a step: four steps an epoch
        copies[name] = (run / "train.json").read_bytes(), (run / "val.json").read_bytes()
        weights[name] = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    assert len(set(copies.values())) == 1
    for name in ("yolo", "voc"):
        assert all(torch.equal(weights["coco"][key], weights[name][key]) for key in weights["coco"])
    assert boxes_of(read_annotations(folders["coco"])) == expected_boxes(parts["train"])


def test_a_coco_file_in_any_order_with_any_ids_gives_the_same_copy(tmp_path):
    parts, folders = all_three(tmp_path / "data")
    other = tmp_path / "other"
    shuffled = {part: found[::-1] for part, found in parts.items()}
    write_coco(other, shuffled, ids=lambda k: f"id {k}", categories=(0, 4, 9), annotations=lambda k: -k)
    for part in ("train", "val"):
        assert read_annotations(other, part=part).coco == read_annotations(folders["coco"], part=part).coco
    assert read_annotations(other).own.image_ids == [f"id {8 - k}" for k in range(9)]
    assert read_annotations(other).own.category_ids == [0, 4, 9]


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_convert_loses_nothing(tmp_path, capsys, name):
    parts, folders = all_three(tmp_path / "data")
    assert main(["convert", str(folders[name]), str(tmp_path / "out")]) == 0
    assert (
        f"{tmp_path / 'out/train.json'}: 9 images, {len(expected_boxes(parts['train']))} boxes"
        in capsys.readouterr().out
    )
    for part, found in parts.items():
        again = read_annotations(tmp_path / f"out/{part}.json", part="val")
        assert boxes_of(again) == expected_boxes(found)
        assert again.categories == NAMES
        assert [image["file_name"] for image in again.coco["images"]] == sorted(name for name, _, _ in found)
        assert again.own == read_annotations(folders[name], part=part).own


def test_convert_keeps_what_means_nothing_to_us_but_what_json_lacks(tmp_path):
    value = coco_of(records(3, 2)) | {"info": {"year": 2026}, "licenses": [{"id": 1}]}
    value["annotations"][0] |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "score": float("nan")}
    value["images"][0]["license"] = 1
    (tmp_path / "a.json").write_text(json.dumps(value))
    (found,) = convert(tmp_path / "a.json", tmp_path / "b.json").values()
    written = read_json(tmp_path / "b.json", "")
    assert written == found.coco
    assert (written["info"], written["licenses"]) == (value["info"], value["licenses"])
    assert written["annotations"][0]["segmentation"] == [[1, 2, 3, 4, 5, 6]]
    assert "score" not in written["annotations"][0]
    assert written["images"][0]["license"] == 1
    assert read_annotations(tmp_path / "a.json").coco["annotations"][0].keys() == {
        *("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    }


def test_convert_writes_nothing_over(tmp_path, capsys):
    _, folders = all_three(tmp_path / "data")
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    coco = folders["coco"]
    assert main(["convert", str(coco), str(coco)]) == 1
    assert "train.json is there already; choose another place" in capsys.readouterr().err
    assert main(["convert", str(coco), str(tmp_path / "one.json")]) == 1
    assert "has the parts train, val; expected a folder, or --part train or val" in capsys.readouterr().err.replace(
        "test", ""
    )
    assert main(["convert", str(coco), str(tmp_path / "one.json"), "--part", "val"]) == 0
    assert main(["convert", str(coco), str(tmp_path / "x"), "--part", "test"]) == 1
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before


# -- ids --------------------------------------------------------------------------------------------------------------

ANNOTATION_IDS = {
    "from 0": lambda k: k,
    "negative": lambda k: -k - 1,
    "all the same": lambda k: 7,
    "over 2^53": lambda k: 2**53 + k,
    "over 2^64": lambda k: 2**64 + 2**20 * k,
    "text": lambda k: f"a{k}",
    "missing": lambda k: None,
    "fractions": lambda k: k + 0.5,
    "lists": lambda k: [k],
}


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("kind", ANNOTATION_IDS)
def test_annotation_ids_mean_nothing(tmp_path, evaluator, kind):
    value = coco_of(records(4, 4), annotations=ANNOTATION_IDS[kind])
    if kind == "missing":
        for box in value["annotations"]:
            del box["id"]
    assert perfect(tmp_path, value, found_in(value), evaluator=evaluator)


def found_in(value, **change):
    keys = ("image_id", "category_id", "bbox")
    return [{key: box[key] for key in keys} | {"score": 0.9} | change for box in value["annotations"]]


def perfect(tmp_path, value, results, **how):
    (tmp_path / "gt.json").write_text(json.dumps(value))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    figures = evaluate_detections(tmp_path / "dt.json", tmp_path / "gt.json", **how)
    return figures["AP"] == pytest.approx(1, abs=1e-15) == figures["AR100"]


OTHER_SPELLINGS = {
    "text for numbers": (lambda k: k + 1, lambda k: str(k + 1)),
    "numbers for text": (lambda k: str(k + 1), lambda k: k + 1),
    "floats for numbers": (lambda k: k + 1, lambda k: float(k + 1)),
    "numbers for floats": (lambda k: k + 1.0, lambda k: k + 1),
    "numbers for text with zeros": (lambda k: f"{k + 1:06d}", lambda k: k + 1),
    "text": (lambda k: f"img-{k}", lambda k: f"img-{k}"),
    "text over 2^64": (lambda k: 2**65 + k, lambda k: str(2**65 + k)),
    "negative and 0": (lambda k: k - 2, lambda k: str(k - 2)),
}


@pytest.mark.parametrize("evaluator", EVALUATORS)
@pytest.mark.parametrize("which", ["image_id", "category_id"])
@pytest.mark.parametrize("where", ["annotations", "results"])
@pytest.mark.parametrize("kind", OTHER_SPELLINGS)
def test_ids_that_two_lists_spell_differently(tmp_path, evaluator, which, where, kind):
    own, other = OTHER_SPELLINGS[kind]
    value = coco_of(records(5, 4))
    for image in value["images"]:
        image["id"] = own(image["id"]) if which == "image_id" else image["id"]
    for category in value["categories"]:
        category["id"] = own(category["id"]) if which == "category_id" else category["id"]
    for box in value["annotations"]:
        box[which] = own(box[which])
    results = found_in(value)
    for box, theirs in zip(value["annotations"], results, strict=True):
        changed = box if where == "annotations" else theirs
        changed[which] = other(coco_id(changed[which], own))
    assert perfect(tmp_path, value, results, evaluator=evaluator)


def coco_id(key, own):
    return next(k for k in range(50) if own(k) == key)


def test_ids_that_a_list_tells_apart_are_different(tmp_path):
    value = coco_of(records(5, 2))
    value["images"][0]["id"], value["images"][1]["id"] = 1, "1"
    for box in value["annotations"]:
        box["image_id"] = value["images"][box["image_id"] - 1]["id"]
    assert perfect(tmp_path, value, found_in(value))
    with pytest.raises(ValueError, match=r"detection 0: .*gt\.json has no image with the id '01'"):
        perfect(tmp_path, value, found_in(value, image_id="01"))


def test_results_in_text_are_numbers(tmp_path):
    value = coco_of(records(5, 3))
    results = [box | {"bbox": list(map(str, box["bbox"])), "score": "0.9"} for box in found_in(value)]
    assert perfect(tmp_path, value, results)


def test_what_is_written_for_others_has_the_ids_of_their_file(tmp_path):
    parts = {"train": records(1, 9, "a"), "val": records(2, 5, "b")}
    data = write_coco(tmp_path / "data", parts, ids=lambda k: f"i{k}", categories=(0, 90, 7))
    figures = train(small(data, detect=Detect(score_threshold=0.0)), tmp_path / "run", pictures=False)
    found = read_json(tmp_path / "run/detections.json", "")
    assert found
    assert {box["image_id"] for box in found} <= {f"i{k}" for k in range(5)}
    assert {box["category_id"] for box in found} <= {0, 90, 7}
    for judge in (data / "val.json", tmp_path / "run/val.json"):
        assert evaluate_detections(tmp_path / "run/detections.json", judge) == figures
    assert read_copy(tmp_path / "run").own == read_annotations(data, part="val").own
    assert ids_beside(tmp_path / "run/val.json").is_file()


# -- categories -------------------------------------------------------------------------------------------------------


def with_root(value, name="things", key=0, **more):
    value = json.loads(json.dumps(value))
    value["categories"].insert(0, {"id": key, "name": name, "supercategory": "none"} | more)
    for category in value["categories"][1:]:
        category["supercategory"] = name
    return value


@pytest.mark.parametrize("name", ["things", "nut"])
def test_a_root_category_is_left_out_and_said(tmp_path, name):
    value = with_root(coco_of(records(5, 4)), name)
    with pytest.warns(UserWarning, match=rf"a root category that no box has is left out: '{name}' \(id 0\)"):
        assert perfect(tmp_path, value, [*found_in(value), *found_in(value, category_id=0, score=0.99)])
    with pytest.warns(UserWarning, match="left out"):
        figures = evaluate_detections(tmp_path / "dt.json", tmp_path / "gt.json")
    assert list(figures["by_category"]) == NAMES


def test_a_category_of_the_same_name_without_boxes_is_a_root(tmp_path):
    value = coco_of(records(5, 4))
    value["categories"].append({"id": 8, "name": "nut"})
    with pytest.warns(UserWarning, match=r"left out: 'nut' \(id 8\)"):
        assert perfect(tmp_path, value, found_in(value))


def test_a_root_that_has_a_box_in_the_other_part_stays(tmp_path):
    parts = {"train": records(1, 9, "a"), "val": records(2, 5, "b")}
    folder = write_coco(tmp_path, parts)
    for part in parts:
        path = folder / f"{part}.json"
        value = with_root(read_json(path, ""))
        if part == "val":
            value["annotations"][0]["category_id"] = 0
        path.write_text(json.dumps(value))
    train_part, val_part = read_sources(find_data(str(folder)))
    assert train_part.categories == val_part.categories == ["things", *NAMES]


def test_an_unused_category_that_is_no_root_stays_and_so_does_0(tmp_path):
    value = coco_of(records(5, 4), categories=(0, 5, 6))
    value["categories"].append({"id": 3, "name": "never", "supercategory": "never"})
    (tmp_path / "gt.json").write_text(json.dumps(value))
    assert read_annotations(tmp_path / "gt.json").categories == ["bolt", "never", "nut", "washer"]


def test_a_category_repeated_with_equal_content_counts_once(tmp_path):
    value = coco_of(records(5, 4))
    value["categories"] *= 3
    assert perfect(tmp_path, value, found_in(value))


def test_parts_may_list_their_categories_in_another_order_and_not_all(tmp_path):
    parts = {"train": records(1, 9, "a"), "val": [("b0.png", (64, 64), [(2, (1, 2, 20, 30))])]}
    folder = write_coco(tmp_path, parts)
    value = read_json(folder / "val.json", "")
    value["categories"] = [{"id": 5, "name": "washer"}, {"id": 9, "name": "bolt"}]
    value["annotations"][0]["category_id"] = 5
    (folder / "val.json").write_text(json.dumps(value))
    train_part, val_part = read_sources(find_data(str(folder)))
    assert train_part.categories == val_part.categories == NAMES
    assert boxes_of(val_part) == [("b0.png", "washer", (1, 2, 20, 30), 0)]
    assert val_part.own.category_ids == [9, "nut", 5]


def test_two_thousand_categories(tmp_path):
    found = records(6, 12)
    value = coco_of(found)
    value["categories"] = [{"id": k, "name": f"kind {k:04d}", "supercategory": "kind"} for k in range(2000)]
    for k, box in enumerate(value["annotations"]):
        box["category_id"] = (k * 97) % 2000
    assert perfect(tmp_path, value, found_in(value))
    annotations = read_annotations(tmp_path / "gt.json")
    assert len(annotations.categories) == 2000
    draw(tmp_path / "images", found)
    assert CocoImages(annotations, tmp_path / "images", (64, 64))[0].label.max() < 2000


# -- values -----------------------------------------------------------------------------------------------------------

PLAIN = {
    "numbers in quotation marks": {"bbox": ["1", "2.0", " 10 ", "2e1"], "area": "200", "iscrowd": "0"},
    "iscrowd true": {"bbox": [1, 2, 10, 20], "iscrowd": True},
    "iscrowd 1.0": {"bbox": [1, 2, 10, 20], "iscrowd": 1.0},
    "iscrowd and area null": {"bbox": [1, 2, 10, 20], "iscrowd": None, "area": None},
    "NaN where nobody looks": {"bbox": [1, 2, 10, 20], "segmentation": [[float("nan")]], "score": float("inf")},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_values_that_are_plainly_meant(tmp_path, kind):
    image = {"id": 1, "file_name": "a.png", "width": 40.0, "height": "30", "date": float("nan")}
    box = {"id": 1, "image_id": 1, "category_id": 2} | PLAIN[kind]
    value = {"images": [image], "annotations": [box], "categories": [{"id": 2, "name": 7}]}
    (tmp_path / "a.json").write_text(json.dumps(value))
    found = read_annotations(tmp_path / "a.json")
    crowd = int("iscrowd" in kind and "null" not in kind)
    assert boxes_of(found) == [("a.png", "7", (1, 2, 10, 20), crowd)]
    assert found.coco["annotations"][0]["area"] == 200
    assert found.coco["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    found.write(tmp_path / "b.json")


@pytest.mark.parametrize("command", ["train", "evaluate", "compare"])
def test_nothing_left_is_an_error_that_says_how_many_and_why(tmp_path, capsys, command):
    folder = write_coco(tmp_path / "data", {"train": records(1, 9, "a"), "val": records(2, 5, "b")})
    part = "val" if command == "evaluate" else "train"
    value = read_json(folder / f"{part}.json", "")
    for box in value["annotations"]:
        box["bbox"][2] = -1
    (folder / f"{part}.json").write_text(json.dumps(value))
    (tmp_path / "dt.json").write_text("[]")
    arguments = {
        "train": ["--data", str(folder), "--out", str(tmp_path / "run")],
        "compare": ["--data", str(folder), "--losses", "giou", "--out", str(tmp_path / "run")],
        "evaluate": [str(tmp_path / "dt.json"), "--annotations", str(folder / "val.json")],
    }[command]
    assert main([command, *arguments]) == 1
    first = capsys.readouterr().err
    assert "annotation 1: bbox" in first
    assert "has no area" in first
    assert "--skip-bad-boxes leaves such boxes out" in first
    assert main([command, *arguments, "--skip-bad-boxes"]) == 1
    count = len(value["annotations"])
    assert f"left out {count} bad boxes, and no box is left: " in capsys.readouterr().err


def test_boxes_over_the_edge_are_judged_alike_by_every_command(tmp_path):
    parts = {"train": records(1, 9, "a"), "val": records(2, 5, "b")}
    folder = write_coco(tmp_path / "data", parts)
    value = read_json(folder / "val.json", "")
    value["annotations"][0]["bbox"] = [-20, -10, 60, 50]
    value["annotations"][1]["bbox"] = [200, 10, 20, 20]  # not a pixel of it inside
    (folder / "val.json").write_text(json.dumps(value))
    with pytest.warns(UserWarning, match="without a pixel inside"):
        figures = train(small(folder), tmp_path / "run", pictures=False)
    assert read_json(tmp_path / "run/val.json", "")["annotations"][0]["bbox"] == [-20, -10, 60, 50]
    with pytest.warns(UserWarning, match="without a pixel inside"):
        assert evaluate_detections(tmp_path / "run/detections.json", folder / "val.json") == figures
    boxes = [box | {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0} for box in value["annotations"]]
    found = read_json(tmp_path / "run/detections.json", "")
    assert coco_figures(value | {"annotations": boxes}, found) == figures
    with pytest.warns(UserWarning, match="without a pixel inside"):
        assert perfect(tmp_path, value, found_in(value))


def test_the_same_pictures_in_both_parts_are_said(tmp_path):
    folder = write_data(tmp_path / "data", train=6, val=4)
    shutil.copy(folder / "images/train2.png", folder / "images/val3.png")
    value = read_json(folder / "val.json", "")
    value["images"][2] |= {"width": 96, "height": 64}
    (folder / "val.json").write_text(json.dumps(value))
    with pytest.warns(UserWarning, match="1 picture of the training images in the validation images, too: val3.png"):
        read_data(small(folder))
    paths = [folder / f"images/train{k}.png" for k in range(1, 7)]
    assert shared_files(paths, [folder / "images/val1.png", paths[3]]) == [paths[3]]


# -- EXIF ------------------------------------------------------------------------------------------------------------

TURN_BACK = {  # what a camera stores so that the orientation turns it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
BOX = (8, 10, 20, 30)


def save_turned(path, orientation, size, box=BOX):
    """A picture of this size when upright, with a red box in it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = picture(*size, [(7, box)])
    path.parent.mkdir(parents=True, exist_ok=True)
    upright.transpose(TURN_BACK[orientation]).save(path, exif=exif, quality=95)


def one_picture(folder, size, name="p.jpg", box=BOX, part="train"):
    image = {"id": 1, "file_name": name, "width": size[0], "height": size[1]}
    value = coco_of([]) | {"images": [image]}
    value["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": list(box)}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(value))


def drawn_and_said(folder, size=(128, 128)):
    """The red box of the only sample, and where its box is."""
    sample = CocoImages(read_annotations(folder / "train.json"), folder / "images", size)[0]
    rows, columns = torch.where((sample.image[0] > 160) & (sample.image[1] < 100))
    drawn = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
    return drawn, sample.box[0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("size", [(64, 96), (80, 80)])
@pytest.mark.parametrize("orientation", TURN_BACK)
def test_pictures_are_read_upright(tmp_path, orientation, size, suffix):
    save_turned(tmp_path / f"images/p.{suffix}", orientation, size)
    one_picture(tmp_path, size, f"p.{suffix}")
    clear = orientation >= 5 and size[0] != size[1]
    said = "1 picture .* is turned by EXIF: read upright, as annotation tools and browsers show them"
    with pytest.warns(
        UserWarning, match=said + ("$" if clear else r"; the sizes of 1 of them \(p\..*\) fit both ways")
    ):
        drawn, box = drawn_and_said(tmp_path)
    torch.testing.assert_close(drawn, box, atol=3, rtol=0)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_sizes_of_the_picture_as_it_is_stored_mean_it_so(tmp_path, orientation):
    save_turned(tmp_path / "images/p.jpg", orientation, (64, 96))
    stored = Image.open(tmp_path / "images/p.jpg")
    stored.load()
    exif = stored.getexif()
    assert stored.size == (96, 64)
    picture(96, 64, [(7, BOX)]).save(tmp_path / "images/p.jpg", exif=exif, quality=95)  # a tool that knows no EXIF
    one_picture(tmp_path, (96, 64))
    with pytest.warns(
        UserWarning, match=r"turned by EXIF: read as they are stored, since the sizes in .*train\.json are those"
    ):
        drawn, box = drawn_and_said(tmp_path)
    torch.testing.assert_close(drawn, box, atol=2, rtol=0)


def test_the_other_pictures_of_a_data_set_decide_where_sizes_do_not(tmp_path):
    """A tool that knows no EXIF stored all of them so."""
    value = coco_of([])
    for k, (orientation, size) in enumerate(((6, (96, 64)), (3, (96, 64)), (8, (80, 80)))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "images").mkdir(exist_ok=True)
        picture(*size, [(7, BOX)]).save(tmp_path / f"images/{k}.jpg", exif=exif, quality=95)
        value["images"].append({"id": k, "file_name": f"{k}.jpg", "width": size[0], "height": size[1]})
        value["annotations"].append({"id": k, "image_id": k, "category_id": 1, "bbox": list(BOX)})
    (tmp_path / "train.json").write_text(json.dumps(value))
    with pytest.warns(UserWarning, match="3 pictures .* are turned by EXIF: read as they are stored.*; the sizes of 2"):
        images = CocoImages(read_annotations(tmp_path / "train.json"), tmp_path / "images", (128, 128))
    for sample in images:
        rows, columns = torch.where((sample.image[0] > 160) & (sample.image[1] < 100))
        found = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()
        torch.testing.assert_close(found, sample.box[0], atol=2, rtol=0)


def test_a_size_that_fits_neither_way_is_refused(tmp_path):
    save_turned(tmp_path / "images/p.jpg", 6, (64, 96))
    one_picture(tmp_path, (64, 90))
    with pytest.raises(ValueError, match=r"p\.jpg has 96 × 64 pixels \(upright 64 × 96\), but .* says 64 × 90"):
        drawn_and_said(tmp_path)


def test_figures_show_turned_pictures_as_they_were_read(tmp_path):
    save_turned(tmp_path / "images/p.jpg", 6, (64, 96))
    one_picture(tmp_path, (64, 96))
    with pytest.warns(UserWarning, match="EXIF"):
        images = CocoImages(read_annotations(tmp_path / "train.json"), tmp_path / "images", (64, 64))
    (scene,) = scenes(images, [])
    assert scene.image.size == (64, 96)
    red = scene.image.crop((10, 12, 26, 38)).resize((1, 1)).getpixel((0, 0))
    assert red[0] > 180 > 100 > red[1]


def test_yolo_pictures_are_upright_as_its_detectors_read_them(tmp_path):
    save_turned(tmp_path / "images/train/p.jpg", 6, (64, 128), (16, 32, 32, 64))
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "labels/train/p.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [red]\n")
    found = read_annotations(tmp_path)
    assert boxes_of(found) == [("p.jpg", "red", (16, 32, 32, 64), 0)]
    assert (found.coco["images"][0]["width"], found.coco["images"][0]["height"]) == (64, 128)


# -- YOLO -------------------------------------------------------------------------------------------------------------

PARTS = {"train": records(1, 9, "a"), "val": records(2, 5, "b")}


def yolo(folder, **changes):
    """The data set, with fields of its data.yaml changed or (None) left out."""
    import yaml

    write_yolo(folder, PARTS)
    path = folder / "data.yaml"
    values = yaml.safe_load(path.read_bytes()) | changes
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


YAMLS = {
    "names as a mapping": {"names": dict(enumerate(NAMES))},
    "names as a mapping in another order": {"names": {2: "washer", 0: "bolt", 1: "nut"}},
    "without path": {"path": None},
    "a path that was another machine's": {"path": "/content/drive/somebody"},
    "a relative path": {"path": "."},
    "a list of folders": {"train": ["images/train"], "val": ["images/val"]},
    "as Roboflow writes it": {"path": None, "train": "../images/train", "val": "../images/val"},
    "a download that nobody needs": {"download": "https://example.org/all.zip"},
    "a test part that is not there": {"test": "images/test"},
    "nc beside names": {"nc": 3},
}


@pytest.mark.parametrize("kind", YAMLS)
def test_yaml_files(tmp_path, kind):
    path = yolo(tmp_path, **YAMLS[kind])
    for part, found in PARTS.items():
        for given in (path, tmp_path):
            annotations = read_annotations(given, part=part)
            assert boxes_of(annotations) == expected_boxes(found)
            assert annotations.categories == NAMES


def test_pictures_in_text_files(tmp_path):
    path = yolo(tmp_path, train="train.txt", val="lists/val.txt")
    (tmp_path / "lists").mkdir()
    (tmp_path / "train.txt").write_text("".join(f"./images/train/{name}\n" for name, _, _ in PARTS["train"][:4]))
    (tmp_path / "lists/val.txt").write_text("".join(f"{tmp_path}/images/val/{name}\n\n" for name, _, _ in PARTS["val"]))
    assert boxes_of(read_annotations(path)) == expected_boxes(PARTS["train"][:4])
    assert boxes_of(read_annotations(path, part="val")) == expected_boxes(PARTS["val"])
    (tmp_path / "train.txt").write_text("./images/train/nothing.png\n")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml: train: 1 picture missing: .*nothing\.png"):
        read_annotations(path)


def test_pictures_of_two_folders_are_named_from_the_folder_above(tmp_path):
    path = yolo(tmp_path, train=["images/train", "images/val"])
    found = read_annotations(path)
    both = [(f"{part}/{name}", *rest) for part, found in PARTS.items() for name, *rest in found]
    assert boxes_of(found) == expected_boxes(both)
    assert CocoImages(found, found.pictures, (64, 64))[0].image.shape == (3, 64, 64)


def with_line(tmp_path, line, **changes):
    path = yolo(tmp_path, **changes)
    label = tmp_path / "labels/train/a00.txt"
    label.write_text(line)
    return path


def first_box(path, **how):
    found = read_annotations(path, **how)
    (number,) = [image["id"] for image in found.coco["images"] if image["file_name"] == "a00.png"]
    return [(box["category_id"] - 1, box["bbox"]) for box in found.by_image()[number]]


def test_a_polygon_gives_the_box_around_it(tmp_path):
    path = with_line(tmp_path, "2 0.25 0.5 0.5 0.25 0.75 0.75\n\n  1 .5 .5 .25 .5  \n")  # of 128 × 64 pixels
    assert first_box(path) == [(2, [32, 16, 64, 32]), (1, [48, 16, 32, 32])]
    convert(path, tmp_path / "out.json", part="train")
    written = read_json(tmp_path / "out.json", "")["annotations"]
    points = [box["segmentation"] for box in written if "segmentation" in box]
    assert points == [[[32, 32, 64, 16, 96, 48]]]


def test_four_corners_are_read_as_a_box_and_said(tmp_path):
    path = with_line(tmp_path, "1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    with pytest.warns(UserWarning, match="1 line of four corners read as the upright box around them"):
        assert first_box(path) == [(1, [32, 16, 64, 32])]


def test_key_points_follow_the_box(tmp_path):
    path = with_line(tmp_path, "1 .5 .5 .25 .5 .1 .1 2 .2 .2 1\n0 .5 .5 .5 .5\n", kpt_shape=[2, 3])
    shutil.rmtree(tmp_path / "labels/val")
    assert first_box(path) == [(1, [48, 16, 32, 32]), (0, [32, 16, 64, 32])]


BAD_LINES = {
    "six numbers, a class, a box and a score: these are results, not labels": "1 .5 .5 .25 .5 .9",
    "class 3 has no name; names has 0 … 2": "3 .5 .5 .25 .5",
    "class -1 has no name": "-1 .5 .5 .25 .5",
    "expected a class and four numbers, or a class and a polygon's points, got 4 numbers": "1 .5 .5 .25",
    "expected a class and four numbers, or a class and a polygon's points, got 8 numbers": "1 .5 .5 .25 .5 .1 .2 .3",
    "expected a class and numbers, got 'nut .5 .5 .25 .5'": "nut .5 .5 .25 .5",
    "expected a class and numbers, got '1.5 .5": "1.5 .5 .5 .25 .5",
    r"expected shares of the picture's width and height, from 0 to 1, got \[64.0, 32.0, 20.0, 10.0\]: pixels\?": (
        "1 64 32 20 10"
    ),
}


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_named(tmp_path, reason):
    path = with_line(tmp_path, f"0 .5 .5 .5 .5\n{BAD_LINES[reason]}\n")
    with pytest.raises(ValueError, match=rf"labels/train/a00\.txt, line 2: {reason}"):
        read_annotations(path, skip_bad_boxes=True)


@pytest.mark.parametrize("line", ["1 .5 .5 0 .5", "1 .5 .5 -.1 .5", "1 nan .5 .1 .1", "1 .5 .5 inf .5", "1 2 2 .1 .1"])
def test_a_bad_box_of_a_line_can_be_skipped(tmp_path, line):
    path = with_line(tmp_path, f"{line}\n0 .5 .5 .5 .5\n")
    where = r"annotation labels/train/a00\.txt, line 1: "
    if "inf" in line:
        where = "labels/train/a00.txt, line 1: "
    with pytest.raises(ValueError, match=where):
        read_annotations(path)
    if "inf" not in line:
        with pytest.warns(UserWarning, match=f"left out 1 bad box: .*{where}"):
            assert first_box(path, skip_bad_boxes=True) == [(0, [32, 16, 64, 32])]


def test_labels_without_pictures_and_pictures_without_labels_are_counted(tmp_path):
    path = yolo(tmp_path)
    (tmp_path / "labels/train/a99.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "labels/train/classes.txt").write_text("bolt\n")
    (tmp_path / "labels/train/a00.txt").unlink()
    with pytest.warns(UserWarning, match=r"train: 1 label file without a picture left out: .*a99\.txt$"):
        found = read_annotations(path)
    assert len(found.coco["images"]) == 9
    bare = 1 + sum(not boxes for _, _, boxes in PARTS["train"][1:])
    assert f"{bare} of 9 pictures without a label file" in found.about
    assert first_box(yolo(tmp_path / "again")) != []


def test_labels_beside_pictures_that_are_in_no_folder_of_images(tmp_path):
    draw(tmp_path / "train", PARTS["train"])
    for name, size, boxes in PARTS["train"]:
        (tmp_path / "train" / name).with_suffix(".txt").write_text("".join(yolo_lines(size, boxes)))
    (tmp_path / "my.yml").write_text("train: train\nnames: [bolt, nut, washer]\n")
    assert boxes_of(read_annotations(tmp_path)) == expected_boxes(PARTS["train"])


BAD_YAMLS = {
    "train: https://example.org/coco8.zip is on the network; fetch it yourself": {
        "train": "https://example.org/coco8.zip"
    },
    "path: s3://bucket/x is on the network": {"path": "s3://bucket/x"},
    "train: no folder and no list of pictures .*images/trian; nothing is downloaded": {"train": "images/trian"},
    "names: expected text for class 1, got True; YAML reads yes, no, on and off": {"names": ["a", True, "c"]},
    r"expected names, a list or a mapping from class numbers, got \[\]": {"names": []},
    "expected names, a list or a mapping from class numbers, got 'bolt'": {"names": "bolt"},
    "names: expected different class numbers >= 0, got 'bolt'": {"names": {"bolt": 0}},
    "train: expected a folder or a text file, or a list of them, got 5": {"train": 5},
    "kpt_shape: expected two whole numbers > 0, got 17": {"kpt_shape": 17},
    "two different|two categories have the same name: 'a'": {"names": ["a", "a", "c"]},
}


@pytest.mark.parametrize("reason", BAD_YAMLS)
def test_a_bad_yaml_is_named(tmp_path, reason):
    path = yolo(tmp_path, **BAD_YAMLS[reason])
    for part in PARTS:
        for line in (tmp_path / f"labels/{part}").glob("*.txt"):
            line.write_text("".join(f"{k} .5 .5 .5 .5\n" for k in range(2)))
    with pytest.raises((ValueError, FileNotFoundError), match=rf"data\.yaml: ({reason})"):
        read_annotations(path)


def test_yaml_runs_nothing(tmp_path):
    path = yolo(tmp_path)
    path.write_text(f"names: !!python/object/apply:os.mkdir [{tmp_path}/made]\ntrain: images/train\n")
    with pytest.raises(ValueError, match="is not YAML"):
        read_annotations(path)
    assert not (tmp_path / "made").exists()


# -- Pascal VOC -------------------------------------------------------------------------------------------------------


def test_the_challenges_own_files_count_pixels_from_1(tmp_path):
    folder = write_voc(tmp_path, PARTS, origin=1)
    assert boxes_of(read_annotations(folder, voc_origin=1)) == expected_boxes(PARTS["train"])
    (name, _, boxes), moved = PARTS["train"][0], boxes_of(read_annotations(folder))
    x, y, w, h = boxes[0][1]
    assert moved[0][2] == (x + 1, y + 1, w - 1, h - 1)
    assert moved[0][0] == name


def test_difficult_objects_are_crowds(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    name, size, boxes = PARTS["train"][0]
    (folder / "Annotations/a00.xml").write_text(voc_xml(name, size, boxes, crowd=(1,)))
    found = [crowd for file, _, _, crowd in boxes_of(read_annotations(folder)) if file == name]
    assert found == [0, 1, 0]


@pytest.mark.parametrize("layout", ["train", "train/Annotations", "flat"])
def test_xml_files_beside_pictures_or_in_a_folder(tmp_path, layout):
    for part, found in PARTS.items():
        place = tmp_path if layout == "flat" else tmp_path / {"train": "train", "val": "valid"}[part]
        draw(place / "images" if "Annotations" in layout else place, found)
        for name, size, boxes in found:
            xml = place / ("Annotations" if "Annotations" in layout else "") / name
            xml.parent.mkdir(exist_ok=True, parents=True)
            xml.with_suffix(".xml").write_text(voc_xml(name, size, boxes))
    if layout == "flat":
        assert boxes_of(read_annotations(tmp_path)) == expected_boxes(PARTS["train"] + PARTS["val"])
        return
    for part, found in PARTS.items():
        annotations = read_annotations(tmp_path, part=part)
        assert boxes_of(annotations) == expected_boxes(found)
        assert annotations.categories == NAMES  # of both parts
        CocoImages(annotations, annotations.pictures, (64, 64))


def test_pictures_are_found_by_the_name_of_the_xml_file_or_in_it(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    name, size, boxes = PARTS["train"][0]
    (folder / "Annotations/a00.xml").unlink()
    (folder / "Annotations/other.xml").write_text(voc_xml(f"C:\\data\\{name}", size, boxes))
    listing = folder / "ImageSets/Main/train.txt"
    listing.write_text(listing.read_text().replace("a00", "other  1"))
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"])


def test_sizes_that_a_file_lacks_are_those_of_its_picture(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    for path in (folder / "Annotations").iterdir():
        path.write_text(re.sub("<size>.*</size>", "<size><width>0</width><height>0</height></size>", path.read_text()))
    assert read_annotations(folder).coco == read_annotations(write_voc(tmp_path / "other", PARTS)).coco


BAD_XML = {
    "it has a document type": '<!DOCTYPE a [<!ENTITY b "bb">]><annotation><filename>&b;</filename></annotation>',
    "it has a document type ": '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><annotation/>',
    "cannot be read as XML: no element found": "",
    "cannot be read as XML: ": "<annotation><size>",
    "cannot be read as XML: undefined entity": "<annotation>&lol;</annotation>",
    "expected a VOC file, <annotation>, got <annotations>": "<annotations/>",
    "a00.xml, object 1: expected a name": "<annotation><object><name> </name></object></annotation>",
    "a00.xml, object 1: expected difficult 0 or 1, got 'x'": (
        "<annotation><object><name>nut</name><difficult>x</difficult></object></annotation>"
    ),
}


@pytest.mark.parametrize("reason", BAD_XML)
def test_a_bad_xml_file_is_named(tmp_path, reason):
    folder = write_voc(tmp_path, PARTS)
    (folder / "Annotations/a00.xml").write_text(BAD_XML[reason])
    with pytest.raises(ValueError, match=f"a00.*{reason.strip()}|train.txt: {reason.strip()}"):
        read_annotations(folder, skip_bad_boxes=True)


def test_entities_that_grow_are_refused_at_once(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    entities = "".join(f'<!ENTITY a{k + 1} "{f"&a{k};" * 10}">' for k in range(20))
    for encoding in ("utf-8", "utf-16"):
        text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY a0 "x">{entities}]><a>&a20;</a>'
        (folder / "Annotations/a00.xml").write_bytes(text.encode(encoding))
        with pytest.raises(ValueError, match="it has a document type"):
            read_annotations(folder)


def test_xml_files_without_pictures(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    (folder / "JPEGImages/a00.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt: .*JPEGImages lacks the pictures of a00\.xml"):
        read_annotations(folder)
    shutil.rmtree(folder / "ImageSets")
    with pytest.warns(UserWarning, match=r"1 XML file without a picture left out: a00\.xml"):
        found = read_annotations(folder)
    assert boxes_of(found) == expected_boxes(PARTS["train"][1:] + PARTS["val"])


def test_pictures_without_xml_files_are_kept_and_counted(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    (folder / "Annotations/a00.xml").unlink()
    found = read_annotations(folder)
    assert len(found.coco["images"]) == 9
    assert found.about == "Pascal VOC, 1 of 9 pictures without an XML file"


# -- layouts of COCO files --------------------------------------------------------------------------------------------


def roboflow(folder):
    for part, name in (("train", "train"), ("val", "valid")):
        draw(folder / name, PARTS[part])
        (folder / name / "_annotations.coco.json").write_text(json.dumps(coco_of(PARTS[part])))


def roboflow_coco_2017(folder):
    for part in PARTS:
        draw(folder / f"{part}2017", PARTS[part])
        (folder / "annotations").mkdir(exist_ok=True)
        for kind in ("instances", "captions"):
            value = coco_of(PARTS[part]) if kind == "instances" else {"annotations": [], "images": []}
            (folder / f"annotations/{kind}_{part}2017.json").write_text(json.dumps(value))


def cvat(folder):
    for part, name in (("train", "Train"), ("val", "Validation")):
        draw(folder / "images" / name, PARTS[part])
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/instances_{name}.json").write_text(json.dumps(coco_of(PARTS[part])))


def part_folders_in_images(folder):
    for part in PARTS:
        draw(folder / "images" / part, PARTS[part])
        value = coco_of(PARTS[part])
        for image in value["images"]:
            image["file_name"] = f"{part}/{image['file_name']}"
        (folder / f"{part}.json").write_text(json.dumps(value))


@pytest.mark.parametrize("layout", [roboflow, roboflow_coco_2017, cvat, part_folders_in_images])
def test_layouts_that_are_divided(tmp_path, layout):
    tmp_path.joinpath("annotations" if layout in (cvat, roboflow_coco_2017) else "x").mkdir()
    layout(tmp_path)
    data = read_data(small(tmp_path))
    for part, images in (("train", data.train), ("val", data.val)):
        found = boxes_of(images.annotations)
        assert [(Path(name).name, *rest) for name, *rest in found] == expected_boxes(PARTS[part])
        assert len(images) == len(PARTS[part])


NAME_STYLES = {
    "plain": lambda name: name,
    "back slashes": lambda name: f"images\\sub\\{name}",
    "leading images": lambda name: f"images/sub/{name}",
    "sub-folders": lambda name: f"sub/{name}",
    "another machine's": lambda name: f"/home/someone/data/sub/{name}",
    "a drive": lambda name: f"C:\\Users\\me\\images\\sub\\{name}",
    "percent-escapes": lambda name: f"images/sub/{name.replace(' ', '%20').replace('é', '%C3%A9')}",
    "dots": lambda name: f"./images/./sub/{name}",
}


@pytest.mark.parametrize("style", NAME_STYLES)
def test_file_names_as_tools_write_them(tmp_path, style):
    found = [(f"é {name}", *rest) for name, *rest in PARTS["train"]]
    plain = style == "plain"
    draw(tmp_path / "images" / ("" if plain else "sub"), found)
    value = coco_of(found)
    for image in value["images"]:
        image["file_name"] = NAME_STYLES[style](image["file_name"])
    (tmp_path / "result.json").write_text(json.dumps(value))
    annotations = read_annotations(tmp_path)
    prefix = "" if plain else "sub/"
    assert boxes_of(annotations) == [(prefix + name, *rest) for name, *rest in expected_boxes(found)]
    assert annotations.pictures == tmp_path / "images"
    assert read_annotations(tmp_path / "result.json").coco == annotations.coco


def test_a_file_name_with_a_percent_sign_is_itself_if_there_is_such_a_file(tmp_path):
    found = [("100%25.png", *PARTS["train"][0][1:]), ("100%.png", *PARTS["train"][1][1:])]
    draw(tmp_path / "images", found)
    (tmp_path / "a.json").write_text(json.dumps(coco_of(found)))
    assert boxes_of(read_annotations(tmp_path)) == expected_boxes(found)


def test_only_what_all_file_names_have_in_front_is_left_off(tmp_path):
    """The picture of another folder that happens to have the name is not taken."""
    draw(tmp_path / "images", PARTS["train"])
    draw(tmp_path / "images/b", PARTS["val"][1:])
    value = coco_of([(f"b/{name}", *rest) for name, *rest in PARTS["val"]])
    value["images"][0]["file_name"] = "b/a00.png"
    (tmp_path / "a.json").write_text(json.dumps(value))
    found = read_annotations(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"images/b/a00\.png is missing, of 5"):
        CocoImages(found, found.pictures, (64, 64))


def test_two_images_of_one_file_are_refused_however_they_are_spelled(tmp_path):
    draw(tmp_path / "images", PARTS["train"])
    value = coco_of(PARTS["train"])
    value["images"][1] |= {"file_name": "./a00.png"}
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"images 1 and 2 have the same file_name, a00\.png"):
        read_annotations(tmp_path)


def test_sizes_that_a_coco_file_lacks_are_those_of_its_pictures(tmp_path):
    draw(tmp_path / "images", PARTS["train"])
    value = coco_of(PARTS["train"])
    for k, image in enumerate(value["images"]):
        image |= {"width": None, "height": 0} if k % 2 else {}
        if k % 3 == 0:
            del image["width"]
    (tmp_path / "a.json").write_text(json.dumps(value))
    (tmp_path / "b.json").write_text(json.dumps(coco_of(PARTS["train"])))
    assert read_annotations(tmp_path / "a.json").coco == read_annotations(tmp_path / "b.json").coco


# -- parts and choices ------------------------------------------------------------------------------------------------


def test_a_data_set_that_is_not_divided(tmp_path, capsys):
    found = records(4, 30)
    draw(tmp_path / "data/images", found)
    path = tmp_path / "data/result.json"
    path.write_text(json.dumps(coco_of(found)))
    for data in (tmp_path / "data", path):
        assert main(["train", "--data", str(data), "--out", str(tmp_path / "run")]) == 1
        said = "is not divided into training and validation; --val-share 0.2 divides it, by a hash of the file names"
        assert f"data: {data} {said}" in capsys.readouterr().err
    parts = {}
    for share in (0.2, 0.5):
        train_part, val_part = read_sources(find_data(str(tmp_path / "data"), val_share=share))
        names = [{image["file_name"] for image in part.coco["images"]} for part in (train_part, val_part)]
        assert names[0] | names[1] == {name for name, _, _ in found}
        assert not names[0] & names[1]
        assert sorted(boxes_of(train_part) + boxes_of(val_part)) == sorted(expected_boxes(found))
        parts[share] = names
    assert parts[0.2][1] < parts[0.5][1]
    more = found + records(5, 30, "q")
    draw(tmp_path / "data/images", more)
    path.write_text(json.dumps(coco_of(more[::-1])))
    _, val_part = read_sources(find_data(str(tmp_path / "data"), val_share=0.2))
    assert {name for image in val_part.coco["images"] if (name := image["file_name"]).startswith("p")} == parts[0.2][1]


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_other_formats_are_divided_too(tmp_path, name):
    found = records(4, 30)
    folder = {"yolo": write_yolo, "voc": write_voc}[name](tmp_path / name, {"train": found})
    shutil.rmtree(folder / "ImageSets", ignore_errors=True)
    coco = write_coco(tmp_path / "coco", {"all": found})
    with pytest.raises(ValueError, match=r"no part for validation; --val-share|is not divided"):
        find_data(str(folder))
    divided = [[part.coco for part in read_sources(find_data(str(f), val_share=0.3))] for f in (folder, coco)]
    assert divided[0] == divided[1]
    train(small(folder, val_share=0.3), tmp_path / "run", pictures=False)
    assert evaluate_run(tmp_path / "run", pictures=False) == read_json(tmp_path / "run/evaluation.json", "")


def test_a_divided_data_set_is_not_divided_again(tmp_path):
    folder = write_coco(tmp_path, PARTS)
    with pytest.raises(ValueError, match=r"val_share: .* is divided already, into train and val; leave it out"):
        find_data(str(folder), val_share=0.2)
    (folder / "val.json").unlink()
    with pytest.raises(ValueError, match=r"val_share 0\.001 of the 9 images of .* leaves none for val"):
        read_sources(find_data(str(folder), val_share=0.001))
    with pytest.raises(ValueError, match="val_share: expected a number between 0 and 1"):
        small(folder, val_share=20)


def test_two_formats_in_one_folder_are_named_with_the_option_that_chooses(tmp_path, capsys):
    write_coco(tmp_path / "data", PARTS)
    write_yolo(tmp_path / "data", PARTS)
    assert main(["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "holds data sets of several formats: coco (" in said
    assert "yolo (" in said
    assert "choose one by --format coco or --format yolo" in said
    for name in ("coco", "yolo"):
        assert boxes_of(read_annotations(tmp_path / "data", format=name)) == expected_boxes(PARTS["train"])
    with pytest.raises(FileNotFoundError, match="holds no data set"):
        read_annotations(tmp_path / "data", format="voc")
    with pytest.raises(ValueError, match="format: expected one of auto, coco, yolo, voc, got 'csv'"):
        read_annotations(tmp_path / "data", format="csv")


def test_what_was_recognized_is_said_in_one_line(tmp_path, capsys):
    folder = write_yolo(tmp_path / "data", PARTS)
    train(small(folder), tmp_path / "run", pictures=False)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"images for training: 9 from {folder / 'data.yaml'} (YOLO")
    assert f"; for validation: 5 from {folder / 'data.yaml'} (YOLO, " in first
    (tmp_path / "dt.json").write_text("[]")
    assert main(["evaluate", str(tmp_path / "dt.json"), "--annotations", str(folder), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["AP"] == 0
    assert err.startswith(f"images: 5 from {folder / 'data.yaml'} (YOLO, ")


def test_a_yolo_run_is_evaluated_again_and_compared(tmp_path, capsys):
    folder = write_yolo(tmp_path / "data", PARTS)
    figures = train(small(folder, detect=Detect(score_threshold=0.0)), tmp_path / "run", pictures=False)
    assert evaluate_run(tmp_path / "run", pictures=False) == figures
    found = str(tmp_path / "run/detections.json")
    capsys.readouterr()
    assert main(["evaluate", found, "--annotations", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    options = ["--data", str(folder), "--losses", "giou,ciou", "--seeds", "1", "--train.size", "64"]
    options += ["--train.epochs", "1", "--train.network.scales", "2", "--train.network.anchors", "1"]
    assert main(["compare", *options, "--replicates", "2", "--out", str(tmp_path / "study")]) == 0
    summary = read_json(tmp_path / "study/summary.json", "")
    assert next(iter(summary["datasets"].values()))["images"] == 5


def test_options_of_older_configurations_count_as_before():
    """A finished study is known by its hash, which must not change when a field is added."""
    assert TrainConfig().hash() == "c5dc165be5ece7e9a20b3851c6c8c0229de4753fb061c250a1767d9815b53431"
    assert TrainConfig(val_share=0.2).hash() != TrainConfig().hash()


# -- found by attack -------------------------------------------------------------------------------------------------


def stored_without_exif(path, orientation, size):
    """As a tool that knows no EXIF sees it: the box is of the picture as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = picture(*size, [(7, BOX)])
    drawn.putpixel((0, 0), (int(path.stem[1:]) * 30, 0, 0))
    drawn.save(path, exif=exif, quality=95)


@pytest.mark.parametrize("how", ["divided", "two files"])
def test_both_parts_are_turned_alike(tmp_path, how):
    """The only picture whose size tells is in one of them."""
    names = [f"p{k}.jpg" for k in range(8)]
    for k, name in enumerate(names):
        stored_without_exif(tmp_path / "images" / name, 6 if k == 0 else 3, (96, 64))
    records = [{"id": k, "file_name": name, "width": 96, "height": 64} for k, name in enumerate(names)]
    boxes = [{"id": k, "image_id": k, "category_id": 1, "bbox": [*BOX[:2], 20 + 5 * (k % 2), 30]} for k in range(8)]

    def write(path, places):
        parts = {"images": [records[k] for k in places], "annotations": [boxes[k] for k in places]}
        path.write_text(json.dumps(coco_of([]) | parts))

    if how == "divided":
        write(tmp_path / "a.json", range(8))
    else:
        write(tmp_path / "train.json", range(4))
        write(tmp_path / "val.json", range(4, 8))
    config = small(tmp_path, val_share=0.4 if how == "divided" else None)
    with pytest.warns(UserWarning, match="8 pictures .* read as they are stored.*; the sizes of 7 of them"):
        data = read_data(config)
    assert not any(data.train.pictures.upright + data.val.pictures.upright)
    assert len(data.val) >= 2
    with pytest.warns(UserWarning, match="8 pictures .* read as they are stored"):
        train(config, tmp_path / "run", pictures=False)
    kept = read_copy(tmp_path / "run")
    assert [image["upright"] for image in kept.coco["images"]] == [False] * len(data.val)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it was said
        evaluate_run(tmp_path / "run", pictures=False)


@pytest.mark.parametrize("orientation", TURN_BACK)
@pytest.mark.parametrize("stored", [False, True])
def test_tiff_which_pillow_turns_by_itself(tmp_path, orientation, stored):
    upright, exif = (64, 96), Image.Exif()
    exif[0x0112] = orientation
    drawn = picture(*upright, [(7, BOX)]).transpose(TURN_BACK[orientation])
    size, box = upright, BOX
    if stored:
        size = drawn.size
        drawn = picture(*size, [(7, BOX)])
    (tmp_path / "images").mkdir()
    drawn.save(tmp_path / "images/p.tif", exif=exif)
    one_picture(tmp_path, size, "p.tif", box)
    if stored and orientation < 5:
        return  # the size does not tell
    with pytest.warns(UserWarning, match="as they are stored" if stored else "read upright"):
        drawn_box, said = drawn_and_said(tmp_path)
    torch.testing.assert_close(drawn_box, said, atol=2, rtol=0)


LISTINGS = {
    "as they are": lambda stem: stem,
    "with a column": lambda stem: f"{stem}  -1",
    "with a suffix": lambda stem: f"{stem}.png",
    "in quotation marks": lambda stem: f'"{stem}"',
    "in quotation marks, with a suffix": lambda stem: f'"{stem}.png"',
    "in quotation marks, with a column": lambda stem: f'"{stem}" 1',
    "with blanks around": lambda stem: f"  {stem}\t",
}


@pytest.mark.parametrize("style", LISTINGS)
def test_names_in_lists_of_voc(tmp_path, style):
    parts = {"train": [(f"img {name}", *rest) for name, *rest in PARTS["train"]], "val": PARTS["val"]}
    folder = write_voc(tmp_path, parts)
    lines = "".join(LISTINGS[style](name.removesuffix(".png")) + "\r\n" for name, _, _ in parts["train"])
    (folder / "ImageSets/Main/train.txt").write_text(lines)
    assert boxes_of(read_annotations(folder)) == expected_boxes(parts["train"])


def test_names_in_lists_of_voc_that_are_nowhere(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    with (folder / "ImageSets/Main/val.txt").open("a") as file:
        file.write("nosuch\n")
    with pytest.raises(FileNotFoundError, match=r"val\.txt: 1 name of 6 without an XML file or a picture: nosuch"):
        read_annotations(folder, part="val")


def test_parts_of_voc_in_other_words(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    lists = folder / "ImageSets/Main"
    (lists / "train.txt").rename(lists / "Train.txt")
    (lists / "val.txt").rename(lists / "Validation.txt")
    for part, found in PARTS.items():
        assert boxes_of(read_annotations(folder, part=part)) == expected_boxes(found)


def test_of_two_pictures_for_one_xml_file_it_says_which(tmp_path):
    folder = write_voc(tmp_path, PARTS)
    shutil.copy(folder / "JPEGImages/a01.png", folder / "JPEGImages/a00.jpg")
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"])
    (folder / "Annotations/a00.xml").write_text(voc_xml("a00.gif", *PARTS["train"][0][1:]))
    with pytest.raises(ValueError, match=r"a00\.xml belongs to a00\.jpg or a00\.png; rename one of them"):
        read_annotations(folder)


def test_links_are_followed_and_hidden_files_are_not_read(tmp_path):
    write_yolo(tmp_path / "pool", PARTS)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind / "train").mkdir(parents=True)
        (tmp_path / "data" / kind / "train/sub").symlink_to(tmp_path / "pool" / kind / "train")
        (tmp_path / "data" / kind / "train/round").symlink_to(tmp_path / "data" / kind)
        (tmp_path / "data" / kind / "train/.ipynb_checkpoints").mkdir()
    picture(64, 64, []).save(tmp_path / "data/images/train/.ipynb_checkpoints/a-checkpoint.png")
    (tmp_path / "data/labels/train/._a.txt").write_bytes(b"\0\1")
    (tmp_path / "data/data.yaml").write_text("train: images/train\nnames: [bolt, nut, washer]\n")
    found = boxes_of(read_annotations(tmp_path / "data"))
    assert found == expected_boxes([(f"sub/{name}", *rest) for name, *rest in PARTS["train"]])
    folder = write_voc(tmp_path / "voc", PARTS)
    (folder / "Annotations/.ipynb_checkpoints").mkdir()
    shutil.copy(folder / "Annotations/a00.xml", folder / "Annotations/.ipynb_checkpoints/a-checkpoint.xml")
    (folder / "Annotations/._a.xml").write_bytes(b"\0\5\26\7")
    shutil.rmtree(folder / "ImageSets")
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"] + PARTS["val"])


def test_other_json_files_are_no_data_sets(tmp_path):
    folder = write_yolo(tmp_path / "a", PARTS)
    (folder / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "a"}], "info": {"year": 1}}))
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"])
    folder = write_coco(tmp_path / "b", PARTS)
    (folder / "train_config.json").write_text(json.dumps({"images": 3, "annotations": {}, "categories": "x"}))
    (folder / "test.json").write_text(json.dumps({"images": [], "info": {}}))
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"])
    convert(folder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.json", "val.json"]


def test_several_coco_files_of_one_part(tmp_path):
    folder = write_coco(tmp_path, {"a": PARTS["train"], "b": PARTS["val"]})
    with pytest.raises(ValueError, match=r"holds 2 COCO files for one part: a\.json, b\.json; name the file itself"):
        read_annotations(folder)


def test_a_root_is_known_by_its_name_in_the_other_part(tmp_path):
    folder = write_coco(tmp_path, PARTS)
    for part, key in (("train", 0), ("val", 9)):
        value = with_root(read_json(folder / f"{part}.json", ""), "fruit", key)
        if part == "val":
            value["annotations"][0]["category_id"] = 9
        (folder / f"{part}.json").write_text(json.dumps(value))
    train_part, val_part = read_sources(find_data(str(folder)))
    assert train_part.categories == val_part.categories == ["fruit", *NAMES]


def test_ids_beside_a_file_are_not_written_over_and_not_left(tmp_path):
    write_coco(tmp_path / "a", {"train": PARTS["train"]}, ids=lambda k: f"i{k}")
    write_coco(tmp_path / "b", {"train": PARTS["train"]})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/train_ids.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"train_ids\.json is there already"):
        convert(tmp_path / "a", tmp_path / "out")
    assert (tmp_path / "out/train_ids.json").read_text() == "precious"
    read_annotations(tmp_path / "a").write(tmp_path / "c.json")
    assert read_annotations(tmp_path / "c.json").own.image_ids[0] == "i0"
    read_annotations(tmp_path / "b").write(tmp_path / "c.json")
    assert read_annotations(tmp_path / "c.json").own.are_numbers
    for broken in ({"image_ids": ["a"] * 9, "category_ids": "xyz", "left_out": [[1]]}, {"image_ids": 3}, [1]):
        ids_beside(tmp_path / "c.json").write_text(json.dumps(broken))
        assert read_annotations(tmp_path / "c.json").own.are_numbers


def test_one_picture_under_two_paths(tmp_path):
    draw(tmp_path / "images", PARTS["train"])
    value = coco_of(PARTS["train"])
    value["images"][1]["file_name"] = "../images/a00.png"
    (tmp_path / "a.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"images 1 and 2 have the same file_name, a00\.png"):
        read_annotations(tmp_path)


def test_yaml_that_would_grow_without_bound(tmp_path):
    path = yolo(tmp_path)
    lines = ["a0: &a0 {x: 1}", *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}" for k in range(1, 30))]
    path.write_text("\n".join(lines) + "\ntrain: images/train\nnames: [a]\n")
    with pytest.raises(ValueError, match="is not YAML"):
        read_annotations(path)
    lines = ["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30))]
    path.write_text("\n".join(lines) + "\ntrain: *a29\nnames: *a29\n")
    with pytest.raises(ValueError, match="is not YAML"):
        read_annotations(path)


ODD_YAMLS = {
    "a home that nobody has": {"path": "~nosuchuser/x"},
    "validation for val": {"val": None, "validation": "images/val"},
    "back slashes in a list": {"train": "train.txt"},
}


@pytest.mark.parametrize("kind", ODD_YAMLS)
def test_odd_yaml_files(tmp_path, kind):
    path = yolo(tmp_path, **ODD_YAMLS[kind])
    (tmp_path / "train.txt").write_text("".join(f".\\images\\train\\{name}\r\n" for name, _, _ in PARTS["train"]))
    assert boxes_of(read_annotations(path)) == expected_boxes(PARTS["train"])
    assert boxes_of(read_annotations(path, part="val")) == expected_boxes(PARTS["val"])


@pytest.mark.parametrize("layout", ["LabelImg", "Label Studio", "CVAT"])
def test_label_files_with_a_list_of_names_beside_them(tmp_path, layout):
    folder = tmp_path / "images" / layout  # a folder called images above the data set means nothing
    pictures, labels = {
        "LabelImg": (folder, folder),
        "Label Studio": (folder / "images", folder / "labels"),
        "CVAT": (folder / "obj_train_data", folder / "obj_train_data"),
    }[layout]
    draw(pictures, PARTS["train"])
    labels.mkdir(exist_ok=True)
    for name, size, boxes in PARTS["train"]:
        (labels / name).with_suffix(".txt").write_text("".join(yolo_lines(size, boxes)))
    (folder / ("obj.names" if layout == "CVAT" else "classes.txt")).write_text("bolt\nnut\nwasher\n")
    assert boxes_of(read_annotations(folder)) == expected_boxes(PARTS["train"])
    with pytest.raises(ValueError, match=r"is not divided into training and validation; --val-share 0\.2"):
        find_data(str(folder))
    train_part, val_part = read_sources(find_data(str(folder), val_share=0.4))
    assert sorted(boxes_of(train_part) + boxes_of(val_part)) == sorted(expected_boxes(PARTS["train"]))
    assert read_annotations(folder, part="val", val_share=0.4).coco == val_part.coco


def test_folders_that_are_called_as_parts_in_any_case(tmp_path):
    for part, name in (("train", "Train"), ("val", "Valid")):
        draw(tmp_path / name / "images", PARTS[part])
        (tmp_path / name / "annotations").mkdir()
        for file, size, boxes in PARTS[part]:
            (tmp_path / name / "annotations" / file).with_suffix(".xml").write_text(voc_xml(file, size, boxes))
    for part, found in PARTS.items():
        assert boxes_of(read_annotations(tmp_path, part=part)) == expected_boxes(found)


def test_a_data_set_one_folder_down_is_named(tmp_path):
    folder = write_voc(tmp_path / "VOCdevkit/VOC2012", PARTS)
    for above in (tmp_path, tmp_path / "VOCdevkit"):
        with pytest.raises(FileNotFoundError, match=rf"holds no data set: .*; did you mean {folder}\?"):
            read_annotations(above)


def test_evaluate_does_not_pass_over_what_was_asked(tmp_path, capsys):
    folder = write_coco(tmp_path / "data", {"all": PARTS["train"] + PARTS["val"]})
    config = small(folder, val_share=0.4, detect=Detect(score_threshold=0.0))
    figures = train(config, tmp_path / "run", pictures=False)
    found = str(tmp_path / "run/detections.json")
    for options in (["--part", "test"], ["--val-share", "0.4"], ["--voc-origin", "1"], ["--format", "coco"]):
        assert main(["evaluate", str(tmp_path / "run"), *options]) == 1
        assert (
            f"{options[0]}: of --annotations; a run is judged by the val.json in its folder" in capsys.readouterr().err
        )
    assert main(["evaluate", str(tmp_path / "run"), "--annotations", str(folder)]) == 1
    assert "is a folder; expected a file of results, such as a run's detections.json" in capsys.readouterr().err
    assert main(["evaluate", found, "--annotations", str(folder), "--val-share", "0.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert main(["evaluate", found, "--annotations", str(folder), "--json"]) == 0
    assert "images with objects, which count as missed; if it is of a part" in capsys.readouterr().err


def test_a_folder_in_place_of_a_configuration(tmp_path, capsys):
    assert main(["train", str(write_coco(tmp_path, PARTS))]) == 1
    said = "is a folder; expected a configuration, YAML. A data set goes behind --data"
    assert said in capsys.readouterr().err


def test_a_file_that_is_no_data_set(tmp_path):
    path = tmp_path / "photo.png"
    picture(64, 64, []).save(path)
    with pytest.raises(ValueError, match=r"photo\.png: expected a folder, a COCO file \(\.json\) or a data\.yaml"):
        read_annotations(path)
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*nosuch, nor a folder of this name"):
        read_annotations(tmp_path / "nosuch")


def test_outputs_from_coarse_to_fine_are_refused():
    grid = Grid(DARKNET_ANCHORS, 3)
    outputs = [torch.zeros(1, 24, n, n) for n in (5, 10, 20)]
    with pytest.raises(ValueError, match=r"expected the finest scale first, got scales of \[5, 10, 20\] rows; reverse"):
        grid.split(outputs)
    assert len(grid.split(outputs[::-1])) == 3
