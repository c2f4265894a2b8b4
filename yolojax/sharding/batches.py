"""Batches that are split over devices: how, and a detector that then communicates as little as can be."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.detector import Detector, Outputs, Variables
from yolojax.image_wise import by_image, split_over
from yolojax.structures import Hyper, LossTerms, Targets


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


def on_split_batches(detector: Detector, split: NamedSharding) -> Detector:
    """Returns a detector that trains on batches which lie on devices so. The numbers are the same.

    Its loss, assignment included, communicates nothing, nor does what the network itself calls `image_wise`.
    """
    if split.mesh.size == 1:
        return detector

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        with split_over(split):
            return detector.forward_train(variables, images, targets, key)

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

    return detector._replace(forward_train=forward_train, loss=loss)
