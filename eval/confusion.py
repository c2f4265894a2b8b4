"""The confusion matrix of detections: which class is detected as which.

Rule, at an IoU of at least .5 and a confidence of at least .25 unless chosen otherwise:

1. Detections are matched to objects of their own class, greedily by falling score: COCO's rule (`match_detections`). So
   the diagonal holds exactly the true positives of the reported precision and recall.
2. Detections left over take, by falling score, the free object of *another* class that they overlap most (of equal
   overlaps the last listed): confusions.
3. Objects left over are missed. Detections left over are false positives on background, unless they lie in a crowd
   region of their class: those are not counted.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from yolojax.eval.inputs import GroundTruth, ScoredBoxes
from yolojax.eval.matching import Matches, match_detections, take_greedily
from yolojax.eval.pairs import overlapping_pairs


@dataclass(frozen=True)
class ConfusionMatrix:
    """``counts[object's class, predicted class]``, with ``L`` one more than there are classes.

    The last column holds missed objects, the last row detections of background. So rows sum to the objects of each
    class (without crowd regions), columns to its detections, and the corner, background as background, is 0.
    """

    names: tuple[str, ...]
    counts: Int64[np.ndarray, "L L"]
    iou: float
    confidence: float

    def shares(self) -> dict[tuple[str, str], float]:
        """Share of the first class's objects that were taken for the second, for pairs where that happened."""
        c = len(self.names)
        objects = self.counts[:c].sum(axis=1)
        return {
            (self.names[a], self.names[b]): float(self.counts[a, b] / objects[a])
            for a, b in zip(*np.nonzero(self.counts[:c, :c]), strict=True)
            if a != b
        }


def confusion_matrix(
    truth: GroundTruth,
    detections: ScoredBoxes,
    *,
    iou: float = 0.5,
    confidence: float = 0.25,
    matches: Matches | None = None,
) -> ConfusionMatrix:
    """The confusion matrix after the rule above; ``matches`` are those at ``iou``, where they are at hand."""
    c = len(truth.category_ids)
    matches = matches or match_detections(truth, detections, iou)
    counted = (detections.scores >= confidence) & ~matches.ignored
    # Matches of the detections that score higher do not depend on the rest, so those below the threshold are just cut.
    object_of = np.where(counted, matches.object_of, -1)
    free = ~truth.crowd
    free[object_of[object_of >= 0]] = False
    rest = np.flatnonzero(counted & (object_of < 0))
    pairs = overlapping_pairs(
        truth,
        detections,
        iou,
        same_class=False,
        detections=rest,
        objects=np.flatnonzero(free),
        crowd_as_regions=False,
    )
    other = truth.categories[pairs.objects] != detections.categories[pairs.detections]
    taken = ~free
    take_greedily(pairs, other, taken, object_of)
    free = ~taken & ~truth.crowd
    actual = np.where(object_of >= 0, np.append(truth.categories, c)[object_of], c)
    counts = np.zeros((c + 1, c + 1), np.int64)
    np.add.at(counts, (actual[counted], detections.categories[counted]), 1)
    np.add.at(counts, (truth.categories[free], np.full(int(free.sum()), c)), 1)
    return ConfusionMatrix(truth.category_names, counts, iou, confidence)
