"""Ensembles: mapped members are the members one by one, and the spread is that of their boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.inference.test_tta import cell_detector
from yolojax.detect import detect
from yolojax.errors import ConfigError
from yolojax.inference.ensemble import EnsembleDetections, box_uncertainty, detect_ensemble, fuse_members, stack_members
from yolojax.structures import Candidates, Detections

K = 30


def shifted_cells():
    """`cell_detector` with a parameter: how far its boxes lie to the right."""
    plain = cell_detector()

    def forward(variables, images):
        return plain.forward({}, images), variables["params"]["shift"]

    def decode(outputs):
        boxes, scores = plain.decode(outputs[0])
        return Candidates(boxes + outputs[1] * jnp.array([[[1.0, 0, 1, 0]]]), scores)

    detector = plain._replace(forward=forward, decode=decode, fold=lambda variables: variables)
    return detector


@pytest.mark.slow  # tens of seconds of tracing
def test_mapped_members_are_the_members_one_by_one():
    detector = shifted_cells()
    members = [{"params": {"shift": jnp.float32(x)}} for x in (0.0, 0.5, 1.5)]
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8))
    found = jax.jit(lambda m, x: detect_ensemble(detector, m, x, 0.5, 0.4, max_detections=K))(
        stack_members(members), images
    )
    alone = jax.jit(lambda m, x: detect(detector, m, x, 0.5, 0.4, max_detections=K))
    own = stack_members([alone(m, images)._asdict() for m in members])
    apart = jax.jit(lambda own: fuse_members(own, 0.5, max_detections=K))(Detections(**own))
    assert (found.detections.valid.sum(1) > 10).all()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(apart), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # All agree but for where the boxes lie: .7637626 is the standard deviation of 0, .5 and 1.5.
    together = np.asarray(found.agree) == 3
    spread = np.asarray(found.spread)[together]
    assert together.sum() > 10
    np.testing.assert_allclose(np.median(spread, axis=0), [0.7637626, 0, 0.7637626, 0], atol=1e-3)


def by_hand() -> EnsembleDetections:
    """Three members; two see the object of class 0, one sees another, one something of class 1 in the same place."""
    boxes, scores = np.zeros((3, 1, 2, 4), np.float32), np.zeros((3, 1, 2), np.float32)
    classes, valid = np.zeros((3, 1, 2), np.int32), np.zeros((3, 1, 2), bool)
    rows = [(0, 0, (0, 0, 10, 10), 0.8, 0), (1, 0, (2, 0, 12, 10), 0.8, 0), (1, 1, (40, 40, 60, 60), 0.6, 0)]
    rows += [(2, 0, (1, 0, 11, 10), 0.3, 1)]
    for member, row, box, score, label in rows:
        boxes[member, 0, row], scores[member, 0, row], classes[member, 0, row] = box, score, label
        valid[member, 0, row] = True
    zero = jnp.zeros((3, 1), jnp.int32)
    own = Detections(*map(jnp.asarray, (boxes, scores, classes, valid)), zero, zero)
    return jax.jit(lambda own: fuse_members(own, 0.05, max_detections=4))(own)


def test_spread_by_hand():
    found = by_hand()
    np.testing.assert_array_equal(found.detections.classes, [[0, 0, 1, -1]])
    np.testing.assert_allclose(found.detections.scores, [[0.8 * 2 / 3, 0.6 / 3, 0.3 / 3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(found.agree, [[2, 1, 1, 0]])
    np.testing.assert_allclose(found.spread[0, 0], [2**0.5, 0, 2**0.5, 0], rtol=1e-6)  # of 0 and 2
    assert not found.spread[0, 1:].any()
    np.testing.assert_allclose(box_uncertainty(found), [[2**0.5 / 2 / 10, 0, 0, 0]], rtol=1e-6)


def test_members_must_be_of_one_architecture():
    with pytest.raises(ConfigError, match="at least one member"):
        stack_members([])
    with pytest.raises(ConfigError, match="member 1 has other arrays"):
        stack_members([{"a": jnp.zeros(2)}, {"a": jnp.zeros(3)}])
