"""The COCO download against a server of this machine, which has a tiny COCO and fails as it is told to."""

from __future__ import annotations

import errno
import hashlib
import importlib
import io
import itertools
import json
import random
import threading
import time
import zipfile
from collections import defaultdict
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from boxloss.data import CocoSubset, read_annotations

ZIP = "/annotations/annotations_trainval2017.zip"
COUNTS = {"train": 8, "val": 4}
SIZE = (40, 30)


def names(split):
    return [f"{COUNTS['train'] * (split == 'val') + k:012}.jpg" for k in range(COUNTS[split])]


def address(split, k):
    return f"/{split}2017/{names(split)[k]}"


ALL_IMAGES = {address(split, k) for split, count in COUNTS.items() for k in range(count)}


def jpeg(seed, size=SIZE):
    buffer = io.BytesIO()
    pixels = random.Random(seed).randbytes(3 * size[0] * size[1])
    Image.frombytes("RGB", size, pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def instances(split):
    """Every image has a person; every second one a car too."""
    images, boxes = [], []
    for image_id, name in enumerate(names(split), 1):
        images.append({"id": image_id, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for category in (1, 3)[: 1 + image_id % 2]:
            box = {"id": len(boxes) + 1, "image_id": image_id, "category_id": category, "bbox": [1, 2, 20, 10]}
            boxes.append(box | {"area": 200, "iscrowd": 0})
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("annotations/captions_val2017.json", random.Random(0).randbytes(50_000))
        for split, coco in files.items():
            archive.writestr(f"annotations/instances_{split}2017.json", json.dumps(coco))
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.path = self.path.removeprefix("/mirror")
        body = self.server.files.get(self.path)
        faults = self.server.faults[self.path]
        fault = faults.pop(0) if faults else None
        if fault == "slow":
            time.sleep(0.1)
        if body is None or isinstance(fault, int):
            return self.answer(fault or 404, b"")
        etag = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} if self.server.etags else {}
        asked = self.headers["Range"]
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.answer(416, b"")
            there = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return self.answer(206, body[start:], fault, etag | there)
        return self.answer(200, body, fault, etag)

    def answer(self, status, body, fault=None, headers=None):
        half = body[: len(body) // 2]
        sent = {"drop": half, "truncate": half, "corrupt": half + b"\0" + body[len(half) + 1 :]}.get(fault, body)
        self.server.log.append((self.path, self.headers["Range"], len(sent)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body if fault == "drop" else sent)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # closing it waits for them

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.etags = self.ranges = True
        self.files = {address(s, k): jpeg(f"{s}{k}") for s, count in COUNTS.items() for k in range(count)}
        self.files[ZIP] = zipped(train=instances("train"), val=instances("val"))
        self.faults = defaultdict(list)
        """By path, what goes wrong with each next request."""
        self.log = []
        """Of each request: path, Range header, and bytes sent."""

    def asked(self):
        """The paths since the last call, sorted."""
        paths = sorted(path for path, _, _ in self.log)
        self.log.clear()
        return paths


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "tools")
    tool = importlib.import_module("get_coco")
    monkeypatch.setattr(tool, "PAUSES", (0.0, 0.01))
    return tool


@pytest.fixture
def get(tool, server, tmp_path, capsys):
    """Runs the command; returns its exit code, and what it printed of what went well and of what did not."""

    def get(*arguments, sha1=None):
        sha1 = hashlib.sha1(server.files[ZIP]).hexdigest() if sha1 is None else sha1
        url = f"http://127.0.0.1:{server.server_port}/mirror/"
        code = tool.main([str(tmp_path), "--url", url, "--annotations-sha1", sha1, *arguments])
        return code, *capsys.readouterr()

    return get


def images_in(folder):
    return {f"/{path.parent.name}/{path.name}" for path in folder.glob("*2017/*")}


def manifest_of(folder, split):
    return [json.loads(line) for line in (folder / f"{split}2017.manifest.jsonl").read_text().splitlines()]


# -- What is fetched -----------------------------------------------------------------------------------------------


def test_the_layout(get, server, tmp_path):
    code, out, err = get()
    assert (code, err) == (0, "")
    assert out.endswith(f"\nnext: boxloss train configs/train/person.yaml --data {tmp_path}\n")
    assert {path.name for path in (tmp_path / "annotations").iterdir()} == {
        *("instances_train2017.json", "instances_val2017.json", "annotations_trainval2017.zip")
    }
    for split in COUNTS:
        assert json.loads((tmp_path / f"annotations/instances_{split}2017.json").read_text()) == instances(split)
    assert images_in(tmp_path) == ALL_IMAGES  # and nothing half done beside them
    assert all((tmp_path / path[1:]).read_bytes() == server.files[path] for path in ALL_IMAGES)
    entry = {entry["file_name"]: entry for entry in manifest_of(tmp_path, "val")}[names("val")[0]]
    body = server.files[address("val", 0)]
    assert entry == {"file_name": names("val")[0], "bytes": len(body), "md5": hashlib.md5(body).hexdigest()}


def test_a_second_run_fetches_nothing(get, server):
    assert get()[0] == 0
    assert server.asked() == sorted([ZIP, *ALL_IMAGES])
    code, out, _ = get()
    assert (code, server.asked()) == (0, [])
    assert "train2017: 8 images, 0 of them to fetch" in out


def test_only_the_subset_comes(get, server, tmp_path):
    code, out, _ = get("--images", "3", "--val-images", "1", "--categories", "car", "--seed", "5")
    assert code == 0
    options = "--subset.images=3 --subset.val_images=1 --subset.seed=5 '--subset.categories=[car]'"
    assert out.endswith(f"--data {tmp_path} {options}\n")  # so that train chooses the same
    expected = [ZIP]
    for split, count in (("train", 3), ("val", 1)):
        whole = read_annotations(tmp_path / f"annotations/instances_{split}2017.json")
        subset = CocoSubset(images=count, categories=["car"], seed=5).of(whole)
        expected += [f"/{split}2017/{image['file_name']}" for image in subset.coco["images"]]
    assert server.asked() == sorted(expected)
    assert get("--images", "4", "--splits", "train", "--categories", "car", "--seed", "5")[0] == 0
    assert len(server.asked()) == 1  # a larger subset holds the smaller one


def test_one_split(get, server):
    assert get("--splits", "val")[0] == 0
    assert server.asked() == sorted([ZIP, *(path for path in ALL_IMAGES if "/val" in path)])


def test_the_address_in_the_record_counts_for_nothing(get, server):
    coco = instances("val")
    for image in coco["images"]:
        image["coco_url"] = "http://127.0.0.1:9/elsewhere.jpg"
    server.files[ZIP] = zipped(train=instances("train"), val=coco)
    assert get("--splits", "val")[0] == 0


def test_a_box_without_area_does_not_stop_it(get, server):
    coco = instances("val")
    coco["annotations"][0]["bbox"][3] = 0  # as COCO's own train2017 has
    server.files[ZIP] = zipped(train=instances("train"), val=coco)
    with pytest.warns(UserWarning, match="left out 1 bad box"):
        assert get("--splits", "val")[0] == 0


# -- Annotations ---------------------------------------------------------------------------------------------------


def test_a_cut_zip_goes_on(get, server, tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "PAUSES", ())
    server.faults[ZIP] = ["drop"]
    code, _, err = get()
    whole = len(server.files[ZIP])
    assert code == 1
    assert f"expected {whole:,} bytes, got {whole // 2:,}" in err
    assert (tmp_path / "annotations/annotations_trainval2017.zip.part").stat().st_size == whole // 2
    server.log.clear()
    assert get()[0] == 0
    assert server.log[0] == (ZIP, f"bytes={whole // 2}-", whole - whole // 2)


def test_a_cut_zip_goes_on_by_itself(get, server):
    server.faults[ZIP] = ["drop", 503]
    assert get()[0] == 0
    whole = len(server.files[ZIP])
    asked = [(asked, sent) for path, asked, sent in server.log if path == ZIP]
    assert asked == [(None, whole // 2), (f"bytes={whole // 2}-", 0), (f"bytes={whole // 2}-", whole - whole // 2)]


def test_a_server_without_ranges_starts_again(get, server):
    server.ranges = False
    server.faults[ZIP] = ["drop"]
    assert get()[0] == 0
    assert [sent for path, _, sent in server.log if path == ZIP] == [
        len(server.files[ZIP]) // 2,
        len(server.files[ZIP]),
    ]


def test_more_than_the_whole_starts_again(get, server, tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/annotations_trainval2017.zip.part").write_bytes(bytes(len(server.files[ZIP]) + 1))
    assert get()[0] == 0


def test_another_zip_is_refused(get, server, tmp_path):
    expected, actual = "0" * 40, hashlib.sha1(server.files[ZIP]).hexdigest()
    code, out, err = get(sha1=expected)
    assert (code, out) == (1, "")
    assert f"annotations_trainval2017.zip.part: expected SHA-1 {expected}, got {actual}; it was deleted." in err
    assert "Run the command again" in err
    assert not list((tmp_path / "annotations").iterdir())
    assert server.asked() == [ZIP]
    assert get(sha1=actual.upper())[0] == 0


def test_the_sum_is_coco_s_unless_given(tool):
    assert tool.parse(["x"]).annotations_sha1 == "8551ee4bb5860311e79dace7e79cb91e432e78b3"


def test_an_unchecked_zip(get, server):
    assert get(sha1="")[0] == 0
    assert ZIP in server.asked()


@pytest.mark.parametrize("body", [b"<html>Not here</html>", zipped(train=instances("train"))])
def test_a_zip_that_is_none(body, get, server, tmp_path):
    server.files[ZIP] = body
    code, _, err = get(sha1="")
    assert code == 1
    assert "annotations_trainval2017.zip: expected a zip of COCO's annotations" in err
    assert "delete it and try again" in err
    assert server.asked() == [ZIP]


def test_a_cut_extraction_is_done_again(get, server, tool, tmp_path, monkeypatch):
    def cut(path):
        if path.name == "instances_val2017.json":
            raise KeyboardInterrupt
        return replacing(path)

    replacing = tool.replacing
    monkeypatch.setattr(tool, "replacing", cut)
    assert get()[0] == 130
    assert (tmp_path / "annotations/instances_train2017.json").exists()
    monkeypatch.setattr(tool, "replacing", replacing)
    assert server.asked() == [ZIP]
    assert get()[0] == 0
    assert server.asked() == sorted(ALL_IMAGES)  # the zip was kept


def test_annotations_put_there_by_hand(get, server, tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in COUNTS:
        (tmp_path / f"annotations/instances_{split}2017.json").write_text(json.dumps(instances(split)))
    assert get()[0] == 0
    assert server.asked() == sorted(ALL_IMAGES)
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(instances("val"))[:-20])
    assert get()[0] == 0
    assert server.asked() == [ZIP]


def test_no_annotations_at_the_server(get, server):
    del server.files[ZIP]
    code, _, err = get(sha1="")
    assert code == 1
    assert err.startswith("error: http://127.0.0.1")
    assert "404" in err
    assert server.asked() == [ZIP]


# -- Images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "etags"),
    [(["corrupt"], True), (["truncate"], True), (["truncate"], False), (["drop"], False), ([503, 500], True)],
)
def test_what_may_pass_is_tried_again(faults, etags, get, server, tmp_path):
    server.etags = etags
    path = address("train", 2)
    server.faults[path] = [*faults]
    code, _, err = get()
    assert (code, err) == (0, "")
    assert server.asked().count(path) == len(faults) + 1
    assert (tmp_path / path[1:]).read_bytes() == server.files[path]


@pytest.mark.parametrize(
    ("fault", "tries", "reason"),
    [
        (404, 1, "404"),
        (403, 1, "403"),
        (503, 3, "503"),
        ("corrupt", 3, "expected MD5 "),
        ("truncate", 3, "expected MD5 "),
        ("drop", 3, "IncompleteRead"),
    ],
)
def test_what_does_not_pass_is_told_and_the_others_stay(fault, tries, reason, get, server, tmp_path):
    path = address("train", 2)
    server.faults[path] = [fault] * tries
    code, out, err = get()
    assert code == 1
    assert "next:" not in out
    assert "1 images failed; the same command tries them again. The first:\n  http://127.0.0.1" in err
    assert f"{path}: " in err
    assert reason in err
    assert server.asked().count(path) == tries
    assert images_in(tmp_path) == ALL_IMAGES - {path}
    assert len(manifest_of(tmp_path, "train")) == COUNTS["train"] - 1
    assert get()[0] == 0
    assert server.asked() == [path]


def test_the_first_few_of_many_failures(get, server):
    for k in range(7):
        server.files.pop(address("train", k))
    code, _, err = get()
    assert code == 1
    assert err.startswith("7 images failed")
    assert err.count("404") == 5


def test_a_server_that_has_none_is_left_alone(get, server, tool, monkeypatch):
    monkeypatch.setattr(tool, "GIVE_UP", 2)
    for path in ALL_IMAGES:
        server.files.pop(path)
    code, _, err = get("--jobs", "1")
    assert code == 1
    assert "stopped: 2 images in a row failed" in err
    assert len(server.asked()) < len(ALL_IMAGES)


@pytest.mark.parametrize(("body", "reason"), [(jpeg(0, (30, 40)), "30 × 40"), (jpeg(0, (39, 30)), "39 × 30")])
def test_another_size_is_refused(body, reason, get, server, tmp_path):
    path = address("val", 1)
    server.files[path] = body
    code, _, err = get()
    assert code == 1
    assert f"{path}: expected 40 × 30 pixels, as its annotation says, got {reason}" in err
    assert not (tmp_path / path[1:]).exists()
    assert server.asked().count(path) == 1


def test_no_image_at_all(get, server, tmp_path):
    server.files[address("val", 1)] = b"<html>Not here</html>"
    code, _, err = get()
    assert code == 1
    assert "expected a whole image" in err
    assert images_in(tmp_path) == ALL_IMAGES - {address("val", 1)}


@pytest.mark.parametrize(
    "name",
    [*("../evil.jpg", "..", ".", " ", "/evil.jpg", "a/evil.jpg", "a\\evil.jpg", "C:evil.jpg", "evil..jpg"), "a.jpg\n"],
)
def test_a_name_that_leaves_the_folder_is_refused(name, get, server, tmp_path):
    coco = instances("train")
    coco["images"][3]["file_name"] = name
    server.files[ZIP] = zipped(train=coco, val=instances("val"))
    code, _, err = get()
    assert code == 1
    assert f"instances_train2017.json: image 4: expected a plain file_name, got {name!r}" in err
    assert server.asked() == [ZIP]
    assert not images_in(tmp_path)


# -- What a run before this one left -------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b"", b'{"file_', b'{"file_name": "a.jpg"}', b"12", b"\xff\xfe"])
def test_half_a_line(rest, get, server, tmp_path):
    assert get()[0] == 0
    manifest = tmp_path / "train2017.manifest.jsonl"
    *lines, last = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines) + rest)
    server.asked()
    assert get()[0] == 0
    assert server.asked() == [f"/train2017/{json.loads(last)['file_name']}"]
    assert get()[0] == 0
    assert server.asked() == []


def test_an_image_that_is_shorter_or_gone_comes_again(get, server, tmp_path):
    assert get()[0] == 0
    cut, gone = address("train", 1), address("val", 2)
    (tmp_path / cut[1:]).write_bytes(server.files[cut][:-1])
    (tmp_path / gone[1:]).unlink()
    server.asked()
    assert get()[0] == 0
    assert server.asked() == sorted([cut, gone])


def test_verify_reads_what_is_there(get, server, tmp_path):
    assert get()[0] == 0
    path = address("train", 1)
    (tmp_path / path[1:]).write_bytes(bytes(len(server.files[path])))
    server.asked()
    assert get()[0] == 0
    assert server.asked() == []
    assert get("--verify")[0] == 0
    assert server.asked() == [path]
    assert (tmp_path / path[1:]).read_bytes() == server.files[path]


def test_interrupted(get, server, tool, tmp_path, monkeypatch):
    for path in ALL_IMAGES:
        server.faults[path] = ["slow"]

    def interrupted(*arguments):
        with closing(fetch(*arguments)) as results:
            yield from itertools.islice(results, 2)
            raise KeyboardInterrupt

    fetch = tool.fetch
    with monkeypatch.context() as patch:
        patch.setattr(tool, "fetch", interrupted)
        code, _, err = get("--jobs", "1", "--splits", "train")
    assert (code, err) == (130, "interrupted: the same command goes on from here\n")
    done = images_in(tmp_path)
    assert 2 <= len(done) < COUNTS["train"]
    server.asked()
    assert get()[0] == 0
    assert server.asked() == sorted(ALL_IMAGES - done)


def test_an_interruption_does_not_wait_for_pauses(get, server, tool, monkeypatch):
    def interrupted(*arguments):
        with closing(fetch(*arguments)) as results:
            next(results)
            time.sleep(0.1)  # now the second image waits to be tried again
            raise KeyboardInterrupt

    fetch = tool.fetch
    monkeypatch.setattr(tool, "fetch", interrupted)
    monkeypatch.setattr(tool, "PAUSES", (20.0,))
    server.faults[address("val", 1)] = [503]
    start = time.monotonic()
    assert get()[0] == 130
    assert time.monotonic() - start < 10


def test_disk_full(get, server, tool, tmp_path, monkeypatch):
    @contextmanager
    def full(path):
        if len(images_in(tmp_path)) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        with replacing(path) as file:
            yield file

    replacing = tool.replacing
    with monkeypatch.context() as patch:
        patch.setattr(tool, "replacing", full)
        code, _, err = get()
    assert code == 1
    assert (
        err == f"error: {tmp_path}: the disk is full; what was saved stays. Make room, and the same command goes on\n"
    )
    done = images_in(tmp_path)
    assert len(done) == 5
    server.asked()
    assert get()[0] == 0
    assert server.asked() == sorted(ALL_IMAGES - done)


# -- Bad requests --------------------------------------------------------------------------------------------------


def test_an_unknown_category_is_told_before_images_come(get, server):
    code, _, err = get("--categories", "person,cra")
    assert code == 1
    assert "has no category 'cra'" in err
    assert server.asked() == [ZIP]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "test"], "invalid choice: 'test'"),
        (["--splits", "val", "--images", "3"], "expected --val-images"),
        (["--images", "0"], "--images: expected at least 1, got 0"),
        (["--jobs", "x"], "--jobs: invalid positive value: 'x'"),
    ],
)
def test_bad_arguments(arguments, message, get, server, capsys):
    with pytest.raises(SystemExit, match="2"):
        get(*arguments)
    assert message in capsys.readouterr().err
    assert server.asked() == []
