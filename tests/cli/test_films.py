"""``yolojax predict`` on films, cameras and streams: what is written, also where they break off."""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.four_colours import finder, scene
from yolojax.cli.prediction_files import entry_list
from yolojax.data.sources import Source, find_sources
from yolojax.data.video import Frame, Video, is_stream, video_writer, without_password
from yolojax.errors import ConfigError, DataError
from yolojax.inference.pipeline import Ahead
from yolojax.inference.predict import Predictor
from yolojax.inference.tracking import byte_track

SIDE = 64


def film(n_frames, first=0):
    """The first object goes to the right, the second one comes at the sixth frame."""
    for t in range(first, n_frames):
        boxes = [(2 + 2 * t, 4, 14 + 2 * t, 16)] + [(30, 40, 44, 52)] * (t >= 5)
        yield Frame(t, t / 10, scene(SIDE, SIDE, boxes))


class FakeVideo:
    """A video of generated frames, under the interface of `Video`."""

    frames_per_second = 10.0
    is_live = False
    error: BaseException | None = None
    count = 12

    def __init__(self, source, most_per_second=None):
        self.source = source

    def __iter__(self):
        yield from film(12)
        if self.error is not None:
            raise self.error


class ByColumn:
    """A tracker that tells the objects of `film` apart by their row, and gives no identity on the first frame."""

    def __init__(self):
        self.seen = set()

    def update(self, boxes, scores, classes):
        identities = np.where(boxes[:, 1] < 30, 0, 1)
        known = np.array([int(i) in self.seen for i in identities], bool)
        self.seen |= set(identities.tolist())
        return np.where(known, identities, -1)


@pytest.fixture
def predict(yolojax, monkeypatch, tmp_path):
    """The command with the finder as its model, on generated frames, with a tracker that cannot err."""
    predictors = {}

    def load(*paths, batch_size, **settings):
        return predictors.setdefault(batch_size, Predictor(finder(), {}, batch_size=batch_size))

    monkeypatch.setattr("yolojax.inference.predict.load", load)
    monkeypatch.setattr("yolojax.data.video.Video", FakeVideo)
    monkeypatch.setattr("yolojax.inference.tracking.byte_track", lambda **settings: ByColumn())
    (tmp_path / "film.mp4").touch()
    return lambda *arguments: yolojax("predict", *arguments, "--model", "finder")


def entries() -> list:
    text = Path("predictions/predictions.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1) + "\n"
    return json.loads(text)


def test_identities_are_in_the_json_and_the_labels(predict):
    ended = predict("film.mp4", "--track", "--txt")
    assert ended.code == 0, ended.err
    assert "film.mp4: 12 frames; at most on one: 2 red; objects in all: 2 red" in ended.out
    (entry,) = entries()
    assert list(entry) == ["video", "frames_per_second", "frames"] and entry["frames_per_second"] == 10
    frames = entry["frames"]
    assert [(f["frame"], f["seconds"]) for f in frames] == [(t, t / 10) for t in range(12)]
    for t, frame in enumerate(frames):
        found = {d["identity"]: [round(v) for v in d["box"]] for d in frame["detections"]}
        first, second = [2 + 2 * t, 4, 14 + 2 * t, 16], [30, 40, 44, 52]
        assert found == {0 if t else None: first} | ({1 if t > 5 else None: second} if t >= 5 else {})
    labels = sorted(Path("predictions/labels").iterdir())
    assert [path.name for path in labels] == [f"film_{t:06d}.txt" for t in range(12)]
    assert sorted(line.split()[6] for line in labels[8].read_text().splitlines()) == ["0", "1"]


def test_without_track_there_are_no_identities(predict):
    ended = predict("film.mp4", "--json")
    (entry,) = json.loads(ended.out)
    assert ended.code == 0 and len(entry["frames"]) == 12 and "identity" not in ended.out


@pytest.mark.parametrize("batch", ["file", "camera"])
def test_what_was_found_before_a_camera_goes_away_stays(predict, monkeypatch, batch):
    live = batch == "camera"
    monkeypatch.setattr(FakeVideo, "is_live", live)
    monkeypatch.setattr(FakeVideo, "error", DataError("camera 0: the camera gave no more frames after 12"))
    # Frames come as fast as a list, so that a camera's would be dropped.
    monkeypatch.setattr("yolojax.inference.pipeline.Ahead", lambda items, most, drop_oldest: Ahead(items, most=50))
    ended = predict("0" if live else "film.mp4", "--track", "--txt")
    assert ended.code == 2
    said = "not read to its end: camera 0: the camera gave no more frames after 12; 12 frames were done"
    assert said in ended.err and "Traceback" not in ended.err
    (entry,) = entries()
    assert list(entry) == ["video", "frames_per_second", "frames", "error"] and len(entry["frames"]) == 12
    assert len(list(Path("predictions/labels").iterdir())) == 12


def test_ctrl_c_leaves_whole_files(predict, monkeypatch):
    calls = []
    track = ByColumn.update

    def update(self, *given):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return track(self, *given)

    monkeypatch.setattr(ByColumn, "update", update)
    ended = predict("film.mp4", "missing.mp4", "--track", "--txt")
    assert ended.code == 130 and ended.err.splitlines()[-1] == (
        "yolojax: interrupted; what was found so far is in predictions"
    )
    (entry,) = entries()
    assert entry["interrupted"] is True and [f["frame"] for f in entry["frames"]] == list(range(6))
    assert not list(Path("predictions").glob(".*"))


def test_several_films_and_one_that_cannot_be_read(predict, monkeypatch):
    opening = FakeVideo.__init__

    def refuse(self, source, most_per_second=None):
        if str(source) == "bad.mp4":
            raise DataError("bad.mp4: not a video that can be read; convert it to MP4")
        opening(self, source)

    monkeypatch.setattr(FakeVideo, "__init__", refuse)
    ended = predict("film.mp4", "bad.mp4", "other.avi", "--track", "--out", "predictions", "--json")
    assert ended.code == 2 and "1 of 3 films could not be read" in ended.err
    assert json.loads(ended.out) == entries()
    assert [len(e.get("frames", [])) for e in entries()] == [12, 0, 12]
    # Identities begin anew in each film.
    assert [e["frames"][1]["detections"][0]["identity"] for e in entries() if "frames" in e] == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.jpg", "--track"], "--track is for films; a.jpg is a photo: give films alone or leave --track out"),
        (["a.jpg", "film.mp4", "b.png", "--track"], "--track is for films; a.jpg and 1 others are photos"),
        (["0", "rtsp://me:secret@host/1"], "several cameras or streams, 0 and rtsp://me:***@host/1"),
        (["a.jpg", "--fps", "5"], "--fps is for films; a.jpg is a photo"),
    ],
)
def test_options_of_films_on_photos(predict, arguments, said):
    ended = predict(*arguments)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1 and ended.out == ""
    assert not Path("predictions").exists()


def test_tracking_without_its_package_ends_before_anything_is_done(yolojax, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "supervision", None)
    (tmp_path / "film.mp4").touch()
    ended = yolojax("predict", "film.mp4", "--track", "--model", "nowhere")
    assert ended.code == 2 and ended.err == (
        "yolojax: error: tracking needs the package supervision; install it with: pip install 'yolojax[video]'\n"
    )


def test_names_of_cameras_and_streams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = "rtsp://me:se%20cret@10.0.0.7:554/live.sdp?channel=1"
    camera, stream, photo = find_sources(["0", address, "a.jpg"])
    assert (camera.stream, camera.name, camera.path.name, camera.is_video) == ("0", "0", "camera_0", True)
    assert stream.stream == address and stream.name == "rtsp://me:***@10.0.0.7:554/live.sdp?channel=1"
    assert stream.path == Path("10_0_0_7_554_live_sdp") and stream.is_video
    assert photo == Source(Path("a.jpg")) and not photo.is_video
    (tmp_path / "0").touch()
    assert not is_stream("0") and is_stream("1") and not is_stream("1.mp4")
    assert without_password("http://host/a@b:c@d") == "http://host/a@b:c@d"
    with pytest.raises(DataError, match=r"http://me:\*\*\*@host/a.jpg\?x=1 is the address of a photo; download it"):
        find_sources(["http://me:secret@host/a.jpg?x=1"])


def test_the_list_of_entries_is_that_of_json(tmp_path):
    expected = [{"a": 1}, {"v": "x", "frames": []}, {"v": "y", "frames": [{"b": [1, {"c": []}]}, {}], "error": "\n}"}]
    with entry_list(tmp_path, printed=False) as entries:
        entries.append(expected[0])
        with entries.film({"v": "x"}):
            pass
        with pytest.raises(ValueError), entries.film({"v": "y"}) as (append, tail):
            append({"b": [1, {"c": []}]})
            append({})
            tail["error"] = "\n}"
            raise ValueError
    assert (tmp_path / "predictions.json").read_text() == json.dumps(expected, indent=1) + "\n"


def test_items_are_taken_ahead_in_order_and_in_bounds():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    with Ahead(items(), most=3) as ahead:
        for expected, item in enumerate(ahead):
            assert item == expected and len(taken) <= expected + 1 + 3 + 1  # one waits for its place
    assert ahead.dropped == 0 and taken == list(range(20))


def test_the_oldest_is_dropped_where_items_do_not_wait():
    given = threading.Event()

    def items():
        yield from range(10)
        given.set()
        raise DataError("gone")

    with Ahead(items(), most=3, drop_oldest=True) as ahead:
        assert given.wait(10)
        got = []
        with pytest.raises(DataError, match="gone"):
            for item in ahead:
                got.append(item)
    assert got == [7, 8, 9] and ahead.dropped == 7


def test_whoever_leaves_early_ends_the_thread_and_releases_the_source():
    released = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            released.set()

    with Ahead(items(), most=2) as ahead:
        assert next(iter(ahead)) == 0
    assert released.wait(10) and not any(t.name == "yolojax-ahead" for t in threading.enumerate())


# What follows reads and writes films with OpenCV.


@pytest.fixture
def mp4(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    with video_writer(tmp_path / "real.mp4", 10.0) as append:
        for i in range(20):
            append(np.full((48, 64, 3), 10 * i, np.uint8))
        with pytest.raises(DataError, match=r"a frame of \(40, 64\) pixels cannot follow one of \(48, 64\)"):
            append(np.zeros((40, 64, 3), np.uint8))
    return tmp_path / "real.mp4"


@pytest.mark.parametrize(
    ("rate", "numbers"), [(None, range(20)), (30.0, range(20)), (5.0, range(0, 20, 2)), (0.5, [0])]
)
def test_a_rate_leaves_frames_out_evenly(mp4, rate, numbers):
    video = Video(mp4, rate)
    frames = list(video)
    assert [frame.number for frame in frames] == list(numbers) and not video.is_live
    assert video.count == len(frames) and video.frames_per_second == min(10.0, rate or 10.0)
    for frame in frames:
        assert frame.seconds == frame.number / 10 and abs(float(frame.image.mean()) - 10 * frame.number) < 6


def test_cameras_and_streams_that_are_not_there(mp4):
    with pytest.raises(DataError, match="99: no camera of this number can be opened; connect it"):
        Video("99")
    started = time.monotonic()
    with pytest.raises(DataError, match=r"127.0.0.1:9/x: the stream cannot be opened; check its address"):
        Video("http://u:p@127.0.0.1:9/x")
    assert time.monotonic() - started < 30
    with pytest.raises(ConfigError, match=r"frames per second = 0\.0"):
        Video(mp4, 0.0)


@pytest.mark.slow  # 12 s: it compiles a program of its own, loads trackers and encodes films
def test_the_command_follows_the_objects_of_a_film_file(predict, monkeypatch, tmp_path):
    """OpenCV reads and writes, ByteTrack follows; only the detector is not one of the zoo."""
    pytest.importorskip("cv2")
    pytest.importorskip("trackers")

    class Cleaned(Video):
        """The film with the exact colours that the finder wants, which MP4 does not keep."""

        def __iter__(self):
            for frame in super().__iter__():
                pixels = frame.image.astype(int)
                there = pixels[..., 0] - pixels[..., 1] > 70
                clean = np.full_like(frame.image, 90)
                for k, rows in enumerate((slice(0, 30), slice(30, SIDE))):
                    clean[rows][there[rows]] = (230, 20 * k, 30)
                yield frame._replace(image=clean)

    monkeypatch.setattr("yolojax.data.video.Video", Cleaned)
    monkeypatch.setattr("yolojax.inference.tracking.byte_track", byte_track)
    with video_writer(tmp_path / "film.mp4", 10.0) as append:
        for frame in film(16):
            append(frame.image)
    ended = predict("film.mp4", "--track", "--save", "--fps", "5")
    assert ended.code == 0, ended.err
    (entry,) = entries()
    assert entry["frames_per_second"] == 5 and [f["frame"] for f in entry["frames"]] == list(range(0, 16, 2))
    # The second object is first seen on frame 6, and each has its identity from its second frame on.
    found = [[d["identity"] for d in sorted(f["detections"], key=lambda d: d["box"][1])] for f in entry["frames"]]
    assert found == [[None], [0], [0], [0, None], *[[0, 1]] * 4]
    assert len(list(Video(tmp_path / "predictions" / "film.mp4"))) == 8
