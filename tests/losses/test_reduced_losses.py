"""Composed losses refuse a box loss or class loss that takes a mean or a sum by itself, which would be broadcast."""

import jax
import jax.numpy as jnp
import pytest

from tests.losses import anchored_scene, distance_scene
from yolojax.errors import ConfigError
from yolojax.losses import (
    binary_cross_entropy,
    generalized_box_iou_loss,
    retinanet_loss,
    yolov3_loss,
    yolov5_loss,
    yolov8_loss,
    yolox_loss,
)
from yolojax.structures import Hyper


def anchored(loss, box_loss, class_loss, **options):
    maps, targets = anchored_scene.scene()
    levels, anchors = anchored_scene.LEVELS, jnp.asarray(anchored_scene.ANCHORS)
    return loss(maps, levels, anchors, targets, Hyper(), box_loss=box_loss, class_loss=class_loss, **options)


def yolov3(box_loss, class_loss):
    return anchored(yolov3_loss, lambda raw, boxes, *_: box_loss(boxes, boxes), class_loss)


def yolov5(box_loss, class_loss):
    return anchored(yolov5_loss, box_loss, class_loss, balance=(1.0, 1.0))


def yolox(box_loss, class_loss):
    (boxes, classes), targets = distance_scene.scene()
    raw, objectness = (tuple(level[..., part] for level in boxes) for part in (slice(0, 4), slice(4, 5)))
    levels, parts = distance_scene.LEVELS, {"box_loss": box_loss, "class_loss": class_loss}
    return yolox_loss(raw, objectness, classes, levels, targets, Hyper(), **parts)


def yolov8(box_loss, class_loss):
    (boxes, classes), targets = distance_scene.scene()
    return yolov8_loss(
        boxes, classes, distance_scene.LEVELS, targets, Hyper(), box_loss=box_loss, class_loss=class_loss
    )


def retinanet(box_loss, class_loss):
    _, targets = distance_scene.scene()
    logits, deltas = jnp.zeros((distance_scene.B, 6, distance_scene.C)), jnp.zeros((distance_scene.B, 6, 4))
    anchors = jnp.tile(jnp.array([[0.0, 0.0, 16.0, 16.0]]), (6, 1))
    return retinanet_loss(logits, deltas, anchors, targets, Hyper(), box_loss=box_loss, class_loss=class_loss)


@pytest.mark.parametrize("loss", [yolov3, yolov5, yolox, yolov8, retinanet])
def test_a_mean_or_a_sum_in_the_place_of_each_loss_is_named(loss):
    box, cls = generalized_box_iou_loss, binary_cross_entropy
    assert jax.eval_shape(lambda: loss(box, cls)).sums
    with pytest.raises(ConfigError, match=r"box_loss returns shape \[\], not \[3, \d+\]: .* without mean or sum"):
        jax.eval_shape(lambda: loss(lambda *boxes: box(*boxes).mean(), cls))
    with pytest.raises(ConfigError, match=r"class_loss returns shape \[3, \d+\], not \[3, \d+, \d\]"):
        jax.eval_shape(lambda: loss(box, lambda *scores: cls(*scores).sum(-1)))
