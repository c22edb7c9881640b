"""One small data set, drawn so that every format holds its numbers exactly, written as COCO, YOLO and Pascal VOC."""

from __future__ import annotations

import json
import shutil

import numpy as np
from scenes import picture

NAMES = ["bolt", "nut", "washer"]
SIZES = [(128, 64), (64, 64), (64, 128)]  # powers of two: shares of them are exact in YOLO's decimals, too


def records(seed, images, prefix="p"):
    """(file name, (width, height), [(class, (x, y, w, h))]) of each picture."""
    rng = np.random.default_rng(seed)
    found = []
    for k in range(images):
        width, height = SIZES[k % 3]
        boxes = []
        for _ in range(int(rng.integers(0, 4)) if k else 3):
            w, h = int(rng.integers(8, width // 2)), int(rng.integers(8, height // 2))
            box = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h
            boxes.append((int(rng.integers(3)), box))
        found.append((f"{prefix}{k:02d}.png", (width, height), boxes))
    return found


def draw(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    for name, size, boxes in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        drawn = picture(*size, [((7, 3, 7)[k], box) for k, box in boxes])
        drawn.putpixel((0, 0), (*name.encode()[-6:-4], 0))  # no two pictures are the same
        drawn.save(folder / name)


def coco_of(found, *, ids=lambda k: k + 1, categories=(1, 2, 3), annotations=lambda k: k + 1):
    boxes = [(image, k, box) for image, (_, _, these) in enumerate(found) for k, box in these]
    return {
        "images": [
            {"id": ids(k), "file_name": name, "width": size[0], "height": size[1]}
            for k, (name, size, _) in enumerate(found)
        ],
        "annotations": [
            {"id": annotations(n), "image_id": ids(image), "category_id": categories[k], "bbox": list(box)}
            for n, (image, k, box) in enumerate(boxes)
        ],
        "categories": [{"id": key, "name": name} for key, name in zip(categories, NAMES, strict=True)],
    }


def write_coco(folder, parts, **how):
    for part, found in parts.items():
        draw(folder / "images", found)
        (folder / f"{part}.json").write_text(json.dumps(coco_of(found, **how)))
    return folder


def yolo_lines(size, boxes):
    width, height = size
    return [f"{k} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n" for k, (x, y, w, h) in boxes]


def write_yolo(folder, parts, *, names="list"):
    for part, found in parts.items():
        draw(folder / "images" / part, found)
        (folder / "labels" / part).mkdir(parents=True)
        for name, size, boxes in found:
            if boxes:
                label = (folder / "labels" / part / name).with_suffix(".txt")
                label.write_text("".join(yolo_lines(size, boxes)))
    listed = json.dumps(NAMES) if names == "list" else "".join(f"\n  {k}: {name}" for k, name in enumerate(NAMES))
    lines = [f"path: {folder}", *(f"{part}: images/{part}" for part in parts), f"names: {listed}"]
    (folder / "data.yaml").write_text("\n".join(lines) + "\n")
    return folder


def voc_xml(name, size, boxes, *, origin=0, crowd=()):
    objects = "".join(
        f"<object><name>{NAMES[k]}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>{int(n in crowd)}</difficult><bndbox><xmin>{x + origin}</xmin><ymin>{y + origin}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for n, (k, (x, y, w, h)) in enumerate(boxes)
    )
    sides = f"<width>{size[0]}</width><height>{size[1]}</height><depth>3</depth>"
    return f"<annotation><filename>{name}</filename><size>{sides}</size>{objects}</annotation>"


def write_voc(folder, parts, *, origin=0):
    for sub in ("Annotations", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True)
    for part, found in parts.items():
        draw(folder / "JPEGImages", found)
        for name, size, boxes in found:
            xml = (folder / "Annotations" / name).with_suffix(".xml")
            xml.write_text(voc_xml(name, size, boxes, origin=origin))
        stems = "".join(f"{name.removesuffix('.png')}\n" for name, _, _ in found)
        (folder / "ImageSets/Main" / f"{part}.txt").write_text(stems)
    return folder


WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}


def all_three(root):
    """The same data set in each format, by its name."""
    parts = {"train": records(1, 9, "a"), "val": records(2, 5, "b")}
    shutil.rmtree(root, ignore_errors=True)
    return parts, {name: write(root / name, parts) for name, write in WRITERS.items()}
