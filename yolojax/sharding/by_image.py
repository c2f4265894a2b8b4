"""Functions that treat every image by itself, run without communication where a batch is split over devices.

XLA's partitioner does not see that top-k, scatters and loops over a batch touch one image at a time. It collects the
whole batch on every device first (for `lax.top_k` and scatters) or synchronises every round (for a vmapped loop). A
loss gives sums per image (`LossTerms`), and suppression treats images one by one, so both may run inside
`jax.shard_map`, where each device sees its own images only.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolojax.detector import Detector, Outputs
from yolojax.structures import Hyper, LossTerms, Targets


def by_image(function: Callable[..., Any], split: NamedSharding, *, shared: int = 0) -> Callable[..., Any]:
    """Returns the same function, run by each device on its own images.

    Args:
      function: of pytrees with a leading batch axis, to pytrees with one; no image may influence another.
      split: how a batch lies on the devices.
      shared: how many of the last arguments belong to no image and are the same for all.
    """
    rows, whole = split.spec, PartitionSpec()

    def split_up(*arguments: Any) -> Any:
        specs = (rows,) * (len(arguments) - shared) + (whole,) * shared
        # The check of what varies between devices is off, because loops that begin with a constant would fail it.
        return jax.shard_map(function, mesh=split.mesh, in_specs=specs, out_specs=rows, check_vma=False)(*arguments)

    return split_up


def split_over_devices(batch_size: int) -> NamedSharding | None:
    """Returns how this process's devices share a batch; None for one device, or where they cannot share it equally."""
    devices = jax.local_devices()
    if len(devices) == 1 or batch_size % len(devices):
        return None
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec("data"))


def on_all_devices(variables: Any, split: NamedSharding) -> Any:
    """Copies these arrays to every device of ``split``, once and not for each batch."""
    return jax.device_put(variables, NamedSharding(split.mesh, PartitionSpec()))


def with_loss_by_image(detector: Detector, split: NamedSharding) -> Detector:
    """Returns a detector whose loss, assignment included, communicates nothing. The numbers are the same."""
    if split.mesh.size == 1:
        return detector

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        divisor_of: dict[str, int] = {}

        def terms_of(outputs: Outputs, targets: Targets, hyper: Hyper) -> tuple:
            terms = detector.loss(outputs, targets, hyper)
            # Parts of a loss that share a divisor must go on sharing it: accumulation counts the different ones.
            divisors: list[jax.Array] = []
            for name, divisor in terms.normalisers.items():
                known = [i for i, other in enumerate(divisors) if other is divisor]
                divisor_of[name] = known[0] if known else len(divisors)
                divisors += [] if known else [divisor]
            return terms.sums, divisors, terms.counts

        sums, divisors, counts = by_image(terms_of, split, shared=1)(outputs, targets, hyper)
        return LossTerms(sums, {name: divisors[i] for name, i in divisor_of.items()}, counts)

    return detector._replace(loss=loss)
