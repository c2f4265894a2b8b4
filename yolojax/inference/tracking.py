"""Tracking: which detections on the frames of a film show the same object.

Detection comes first, frame by frame; a tracker then joins what was found to objects. The tracker is an argument. By
default it is ByteTrack (Zhang et al. 2022, https://arxiv.org/abs/2110.06864) as the package ``trackers`` implements it
(Apache-2.0, extra ``video``): boxes are predicted by a Kalman filter and matched by their IoU, first the sure
detections, then the unsure ones, which show objects that are half hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from yolojax.errors import ConfigError
from yolojax.inference.results import Result

LEAST_SCORE = 0.1
"""Score from which ByteTrack takes detections into account; those below it are mostly background (section 3)."""

NO_IDENTITY = -1


@runtime_checkable
class Tracker(Protocol):
    """Gives the objects of a film their identities, frame after frame. It keeps the state of one film."""

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], classes: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Takes the detections of the next frame, boxes as ``(x1, y1, x2, y2)`` in pixels.

        Returns the identity of each, from 0 on, no two the same; -1 for a detection that belongs to no object yet.
        """
        ...


def track(
    results: Iterable[Result],
    tracker: Tracker | None = None,
    *,
    confidence: float = 0.25,
    frames_per_second: float = 30.0,
) -> Iterator[Result]:
    """The results of a film with `Result.identities`.

    Args:
      results: of consecutive frames, taken one by one, so that a film may be endless. Detections of low scores help to
        follow an object that is half hidden: detect from a confidence of `LEAST_SCORE` on.
      tracker: its state is that of one film, so that each film needs one of its own; None takes `byte_track`.
      confidence: score from which a detection begins an object. Detections below it that belong to no object are
        left out of the results.
      frames_per_second: of the film; decides how many frames the default tracker waits for an object that is lost.

    Raises:
      ConfigError: without a tracker, where the package ``trackers`` is not installed; see also `byte_track`.

    Example:
      >>> video = Video(Path("film.mp4"))
      >>> frames = (frame.image for frame in video)
      >>> for result in track(predictor.many(frames, confidence=0.1), frames_per_second=video.frames_per_second):
      ...     print(result.identities, result.boxes)
    """
    if tracker is None:  # outside the generator, so that a missing package is told at once
        tracker = byte_track(confidence=confidence, frames_per_second=frames_per_second)
    return (identify(result, tracker, confidence=confidence) for result in results)


def identify(result: Result, tracker: Tracker, *, confidence: float = 0.25) -> Result:
    """One step of `track`: the result of the next frame with identities. It changes the state of the tracker only."""
    identities = np.asarray(tracker.update(result.boxes, result.scores, result.classes), np.int64)
    if identities.shape != result.scores.shape:
        raise ConfigError(
            f"the tracker gave identities of shape {identities.shape}: it must give one for each of {len(result)} rows"
        )
    keep = (identities >= 0) | (result.scores >= confidence)
    return replace(
        result,
        boxes=result.boxes[keep],
        scores=result.scores[keep],
        classes=result.classes[keep],
        identities=np.maximum(identities[keep], NO_IDENTITY),
    )


def byte_track(*, confidence: float = 0.25, frames_per_second: float = 30.0, seconds_lost: float = 1.0) -> Tracker:
    """ByteTrack. It tells an object from its second frame on, and does not look at classes, which may flicker.

    Args:
      confidence: score from which a detection is sure: it is matched first, and begins an object.
      frames_per_second: of the frames that are given to it.
      seconds_lost: for how long an object that is not found keeps its identity.

    Raises:
      ConfigError: the package ``trackers`` is not installed, or a number is out of range.
    """
    if not (0 <= confidence <= 1 and 0 < frames_per_second < float("inf") and 0 <= seconds_lost < float("inf")):
        raise ConfigError(
            f"byte_track(confidence={confidence}, frames_per_second={frames_per_second}, seconds_lost={seconds_lost}): "
            "give a confidence from 0 to 1, frames per second above 0 and seconds of at least 0"
        )
    return _ByteTrack(confidence, frames_per_second, seconds_lost)


class _ByteTrack:
    def __init__(self, confidence: float, frames_per_second: float, seconds_lost: float) -> None:
        try:
            import supervision  # pyright: ignore[reportMissingImports]
            from trackers import ByteTrackTracker  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"tracking needs the package {error.name or 'trackers'}; install it with: pip install 'yolojax[video]'"
            ) from None
        except ImportError as error:
            raise ConfigError(f"tracking: the package trackers cannot be loaded ({error}); install it anew") from None
        self._detections: Any = supervision.Detections
        self._tracker: Any = ByteTrackTracker(
            lost_track_buffer=round(30 * seconds_lost),  # in frames of a film of 30 a second, whatever this one's rate
            frame_rate=frames_per_second,
            track_activation_threshold=confidence,
            high_conf_det_threshold=confidence,
        )

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], classes: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        identities = np.full(len(scores), NO_IDENTITY, np.int64)
        rows = np.flatnonzero(scores >= LEAST_SCORE)
        # The tracker gives its rows in another order; `rows` travels with them.
        given = self._detections(
            xyxy=boxes[rows].astype(np.float64), confidence=scores[rows].astype(np.float64), data={"row": rows}
        )
        found = self._tracker.update(given)
        if len(found):
            identities[np.asarray(found.data["row"])] = found.tracker_id
        return identities
