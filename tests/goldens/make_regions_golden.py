"""Writes regions_torchvision.npz: parts of torchvision's two-stage detectors and RetinaNet, and two small networks.

Run with an environment that holds torch and torchvision: ``python tests/goldens/make_regions_golden.py``. The networks
have weights that `seeded` makes, here and in the tests; the file holds what torchvision computes with them.
"""

import pathlib

import numpy as np
import torch
import torchvision
from seeded_regions import BOXES, LABELS, SIZE, images, seeded
from torchvision import ops
from torchvision.models.detection import FasterRCNN, RetinaNet, _utils, fasterrcnn_resnet50_fpn, rpn
from torchvision.models.detection import retinanet as retina
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


def fill(model: torch.nn.Module, network: str) -> torch.nn.Module:
    state = model.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = torch.from_numpy(seeded(name, tuple(value.shape), network))
    model.load_state_dict(state)
    return model


def some_boxes(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    corners = np.sort(rng.uniform(low, high, (n, 2, 2)), axis=1)
    return corners.reshape(n, 4).astype(np.float32)


def pooling(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One level and several, boxes inside, across and beyond the border, and without area."""
    found: dict[str, np.ndarray] = {}
    maps = [rng.normal(0, 1, (2, 3, h, w)).astype(np.float32) for h, w in ((24, 32), (12, 16), (6, 8))]
    boxes = np.stack(
        [np.concatenate([some_boxes(rng, 12, -20, 140), [[5, 5, 5, 5], [30, 20, 30.5, 21], [200, 200, 300, 300]]])] * 2
    ).astype(np.float32)
    boxes[1] = boxes[1, ::-1] + np.float32(3.25)
    found["pool_boxes"] = boxes
    for i, level in enumerate(maps):
        found[f"pool_map{i}"] = level.transpose(0, 2, 3, 1)
    rows = [torch.from_numpy(one) for one in boxes]
    for aligned in (False, True):
        for ratio in (1, 2, 3):
            features = torch.from_numpy(maps[0]).requires_grad_()
            pooled = ops.roi_align(features, rows, (3, 3), 0.25, ratio, aligned)
            weights = torch.from_numpy(np.cos(np.arange(pooled.numel())).reshape(pooled.shape).astype(np.float32))
            (pooled * weights).sum().backward()
            key = f"pool_{'aligned' if aligned else 'plain'}{ratio}"
            found[key] = pooled.detach().numpy().transpose(0, 2, 3, 1).reshape(2, 15, 3, 3, 3)
            assert features.grad is not None
            found[f"{key}_gradient"] = features.grad.numpy().transpose(0, 2, 3, 1)
    several = ops.MultiScaleRoIAlign(["0", "1", "2"], 3, 2, canonical_scale=56)
    by_name = {str(i): torch.from_numpy(level) for i, level in enumerate(maps)}
    pooled = several(by_name, rows, [(96, 128)] * 2)
    found["pool_pyramid"] = pooled.numpy().transpose(0, 2, 3, 1).reshape(2, 15, 3, 3, 3)
    return found


def first_stage(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Anchors, box coder and proposals. The image is 101 x 128 pixels, so that strides are rounded down."""
    sizes, grids = ((16,), (32, 50)), ((13, 16), (7, 8))
    generator = rpn.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2)
    images = ImageList(torch.zeros(1, 3, 101, 128), [(101, 128)])
    anchors = generator(images, [torch.zeros(1, 1, *grid) for grid in grids])[0].numpy()
    deltas = rng.normal(0, 0.6, anchors.shape).astype(np.float32)
    deltas[::7, 2:] *= 8
    coder = _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    decoded = coder.decode_single(torch.from_numpy(deltas), torch.from_numpy(anchors))
    targets = some_boxes(rng, len(anchors), 0, 128) + np.array([0, 0, 1, 1], np.float32)
    encoded = coder.encode_single(torch.from_numpy(targets), torch.from_numpy(anchors))
    network = rpn.RegionProposalNetwork(
        generator,
        torch.nn.Identity(),
        0.7,
        0.3,
        8,
        0.5,
        {"training": 60, "testing": 60},
        {"training": 50, "testing": 50},
        0.6,
    ).eval()
    objectness = rng.normal(0, 2, len(anchors)).astype(np.float32)
    first = 13 * 16 * 3
    boxes = _utils.BoxCoder((1.0, 1.0, 1.0, 1.0)).decode_single(torch.from_numpy(deltas / 4), torch.from_numpy(anchors))
    chosen, _ = network.filter_proposals(
        boxes[None], torch.from_numpy(objectness)[None, :, None], [(101, 128)], [first, len(anchors) - first]
    )
    return {
        "anchors": anchors,
        "deltas": deltas,
        "decoded": decoded.numpy(),
        "encode_boxes": targets,
        "encoded": encoded.numpy(),
        "objectness": objectness,
        "proposals": chosen[0].numpy(),
    }


def matching(rng: np.random.Generator) -> dict[str, np.ndarray]:
    objects, boxes = some_boxes(rng, 6, 0, 100), some_boxes(rng, 200, 0, 100)
    boxes[:60] = objects[rng.integers(0, 5, 60)] + rng.normal(0, 4, (60, 4)).astype(np.float32)
    overlap = ops.box_iou(torch.from_numpy(objects), torch.from_numpy(boxes))
    found = {"match_objects": objects, "match_boxes": boxes}
    for name, high, low, best in (("rpn", 0.7, 0.3, True), ("roi", 0.5, 0.5, False), ("retina", 0.5, 0.4, True)):
        found[f"match_{name}"] = _utils.Matcher(high, low, best)(overlap).numpy()
    return found


def scene() -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    targets = [
        {"boxes": torch.tensor(own, dtype=torch.float32), "labels": torch.tensor(labels)}
        for own, labels in zip(BOXES, LABELS, strict=True)
    ]
    return [torch.from_numpy(image) for image in images()], targets


def backbone(levels: list[int], extra: LastLevelP6P7 | None = None) -> torch.nn.Module:
    return resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=ops.FrozenBatchNorm2d,
        returned_layers=levels,
        extra_blocks=extra,
    )


def networks() -> dict[str, np.ndarray]:
    """Networks of ResNet-18 in inference and in training. Samples are so large that nothing is left to chance."""
    pictures, targets = scene()
    same = {"min_size": SIZE[0], "max_size": SIZE[1]}
    found: dict[str, np.ndarray] = {}
    faster = FasterRCNN(
        backbone([1, 2, 3, 4]),
        5,
        rpn_anchor_generator=rpn.AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n_test=60,
        rpn_pre_nms_top_n_train=60,
        rpn_post_nms_top_n_train=60,
        rpn_batch_size_per_image=100_000,
        box_batch_size_per_image=100_000,
        **same,
    )
    sides = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (8, 16, 32, 64, 128))
    anchors = rpn.AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5)
    second = RetinaNet(
        backbone([2, 3, 4], LastLevelP6P7(512, 256)),
        5,
        anchor_generator=anchors,
        head=retina.RetinaNetHead(256, 9, 5, norm_layer=lambda width: torch.nn.GroupNorm(32, width)),
        **same,
    )
    second.head.regression_head._loss_type = "giou"
    first = RetinaNet(backbone([2, 3, 4], LastLevelP6P7(256, 256)), 5, anchor_generator=anchors, **same)
    for name, model in (("faster", faster), ("retina2", second), ("retina1", first)):
        fill(model, name)
        with torch.no_grad():
            losses = model.train()(pictures, [dict(one) for one in targets])
            for part, value in losses.items():
                found[f"{name}_{part}"] = value.numpy()
            detections = model.eval()(pictures)
        for i, one in enumerate(detections):
            for key, value in one.items():
                found[f"{name}_{key}{i}"] = value.numpy()
        found[f"{name}_names"] = np.array([f"{n} {list(v.shape)}" for n, v in model.state_dict().items()])
    return found


def main() -> None:
    rng = np.random.default_rng(0)
    found = {**pooling(rng), **first_stage(rng), **matching(rng), **networks()}
    found["versions"] = np.array([f"torch {torch.__version__}", f"torchvision {torchvision.__version__}"])
    np.savez_compressed(pathlib.Path(__file__).parent / "regions_torchvision.npz", **found)
    for name, value in found.items():
        print(name, value.shape, value if value.ndim == 0 else "")
    whole = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    print(sum(p.numel() for p in whole.parameters()))


if __name__ == "__main__":
    main()
