"""`ratio_assign` against a loop over objects, levels, anchors and cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import ratio_assign
from yolojax.structures import Level, Targets

LEVELS = (Level(5, 6, 8), Level(3, 3, 16))
ANCHORS = np.array([[[6, 6], [10, 14]], [[24, 20], [40, 44]]], np.float32)
B, M, C = 3, 7, 3
N = sum(v.h * v.w for v in LEVELS) * 2

assign = jax.jit(lambda targets: ratio_assign(targets, LEVELS, jnp.asarray(ANCHORS)))


def oracle(targets, lab):
    owner = np.full((B, N), -1)
    for b in range(B):
        proposals = [[] for _ in range(N)]
        for m in lab.real(targets, b):
            box = targets.boxes[b, m].astype(np.float64)
            w, h, cx, cy = box[2] - box[0], box[3] - box[1], (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            start = 0
            for level, (rows, columns, stride) in enumerate(LEVELS):
                gx, gy = cx / stride, cy / stride
                x, y = int(np.clip(np.floor(gx), 0, columns - 1)), int(np.clip(np.floor(gy), 0, rows - 1))
                cells = [(y, x), (y, x - 1 if gx - x < 0.5 else x + 1), (y - 1 if gy - y < 0.5 else y + 1, x)]
                for a, (aw, ah) in enumerate(ANCHORS[level].astype(np.float64)):
                    if max(w / aw, aw / w, h / ah, ah / h) < 4:
                        for rank, (r, c) in enumerate(cells):
                            if 0 <= r < rows and 0 <= c < columns:
                                proposals[start + (r * columns + c) * 2 + a].append(
                                    (rank > 0, lab.content(targets, b, m), m)
                                )
                start += rows * columns * 2
        for n, rivals in enumerate(proposals):
            if rivals:
                owner[b, n] = min(rivals)[-1]
    return owner


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_loop(case, seed, lab):
    targets = lab.scene(np.random.default_rng(seed), case, B, M, C, (40, 48))
    owner = oracle(targets, lab)
    lab.same(assign(targets), owner, owner >= 0, targets)
    assert (owner >= 0).any() == (case != "none") and (owner[-1] < 0).all()


def test_order_and_padding_do_not_matter(case, lab):
    lab.unmoved_by_order(assign, lab.scene(np.random.default_rng(9), case, B, M, C, (40, 48)))


def test_neighbours_by_hand():
    """A 10 x 14 box with its centre in the lower left quarter of cell (row 2, column 3) of the first level."""
    box = np.array([[[26 - 5, 22 - 7, 26 + 5, 22 + 7]]], np.float32)
    targets = Targets(
        box, np.zeros((1, 1), np.int32), np.ones((1, 1), bool), np.zeros((1, 1), bool), np.zeros(1, np.int32)
    )
    fine = np.asarray(assign(targets).positive)[0, : 5 * 6 * 2].reshape(5, 6, 2)
    assert set(map(tuple, np.argwhere(fine[..., 1]))) == {(2, 3), (2, 2), (3, 3)}
