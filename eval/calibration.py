"""Do scores mean what they say: of the detections with a score near .7, are seven in ten true positives?

C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 2 to 5, with true positives at IoU .5 in
place of right answers, as in F. Kueppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR
Workshops 2020 (arXiv 2004.13546), without its dependence on position.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from yolojax.eval.inputs import ScoredBoxes
from yolojax.eval.matching import Matches


@dataclass(frozen=True)
class Calibration:
    """Detections by score, in bins of equal width over 0..1 (what lies outside falls into the end bins).

    Attributes:
      edges: of the bins; a score on an edge belongs to the bin above it.
      true, false: true and false positives at the IoU of the matching; what lies in crowd regions is neither.
      mean_score: of each bin, NaN where it is empty.
      error: the expected calibration error, the mean over detections of ``|mean score - share of true positives|`` of
        their bin; None without detections.
    """

    edges: Float64[np.ndarray, " B1"]
    true: Int64[np.ndarray, " B"]
    false: Int64[np.ndarray, " B"]
    mean_score: Float64[np.ndarray, " B"]
    error: float | None

    @property
    def precision(self) -> Float64[np.ndarray, " B"]:
        """Share of true positives in each bin, NaN where it is empty."""
        total = self.true + self.false
        return np.divide(self.true, total, out=np.full(len(total), np.nan), where=total > 0)


def calibration(detections: ScoredBoxes, matches: Matches, *, bins: int = 20) -> Calibration:
    """Scores against truth, over all classes together."""
    counted = ~matches.ignored
    scores, hits = detections.scores[counted], matches.object_of[counted] >= 0
    which = np.clip(np.floor(scores * bins), 0, bins - 1).astype(np.int64)
    true = np.bincount(which[hits], minlength=bins)
    total = np.bincount(which, minlength=bins)
    summed = np.bincount(which, weights=scores, minlength=bins)
    mean = np.divide(summed, total, out=np.full(bins, np.nan), where=total > 0)
    error = float(np.abs(summed - true).sum() / len(scores)) if len(scores) else None
    return Calibration(np.linspace(0.0, 1.0, bins + 1), true, total - true, mean, error)
