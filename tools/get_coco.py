"""Downloads COCO 2017: the annotations, and of the images only those that a subset needs.

    FOLDER/annotations/instances_{train,val}2017.json    from a zip whose SHA-1 is checked
    FOLDER/{train,val}2017/*.jpg                         each checked: its length, MD5, and size in pixels
    FOLDER/{train,val}2017.manifest.jsonl                a line for each image that is complete

What is there is not fetched again: after a run that was cut off, the same command goes on.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import json
import re
import shlex
import shutil
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from PIL import Image
from tqdm import tqdm

from boxloss.data import CocoSubset, read_annotations
from boxloss.files import replacing

ARCHIVE = "annotations_trainval2017.zip"
ARCHIVE_SHA1 = "8551ee4bb5860311e79dace7e79cb91e432e78b3"
INSTANCES = "instances_{}2017.json"
PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*", re.ASCII)  # no folder, no "..", nothing that an address would quote
TIMEOUT = 30.0
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
GIVE_UP = 50  # failures in a row: it is not the images, then
BLOCK = 1 << 20

T = TypeVar("T")


class DownloadError(Exception):
    """Something did not come, or not as it should."""


def get(args: argparse.Namespace) -> list[str]:
    """Everything; returns why, for each image that failed."""
    annotations, url = args.folder / "annotations", args.url.rstrip("/")
    if not all(is_json(annotations / INSTANCES.format(split)) for split in args.splits.split(",")):
        get_annotations(annotations, f"{url}/annotations/{ARCHIVE}", args.annotations_sha1)
    chosen = {}
    for split in args.splits.split(","):  # before any image is fetched: a category may be unknown
        images = args.images if split == "train" else args.val_images
        subset = CocoSubset(images=images, categories=args.categories, seed=args.seed)
        chosen[f"{split}2017"] = choose(annotations / INSTANCES.format(split), subset)
    return [
        reason
        for name, records in chosen.items()
        for reason in get_images(records, args.folder / name, f"{url}/{name}", args.jobs, args.verify)
    ]


def retried(sleep: Callable[[float], object], action: Callable[..., T], url: str, *rest: Any) -> T:
    """``action(url, *rest)``, tried again after longer and longer pauses; a ``sleep`` that returns True ends them."""
    pauses = iter(PAUSES)
    while True:
        try:
            return action(url, *rest)
        except (URLError, HTTPException, TimeoutError, ConnectionError, DownloadError) as error:
            lasting = isinstance(error, HTTPError) and error.code < 500
            pause = next(pauses, None)
            if lasting or pause is None or sleep(pause):
                raise DownloadError(f"{url}: {error}") from error


# -- Annotations ---------------------------------------------------------------------------------------------------


def is_json(path: Path) -> bool:
    """There to its end, as everything that is extracted here; what was put there by hand may not be."""
    with suppress(FileNotFoundError, ValueError):
        return json.loads(path.read_bytes()) is not None
    return False


def get_annotations(folder: Path, url: str, sha1: str) -> None:
    archive, part = folder / ARCHIVE, folder / f"{ARCHIVE}.part"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        retried(time.sleep, resume, url, part)
        check_sha1(part, sha1)
        part.replace(archive)
    try:
        with zipfile.ZipFile(archive) as files:
            for name in map(INSTANCES.format, ("train", "val")):
                with files.open(f"annotations/{name}") as source, replacing(folder / name) as target:
                    shutil.copyfileobj(source, target, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ValueError(
            f"{archive}: expected a zip of COCO's annotations: {error}; delete it and try again"
        ) from error


def resume(url: str, part: Path) -> None:
    """Fetch what ``part`` lacks of ``url``; all of it from a server that cannot send the rest alone."""
    start = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        reply = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416:
            raise
        part.unlink()
        raise DownloadError(f"nothing follows the {start:,} bytes that {part} had; it was deleted") from error
    with reply:
        start = start if reply.status == 206 else 0
        total = start + int(reply.headers.get("Content-Length", 0))
        bar = tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if start else "wb") as file:
            while block := reply.read(BLOCK):
                bar.update(file.write(block))
    if part.stat().st_size < total:  # a connection that is dropped just ends the reply
        raise DownloadError(f"expected {total:,} bytes, got {part.stat().st_size:,}")


def check_sha1(part: Path, expected: str) -> None:
    found = hashlib.sha1(usedforsecurity=False)
    with part.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    if expected and found.hexdigest() != expected.lower():
        part.unlink()
        raise DownloadError(
            f"{part}: expected SHA-1 {expected}, got {found.hexdigest()}; it was deleted. Run the command again; if it"
            " fails again, the server has another file: choose another --url, or --annotations-sha1 if you trust it"
        )


# -- Images --------------------------------------------------------------------------------------------------------


def choose(path: Path, subset: CocoSubset) -> list[dict[str, Any]]:
    """The records of the subset's images."""
    # COCO's own train2017 has boxes without height, in its images 200365 and 550395.
    chosen = subset.of(read_annotations(path, skip_bad_boxes=True))
    records: list[dict[str, Any]] = chosen.coco["images"]
    for key, record in zip(chosen.own.image_ids, records, strict=True):
        if not PLAIN_NAME.fullmatch(record["file_name"]):
            raise ValueError(f"{path}: image {key}: expected a plain file_name, got {record['file_name']!r}")
    return records


def get_images(records: Sequence[dict[str, Any]], folder: Path, url: str, jobs: int, verify: bool) -> list[str]:
    """Fetch what ``folder`` lacks; returns why, for each image that failed."""
    manifest = folder.with_name(f"{folder.name}.manifest.jsonl")
    known = read_manifest(manifest)
    checked = tqdm(records, f"{folder.name}: verify", disable=None if verify else True)
    missing = [record for record in checked if not is_saved(folder / record["file_name"], known, verify)]
    print(f"{folder.name}: {len(records):,} images, {len(missing):,} of them to fetch", flush=True)
    reasons: list[str] = []
    in_a_row = 0
    with closing(fetch(missing, folder, url, manifest, jobs)) as results:
        for reason in tqdm(results, folder.name, len(missing), disable=None):
            reasons += [reason] if reason else []
            in_a_row = in_a_row + 1 if reason else 0
            if in_a_row == GIVE_UP:
                raise DownloadError(f"stopped: {GIVE_UP} images in a row failed, the last one is {reason}")
    return reasons


def read_manifest(manifest: Path) -> dict[str, tuple[int, str]]:
    """Bytes and MD5 by file name."""
    text = manifest.read_bytes() if manifest.exists() else b""
    if text and not text.endswith(b"\n"):  # killed in the middle of a line, which the next one must not continue
        with manifest.open("ab") as file:
            file.write(b"\n")
    found = {}
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            found[entry["file_name"]] = (entry["bytes"], entry["md5"])
    return found


def is_saved(path: Path, known: dict[str, tuple[int, str]], verify: bool) -> bool:
    length, digest = known.get(path.name, (-1, ""))
    if not path.exists() or path.stat().st_size != length:
        return False
    return not verify or md5(path.read_bytes()) == digest


def fetch(
    records: Sequence[dict[str, Any]], folder: Path, url: str, manifest: Path, jobs: int
) -> Generator[str | None, None, None]:
    """Save images; yields why, for those that failed, and None for the others."""
    stop, writing = threading.Event(), threading.Lock()

    def one(record: dict[str, Any]) -> str | None:
        name = record["file_name"]
        try:
            data = retried(stop.wait, image, f"{url}/{name}", record["width"], record["height"])
        except (DownloadError, OSError, ValueError) as error:
            return str(error)
        with writing:  # lines do not mix
            save(data, folder / name, manifest)
        return None

    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(one, records)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)  # `with` would wait for all, if cut off while they are submitted


def image(url: str, width: int, height: int) -> bytes:
    """An image that is as long and has the MD5 that the server says, and decodes to the size that is expected."""
    with urlopen(url, timeout=TIMEOUT) as reply:
        data: bytes = reply.read()  # an error where fewer bytes come than Content-Length says
        etag = reply.headers.get("ETag", "").strip('"').lower()
    if re.fullmatch("[0-9a-f]{32}", etag) and etag != md5(data):  # S3's ETag of what it was sent in one piece
        raise DownloadError(f"expected MD5 {etag}, as its ETag says, got {md5(data)}")
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
    except Exception as error:  # decoders raise many kinds
        raise DownloadError(f"expected a whole image: {error}") from error
    if picture.size != (width, height):
        got = " × ".join(map(str, picture.size))
        raise ValueError(f"{url}: expected {width} × {height} pixels, as its annotation says, got {got}")
    return data


def save(data: bytes, path: Path, manifest: Path) -> None:
    with replacing(path) as file:
        file.write(data)
    with manifest.open("a") as lines:
        print(json.dumps({"file_name": path.name, "bytes": len(data), "md5": md5(data)}), file=lines)


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# -- The command ---------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER")
    add("--splits", default="val,train", choices=("val,train", "train,val", "val", "train"), metavar="val,train")
    add("--images", type=positive, metavar="N", help="as many of train, drawn with the seed; all unless given")
    add("--val-images", type=positive, metavar="N", help="as many of val; all unless given")
    add("--categories", type=lambda text: text.split(","), help="only images that show one of them: person,car")
    add("--seed", type=int, default=0)
    add("--jobs", type=positive, default=8, help="images that are fetched at the same time (%(default)s)")
    add("--verify", action="store_true", help="compare the MD5 of every image that is there")
    add("--url", default="http://images.cocodataset.org", help="the server (%(default)s)")
    add("--annotations-sha1", default=ARCHIVE_SHA1, metavar="HEX", help="of the zip; '' leaves it unchecked")
    args = parser.parse_args(arguments)
    if args.images and args.splits == "val":
        parser.error("--images counts those of train, which --splits leaves out: expected --val-images")
    return args


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    try:
        reasons = get(args)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except (OSError, ValueError, DownloadError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = f"{args.folder}: the disk is full; what was saved stays. Make room, and the same command goes on"
        print(f"error: {hint if full else error}", file=sys.stderr)
        return 1
    if reasons:
        first = "".join(f"\n  {reason}" for reason in reasons[:5])
        print(f"{len(reasons):,} images failed; the same command tries them again. The first:{first}", file=sys.stderr)
        return 1
    print("next: boxloss train configs/train/person.yaml " + shlex.join(train_options(args)))
    return 0


def train_options(args: argparse.Namespace) -> list[str]:
    """What makes `boxloss train` choose the same images."""
    subset = {"images": args.images, "val_images": args.val_images, "seed": args.seed or None}
    if args.categories:
        subset["categories"] = f"[{','.join(args.categories)}]"
    chosen = (f"--subset.{name}={value}" for name, value in subset.items() if value is not None)
    return ["--data", str(args.folder), *chosen]


if __name__ == "__main__":
    sys.exit(main())
