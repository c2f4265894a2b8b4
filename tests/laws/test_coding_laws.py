"""Laws of the box coders."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.coding import (
    boxes_to_distances,
    decode,
    decode_yolov1,
    decode_yolov5,
    decode_yolox,
    dfl_expectation,
    distances_to_boxes,
    encode,
    encode_yolov1,
    encode_yolov5,
    encode_yolox,
)

fast = settings(max_examples=40, deadline=None)
unit = st.floats(0, 1, width=32)
log_side = st.floats(float(np.log(2)), float(np.log(640)))
log_ratio = st.floats(float(np.log(0.1)), float(np.log(3.9)))
CODERS = {
    "yolov1": (
        lambda b, c, s, a: encode_yolov1(b, c, s, (448, 448)),
        lambda r, c, s, a: decode_yolov1(r, c, s, (448, 448)),
    ),
    "yolov3": (encode, decode),
    "yolov4": (lambda *a: encode(*a, scale_x_y=1.2), lambda *a: decode(*a, scale_x_y=1.2)),
    "yolov5": (encode_yolov5, decode_yolov5),
    "yolox": (lambda b, c, s, a: encode_yolox(b, c, s), lambda r, c, s, a: decode_yolox(r, c, s)),
}


@jax.jit
def round_trips(box, cell, stride, anchor):
    return {name: dec(enc(box, cell, stride, anchor), cell, stride, anchor) for name, (enc, dec) in CODERS.items()}


@jax.jit
def moved_decodes(raw, cell, stride, anchor, cells_moved):
    """Decoded in a cell, and decoded in another cell and moved back."""
    shift = jnp.tile(cells_moved, 2)[None] * stride[:, None]
    return {
        name: (dec(raw, cell, stride, anchor), dec(raw, cell + cells_moved[None], stride, anchor) - shift)
        for name, (_, dec) in CODERS.items()
    }


def row(*values):
    return jnp.asarray([values], jnp.float32)


@fast
@given(
    offset=st.tuples(unit, unit),
    cell=st.tuples(st.integers(0, 19), st.integers(0, 19)),
    side=st.tuples(log_side, log_side),
    ratio=st.tuples(log_ratio, log_ratio),
    stride=st.sampled_from([8.0, 16.0, 32.0]),
)
def test_decode_inverts_encode(offset, cell, side, ratio, stride):
    centre, side = (np.array(cell) + offset) * stride, np.exp(side)
    box = row(*(centre - side / 2), *(centre + side / 2))
    again = round_trips(box, row(*cell), jnp.array([stride]), row(*(side / np.exp(ratio))))
    for name, got in again.items():
        assert jnp.abs(got - box).max() < 1e-3, name


@fast
@given(
    raw=st.lists(st.floats(-8, 8, width=32), min_size=4, max_size=4),
    cell=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    moved=st.tuples(st.integers(0, 10), st.integers(0, 10)),
)
def test_a_prediction_moves_with_its_cell(raw, cell, moved):
    got = moved_decodes(row(*raw), row(*cell), jnp.array([16.0]), row(12.0, 20.0), row(*moved)[0])
    for name, (here, there) in got.items():
        # Sides reach 20 * e^8 pixels, where float32 steps by 0.004.
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=2e-3, err_msg=name)


distances_and_back = jax.jit(lambda p, d: boxes_to_distances(p, distances_to_boxes(p, d)))


@fast
@given(
    point=st.tuples(st.floats(0, 640, width=32), st.floats(0, 640, width=32)),
    sides=st.lists(st.floats(-50, 600, width=32), min_size=4, max_size=4),
)
def test_distances_return(point, sides):
    np.testing.assert_allclose(distances_and_back(row(*point), row(*sides)), [sides], atol=2e-4)


expectation = jax.jit(dfl_expectation)


@fast
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=16, max_size=16),
    shift=st.floats(-100, 100, width=32),
)
def test_expectation_lies_among_the_bins_and_mirrors(logits, shift):
    x = row(*logits)
    got = float(expectation(x)[0])
    assert 0 <= got <= 15.0001
    np.testing.assert_allclose(expectation(x[:, ::-1])[0], 15 - got, atol=1e-4)
    # The softmax ignores a common shift, as far as the sum x + shift is exact.
    x = jnp.round(x)
    np.testing.assert_allclose(expectation(x + jnp.round(shift)), expectation(x), atol=1e-5)
