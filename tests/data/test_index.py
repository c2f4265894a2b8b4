"""What was read of a data set is kept, and read again as soon as anything differs."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.cli import main
from yolojax.data import check, index, opening, watching
from yolojax.data.check import bad_images, check_dataset, plot_labels
from yolojax.data.dataset import Dataset
from yolojax.data.images import read_image
from yolojax.data.index import keep_index
from yolojax.data.opening import read_dataset
from yolojax.errors import DataError
from yolojax.training import data as training_data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An index in a folder of its own, which believes that files of this moment are old."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("YOLOJAX_COMPILATION_CACHE", str(folder))
    monkeypatch.setattr(watching, "SETTLED", -1000.0)
    monkeypatch.setattr(index, "_in_use", [])
    return keep_index()


@pytest.fixture
def readings(monkeypatch):
    """The calls of the readers themselves."""
    calls = []
    real = opening._read

    def counted(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(opening, "_read", counted)
    return calls


def picture(path: Path, value: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), value, np.uint8)).save(path)


def make_coco(root: Path) -> Path:
    """Two images; one box is clipped, one dropped, one is a crowd region, and an entry has a key of its own."""
    for name in ("a.png", "b.png"):
        picture(root / "images" / name)
    boxes = {1: [10, 10, 20, 20], 2: [50, 30, 30, 30], 3: [5, 5, 0, 5], 4: [1, 2, 3, 4], 5: [0, 0, 9, 9]}
    content = {
        "info": {"year": 2020},
        "images": [{"id": i, "file_name": n, "height": 40, "width": 60} for i, n in ((7, "a.png"), (9, "b.png"))],
        "annotations": [
            {"id": i, "image_id": 7 if i < 4 else 9, "category_id": 1 + i % 2, "bbox": box, "iscrowd": int(i == 4)}
            for i, box in boxes.items()
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    content["annotations"][0] |= {"area": 77.5, "mine": "kept"}
    path = root / "annotations" / "instances_all.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return root


def make_yolo(root: Path) -> Path:
    for name in ("a", "b"):
        picture(root / "images" / f"{name}.png")
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text("0 .5 .5 .2 .2\n1 .9 .5 .4 .2\n")
    (root / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    return root


def make_voc(root: Path) -> Path:
    (root / "Annotations").mkdir(parents=True)
    for name in ("a", "b"):
        picture(root / "JPEGImages" / f"{name}.png")
        box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>70</xmax><ymax>20</ymax></bndbox>"
        objects = f"<object><name>cat</name>{box}<difficult>1</difficult></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


MAKERS = {"coco": make_coco, "yolo": make_yolo, "voc": make_voc}


def assert_same(a, b) -> None:
    assert a.fingerprint() == b.fingerprint() and a.summary == b.summary and a.root == b.root
    assert (a.class_names, a.category_ids, a.split, a.format) == (b.class_names, b.category_ids, b.split, b.format)
    assert [r.source for r in a.records] == [r.source for r in b.records]
    assert [r.upright for r in a.records] == [r.upright for r in b.records]
    for name in ("areas", "annotation_ids", "difficult"):
        np.testing.assert_array_equal(getattr(a.columns, name), getattr(b.columns, name))
    assert a.to_coco() == b.to_coco()


@pytest.mark.parametrize("layout", MAKERS)
def test_the_second_reading_is_the_first(layout, tmp_path, cache, readings):
    """Findings included: nothing becomes silent because it was kept."""
    root = MAKERS[layout](tmp_path / "set")
    first, second = read_dataset(root), read_dataset(root)
    assert len(readings) == 1
    assert first.summary.of("clipped")
    assert_same(first, second)
    assert_same(first, opening._read(root, None, None, None, False, True))


def _touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


CHANGES = {
    "label file": lambda root, label: label.write_text(label.read_text() + "\n"),
    "newer label of the same size": lambda root, label: _touch(label),
    "newer image of the same size": lambda root, label: _touch(next(root.rglob("b.png"))),
    "another image": lambda root, label: picture(next(root.rglob("b.png")), 90),
    "an image more": lambda root, label: picture(next(root.rglob("b.png")).with_name("c.png")),
    "an image under another name": lambda root, label: shutil.move(next(root.rglob("b.png")), root / "elsewhere.png"),
    "a folder more": lambda root, label: (root / "more").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", MAKERS)
def test_a_change_is_read(layout, change, tmp_path, cache, readings):
    root = MAKERS[layout](tmp_path / "set")
    label = {"coco": "annotations/instances_all.json", "yolo": "labels/a.txt", "voc": "Annotations/a.xml"}[layout]
    read_dataset(root, skip_bad=True)
    CHANGES[change](root, root / label)
    after = read_dataset(root, skip_bad=True)
    assert len(readings) == 2
    assert_same(after, opening._read(root, None, None, None, True, True))


def test_the_json_file_alone_is_watched_with_its_images(tmp_path, cache, readings):
    path = make_coco(tmp_path / "set") / "annotations" / "instances_all.json"
    read_dataset(path)
    assert_same(read_dataset(path), read_dataset(path))
    assert len(readings) == 1
    _touch(tmp_path / "set" / "images" / "b.png")
    read_dataset(path)
    (tmp_path / "set" / "images" / "b.png").unlink()
    with pytest.raises(DataError, match="image file is missing"):
        read_dataset(path)
    assert len(readings) == 3


def test_another_call_is_another_entry(tmp_path, cache, readings):
    root = make_coco(tmp_path / "set")
    first = read_dataset(root)
    for other in (
        read_dataset(root, skip_bad=True),
        read_dataset(root, class_names=("dog", "cat")),
        read_dataset(root, images=root / "images"),
        read_dataset(root, "all"),
    ):
        assert other.kept.key != first.kept.key
    assert len(readings) == 5


def test_the_working_folder_counts_for_relative_paths_alone(tmp_path, cache, readings, monkeypatch):
    """Findings and sources are named as the path was given."""
    for name in ("one", "two"):
        make_yolo(tmp_path / name / "set")
    for name in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / name)
        read_dataset("set")
        read_dataset(tmp_path / "one" / "set")
    assert len(readings) == 3


def test_what_changed_just_now_is_not_kept(tmp_path, cache, readings, monkeypatch):
    """It could change again within one tick of the file system's clock."""
    monkeypatch.setattr(watching, "SETTLED", 2.0)
    root = make_yolo(tmp_path / "set")
    assert read_dataset(root).kept is None and read_dataset(root).kept is None
    assert len(readings) == 2 and not list(tmp_path.glob("cache/**/*.npz"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert read_dataset(root).kept is not None
    read_dataset(root)
    assert len(readings) == 3


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_bytes(b"not an archive")
    else:  # one bit somewhere among the arrays
        content[len(content) * 2 // 3] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "text", "a bit"])
def test_a_damaged_entry_is_made_anew(how, tmp_path, cache, readings):
    root = make_coco(tmp_path / "set")
    first = read_dataset(root)
    (entry,) = cache.glob("*.npz")
    whole = entry.read_bytes()
    damage(entry, how)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(first, read_dataset(root))
    assert len(readings) == 2 and len(entry.read_bytes()) == len(whole)


def test_every_damage_of_one_byte_is_noticed_or_harmless(tmp_path, cache):
    root = make_coco(tmp_path / "set")
    first = read_dataset(root)
    (entry,) = cache.glob("*.npz")
    whole = entry.read_bytes()
    random = np.random.default_rng(0)
    for place in random.choice(len(whole), 150, replace=False):
        content = bytearray(whole)
        content[place] ^= int(random.integers(1, 256))
        entry.write_bytes(content)
        found = index.read_index(first.kept.key)
        assert found is None or (found.fingerprint() == first.fingerprint() and found.summary == first.summary)


def test_a_foreign_entry_is_not_taken(tmp_path, cache, readings):
    """An entry of another key, and one with arrays of Python objects, which are never unpickled."""
    first, second = (read_dataset(make_yolo(tmp_path / name)) for name in ("one", "two"))
    paths = [cache / f"{d.kept.key}.npz" for d in (first, second)]
    paths[0].write_bytes(paths[1].read_bytes())
    assert_same(first, read_dataset(tmp_path / "one"))
    np.savez(paths[0], meta=np.array({"format": 1}, object))
    assert_same(first, read_dataset(tmp_path / "one"))
    assert len(readings) == 4


@pytest.mark.skipif(os.name == "nt", reason="permissions")
def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, cache, readings):
    root = make_yolo(tmp_path / "set")
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file stands in its place")
    assert len(read_dataset(root)) == len(read_dataset(root)) == 2
    assert len(readings) == 2


def test_nothing_is_kept_where_the_cache_is_off(tmp_path, monkeypatch, cache, readings):
    monkeypatch.setenv("YOLOJAX_COMPILATION_CACHE", "off")
    assert keep_index() is None
    root = make_yolo(tmp_path / "set")
    assert read_dataset(root).kept is None
    read_dataset(root)
    assert len(readings) == 2 and not cache.exists()


def test_old_entries_make_room(tmp_path, cache, monkeypatch):
    roots = [make_yolo(tmp_path / f"set{i}") for i in range(4)]
    keys = [read_dataset(roots[0]).kept.key]
    monkeypatch.setattr(index, "LARGEST", int((cache / f"{keys[0]}.npz").stat().st_size * 2.5))
    for i, root in enumerate(roots[1:], 1):
        for age, path in enumerate(sorted(cache.iterdir(), key=lambda p: p.stat().st_mtime)):
            os.utime(path, (1000 + age, 1000 + age))
        if i == 3:
            read_dataset(roots[1])  # used, so that it stays
        keys.append(read_dataset(root).kept.key)
    assert {path.stem for path in cache.glob("*.npz")} == {keys[1], keys[3]}


PROCESS = """
import sys
from yolojax.data import watching
from yolojax.data.images import read_image
from yolojax.data.index import keep_index
from yolojax.data.opening import read_dataset
watching.SETTLED = -1000.0
keep_index()
input()  # so that both begin together
for _ in range(8):
    print(read_dataset(sys.argv[1]).fingerprint())
    for entry in keep_index().glob("*.npz"):
        entry.unlink(missing_ok=True)
read_dataset(sys.argv[1])
"""


def test_two_processes_write_at_once(tmp_path, cache):
    """Each removes the entry again and again, so that both write and read what the other is writing."""
    root = make_coco(tmp_path / "set")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    expected = opening._read(root, None, None, None, False, True).fingerprint()
    assert {line for out, _ in said for line in out.split()} == {expected}
    assert all(err == "" for _, err in said)
    assert {path.suffix for path in cache.iterdir()} == {".npz", ".json"}  # no draft is left


def test_the_fingerprint_is_kept(tmp_path, cache, monkeypatch):
    """It is computed once for the same files, and anew for others, for fewer images and for other classes."""
    root = make_coco(tmp_path / "set")
    made = read_dataset(root).fingerprint()
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "_make_fingerprint", lambda *_: pytest.fail("computed again"))
        assert read_dataset(root).fingerprint() == made
    data = read_dataset(root)
    assert replace(data, class_names=tuple(name + "x" for name in data.class_names)).fingerprint() != made
    assert data.take([0]).fingerprint() != made
    path = next((root / "annotations").iterdir())
    path.write_text(path.read_text().replace("[1, 2, 3, 4]", "[1, 2, 3, 5]"))
    changed = read_dataset(root).fingerprint()
    assert changed != made
    monkeypatch.setattr(index, "_in_use", [])
    assert read_dataset(root).fingerprint() == changed


def test_images_are_decoded_once(tmp_path, cache, monkeypatch, capsys):
    """The second check names the damaged image again without looking at it, and a change is looked at."""
    root = make_yolo(tmp_path / "set")
    bad = root / "images" / "b.png"
    bad.write_bytes(bad.read_bytes()[:60])  # the head is whole
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yolojax.data.check.write_report", lambda *_: [])  # pictures take seconds
    code = main(["data", "check", str(root), "--out", "one"])
    said = capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr("yolojax.data.columns.decoded_size", lambda *_, **__: pytest.fail("decoded again"))
        assert main(["data", "check", str(root), "--out", "two"]) == code == 2
    assert capsys.readouterr().out.replace("two", "one") == said and "b.png" in said
    data = read_dataset(root, skip_bad=True)
    assert [i for i, _ in bad_images(data)] == [1]
    assert [i for i, _ in bad_images(data.take([1]))] == [0]  # other positions
    picture(bad)
    assert main(["data", "check", str(root), "--out", "three"]) == 0
    assert "no errors" in capsys.readouterr().out


def test_entries_of_a_changed_file_are_not_mixed(tmp_path, cache):
    root = make_coco(tmp_path / "set")
    read_dataset(root)
    data = read_dataset(root)
    _touch(root / "annotations" / "instances_all.json")
    with pytest.raises(DataError, match="has changed since the data set was opened"):
        data.to_coco()


def test_what_follows_from_a_data_set_is_kept(tmp_path, cache, monkeypatch):
    """The picture of the labels and the test of the ground truth are made once for the same files; a damaged entry and
    other counts are of no use."""
    root = make_coco(tmp_path / "set")
    data = read_dataset(root)
    report = check_dataset(data, decode=False)
    plot_labels(data, report, tmp_path / "one.png")
    drawn = []
    real = check._draw_labels
    monkeypatch.setattr(check, "_draw_labels", lambda *given: drawn.append(1) or real(*given))
    again = read_dataset(root)
    plot_labels(again, report, tmp_path / "two.png")
    assert not drawn and (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    plot_labels(again, replace(report, per_class=dict.fromkeys(report.per_class, 7)), tmp_path / "three.png")
    assert drawn == [1]
    (kept,) = cache.glob("*-labels.json")
    for damage in (b"[1]", b"{", b'{"digest": 1}', kept.read_bytes().replace(b'"is": "', b'"is": "?')):
        kept.write_bytes(damage)
        plot_labels(again, report, tmp_path / "four.png")
        assert read_image(tmp_path / "four.png").shape == read_image(tmp_path / "one.png").shape

    read = []
    monkeypatch.setattr(training_data, "read_ground_truth", lambda truth: read.append(len(truth["images"])))
    for _ in range(2):
        training_data._check_ground_truth(read_dataset(root))
    assert read == [2]
    training_data._check_ground_truth(again.take([0]))
    assert read == [2, 1]


def test_a_link_to_another_folder_of_the_set_is_seen(tmp_path, cache):
    """Both folders were there before, and are looked at by their own names."""
    root = make_yolo(tmp_path / "set")
    (root / "labels").rename(root / "labels_v1")
    shutil.copytree(root / "labels_v1", root / "labels_v2")
    for label in (root / "labels_v2").glob("*.txt"):
        label.write_text("0 .5 .5 .1 .1\n")
    (root / "labels").symlink_to("labels_v1")
    first = read_dataset(root)
    (root / "labels").unlink()
    (root / "labels").symlink_to("labels_v2")
    second = read_dataset(root)
    assert second.fingerprint() != first.fingerprint()
    assert second.fingerprint() == opening._read(root, None, None, None, False, True).fingerprint()
