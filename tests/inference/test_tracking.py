"""Tracking: what a tracker is given, what it gives to results, and films of moving shapes through ByteTrack."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolojax.draw import Objects, class_colour, draw_boxes
from yolojax.errors import ConfigError
from yolojax.inference.results import Result
from yolojax.inference.tracking import byte_track, identify, track

NAMES = ("red", "green")


def result_of(boxes, scores=None, classes=None) -> Result:
    n = len(boxes)
    return Result(
        boxes=np.array(boxes, np.float32).reshape(n, 4),
        scores=np.full(n, 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        classes=np.zeros(n, np.int64) if classes is None else np.array(classes, np.int64),
        class_names=NAMES,
        image=np.zeros((120, 160, 3), np.uint8),
    )


def identities(result: Result) -> list[int]:
    assert result.identities is not None
    return result.identities.tolist()


class ByPosition:
    """A tracker that cannot err where every object keeps to a row of 20 pixels: that row is its identity."""

    def __init__(self):
        self.given = []

    def update(self, boxes, scores, classes):
        self.given.append((boxes, scores, classes))
        return np.where(boxes[:, 1] >= 100, -1, boxes[:, 1].astype(int) // 20)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100).map(lambda n: n / 100)), max_size=6), max_size=5
    ),
    st.integers(1, 100).map(lambda n: n / 100),
)
def test_results_get_the_trackers_identities_and_lose_only_what_is_unsure_and_unknown(frames, confidence):
    tracker = ByPosition()
    results = [result_of([[0, 20 * row, 10, 20 * row + 10] for row, _ in f], [s for _, s in f]) for f in frames]
    tracked = list(track(results, tracker, confidence=confidence))
    for before, after, (boxes, scores, classes) in zip(results, tracked, tracker.given, strict=True):
        np.testing.assert_array_equal(boxes, before.boxes)
        np.testing.assert_array_equal(scores, before.scores)
        np.testing.assert_array_equal(classes, before.classes)
        known = [int(y) // 20 if y < 100 else -1 for y in before.boxes[:, 1]]
        keep = [i >= 0 or s >= np.float32(confidence) for i, s in zip(known, before.scores, strict=True)]
        np.testing.assert_array_equal(after.boxes, before.boxes[np.array(keep, bool)])
        assert after.identities is not None and before.identities is None
        assert after.identities.tolist() == [i for i, kept in zip(known, keep, strict=True) if kept]


def test_a_film_is_taken_frame_by_frame():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield result_of([[0, 20, 10, 30]])

    tracked = track(endless(), ByPosition())
    assert taken == [] and [identities(next(tracked)) for _ in range(3)] == [[1]] * 3 and len(taken) == 3


def test_a_tracker_must_give_one_identity_for_each_detection():
    class Wrong:
        def update(self, boxes, scores, classes):
            return np.zeros(1, np.int64)

    with pytest.raises(ConfigError, match=r"shape \(1,\): it must give one for each of 2 rows"):
        identify(result_of([[0, 0, 10, 10], [20, 0, 30, 10]]), Wrong())


@pytest.mark.parametrize("hidden", ["trackers", "supervision"])
def test_without_the_extra_one_error_says_what_to_install(monkeypatch, hidden):
    for name in [name for name in sys.modules if name.partition(".")[0] == hidden]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)
    if hidden == "trackers":
        monkeypatch.setitem(sys.modules, "supervision", type(sys)("supervision"))
    with pytest.raises(ConfigError, match=f"needs the package {hidden}; install it with: pip install 'yolojax.video.'"):
        track([])


@pytest.mark.parametrize(
    "wrong",
    [{"confidence": 2.0}, {"frames_per_second": 0.0}, {"frames_per_second": float("nan")}, {"seconds_lost": -1.0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="give a confidence from 0 to 1"):
        byte_track(**wrong)


def test_identities_are_written_and_drawn():
    plain = result_of([[10, 10, 60, 60], [80, 10, 130, 60]], [0.9, 0.5], [0, 1])

    class SevenAndNone:
        def update(self, boxes, scores, classes):
            return np.array([7, -1])

    (tracked,) = track([plain], SevenAndNone())
    assert "identity" not in json.dumps(plain.as_dict())
    assert [d["identity"] for d in tracked.as_dict()["detections"]] == [7, None]
    assert [line.split()[6:] for line in tracked.to_yolo()] == [["7"], ["-1"]]
    assert [line.split()[:6] for line in tracked.to_yolo()] == [line.split() for line in plain.to_yolo()]
    # An object has a colour of its own; what is none has that of its class.
    drawn = draw_boxes(tracked.image, Objects(tracked.boxes, tracked.classes, identities=tracked.identities), NAMES)
    assert tuple(drawn[30, 10]) == class_colour(7) and tuple(drawn[30, 80]) == class_colour(1)


# What follows runs the tracker itself.


def paths(n_frames=30):
    """Boxes of three objects on each frame: one passes to the right, one to the left, one appears at half the time."""
    frames = []
    for t in range(n_frames):
        boxes: dict[str, tuple[float, float, float, float]] = {
            "right": (4 + 3 * t, 10, 24 + 3 * t, 30),
            "left": (130 - 3 * t, 50, 150 - 3 * t, 70),
        }
        if t >= n_frames // 2:
            boxes["new"] = (60, 88 - 0.5 * t, 80, 108 - 0.5 * t)
        frames.append(boxes)
    return frames


def identities_of(frames, tracked):
    """Identities in turn, by the name of the object on whose box a detection lies."""
    seen = {}
    for boxes, result in zip(frames, tracked, strict=True):
        for name, box in boxes.items():
            (row,) = np.flatnonzero(np.abs(result.boxes - np.array(box)).max(1) < 2)
            seen.setdefault(name, []).append(int(result.identities[row]))
    return seen


def check(seen):
    """No identity on an object's first frame, then one and the same, and another for each object."""
    assert all(found[0] == -1 and len(set(found[1:])) == 1 and found[1] >= 0 for found in seen.values()), seen
    assert len({found[-1] for found in seen.values()}) == len(seen)


def test_byte_track_keeps_identities_along_paths_that_cross():
    pytest.importorskip("trackers")
    frames = paths()
    turns = np.random.default_rng(0)
    shuffled = [[list(boxes.values())[i] for i in turns.permutation(len(boxes))] for boxes in frames]
    check(identities_of(frames, list(track([result_of(boxes) for boxes in shuffled]))))


def test_byte_track_follows_low_scores_waits_for_the_lost_and_begins_with_high_scores_only():
    pytest.importorskip("trackers")
    frames, results = paths(), []
    for t, boxes in enumerate(frames):
        scores = {"right": 0.12 if 8 <= t < 12 else 0.8, "left": 0.8, "new": 0.2}
        if 5 <= t < 10:
            del boxes["left"]
        results.append(result_of(list(boxes.values()), [scores[name] for name in boxes]))
    tracked = list(track(results))
    assert all(len(result) == len(boxes.keys() - {"new"}) for boxes, result in zip(frames, tracked, strict=True))
    for boxes in frames:
        boxes.pop("new", None)
    check(identities_of(frames, tracked))


def test_a_frame_without_detections_and_one_of_very_low_scores_only():
    pytest.importorskip("trackers")
    results = [result_of([]), result_of([[0, 0, 9, 9]], [0.05]), result_of([[0, 0, 9, 9]], [0.3]), result_of([])]
    assert [identities(r) for r in track(results)] == [[], [], [-1], []]
    assert [len(r) for r in track(results, confidence=0.01)] == [0, 1, 1, 0]
