"""Damaged annotation files: whatever is wrong with one, reading it gives a data set or a clear error, and ends."""

from __future__ import annotations

import json
import random
import re
import warnings

import pytest
from formats import coco_of, records, voc_xml, write_voc, write_yolo

from boxloss.data import read_annotations

ODD = [
    *(None, True, False, 0, -1, 1e400, float("nan"), 10**30, 0.5, "", "x", "1", "nan", "1e999", "١", "\ud800", "a\0b"),
    *([], {}, [[]], {"id": 1}, [1, 2], ["1", "2", "3", "4"], [1e308] * 4, "../../etc", "x" * 5000, -(2**70)),
]


def places(value, path=()):
    """Where a value has parts, and which."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def mutated(value, rng):
    """With a field changed, dropped, doubled, wrapped or swapped with another."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        *way, last = rng.choice(list(places(value)) or [("images",)])
        inner = value
        for key in way:
            inner = inner[key]
        kind = rng.randrange(5)
        if kind == 0 and isinstance(inner, dict):
            del inner[last]
        elif kind == 1 and isinstance(inner, list):
            inner.append(inner[last])
        elif kind == 2:
            inner[last] = [inner[last]]
        elif kind == 3:
            inner[last] = {"id": inner[last]}
        else:
            inner[last] = rng.choice(ODD)
    return value


def damaged(data, rng):
    """Bytes cut off, changed, repeated, or nested without end."""
    kind, place = rng.randrange(5), rng.randrange(len(data))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return data[:place] + data[place : place + 40] * rng.choice((2, 300)) + data[place:]
    if kind == 3:
        return data[:place] + rng.choice((b"[", b"{", b"<a>", b"- ", b"&a [*a,")) * 3000 + data[place:]
    return data[:place] + rng.choice(
        (b"9" * 5000, b"\xff\xfe", b"\0", b"&lol;", b"!!python/object:os.system x", b"1e9999")
    )


def read(path, rng):
    """The data set, or what is said of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_annotations(path, part=rng.choice(("train", "val")), skip_bad_boxes=rng.random() < 0.5)
    except (ValueError, FileNotFoundError) as error:
        return str(error)


def outcome(path, rng):
    found = read(path, rng)
    if isinstance(found, str):
        assert 0 < len(found) < 5000
        return "refused"
    json.dumps(found.coco, allow_nan=False)
    numbers = [list(range(1, len(found.coco[key]) + 1)) for key in ("images", "annotations", "categories")]
    assert [[one["id"] for one in found.coco[key]] for key in ("images", "annotations", "categories")] == numbers
    return "read"


@pytest.fixture(scope="module")
def scene():
    return records(7, 3)


@pytest.mark.parametrize("seed", range(8))
def test_json(tmp_path, scene, seed):
    rng = random.Random(seed)
    path = tmp_path / "a.json"
    good = coco_of(scene)
    found = []
    for k in range(120):
        text = json.dumps(mutated(good, rng) if k % 3 else good).encode()
        path.write_bytes(text if k % 3 else damaged(text, rng))
        found.append(outcome(path, rng))
    assert set(found) == {"read", "refused"}


@pytest.mark.parametrize("seed", range(4))
def test_xml(tmp_path, scene, seed):
    rng = random.Random(seed)
    folder = write_voc(tmp_path, {"train": scene, "val": scene})
    path = folder / "Annotations/p00.xml"
    good = voc_xml(*scene[0])
    tags = re.findall(r"<\w+>[^<]*</\w+>", good)
    found = []
    for k in range(140):
        text = good
        if k % 2:
            tag = rng.choice(tags)
            other = rng.choice(("", tag * 2, re.sub(">.*<", f">{str(rng.choice(ODD))[:50]}<".replace("\0", ""), tag)))
            text = text.replace(tag, other, 1)
        data = text.encode(errors="surrogatepass")
        path.write_bytes(data if k % 2 else damaged(data, rng))
        found.append(outcome(folder, rng))
    assert set(found) == {"read", "refused"}


@pytest.mark.parametrize("seed", range(4))
def test_yaml(tmp_path, scene, seed):
    yaml = pytest.importorskip("yaml")
    rng = random.Random(seed)
    folder = write_yolo(tmp_path, {"train": scene, "val": scene})
    path, label = folder / "data.yaml", folder / "labels/train/p00.txt"
    good, lines = yaml.safe_load(path.read_bytes()), label.read_bytes()
    found = []
    for k in range(140):
        values = mutated(good, rng) if k % 3 == 0 else good
        data = yaml.safe_dump(values, allow_unicode=True).encode(errors="surrogatepass")
        path.write_bytes(damaged(data, rng) if k % 3 == 1 else data)
        label.write_bytes(damaged(lines, rng) if k % 3 == 2 else lines)
        found.append(outcome(path, rng))
    assert set(found) == {"read", "refused"}
