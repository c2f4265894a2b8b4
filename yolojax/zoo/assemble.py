"""From a network and its head's loss and decoder to the record that engines use."""

from collections.abc import Callable
from dataclasses import replace

from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.detector import Decode, Detector, DetectorSpec, Loss, Outputs, Variables
from yolojax.errors import ConfigError
from yolojax.models.fold import fold_batch_norm
from yolojax.models.layers import Style
from yolojax.models.network import Network, init_variables
from yolojax.structures import Targets


def check_input_size(input_size: tuple[int, int], largest_stride: int) -> None:
    """Raises `ConfigError` unless both sides are positive multiples of the largest stride."""
    if min(input_size) < largest_stride or any(side % largest_stride for side in input_size):
        raise ConfigError(
            f"input_size {input_size}: both sides must be multiples of the largest stride, {largest_stride}"
        )


def assemble(
    spec: DetectorSpec, make_network: Callable[[Style], Network], style: Style, loss: Loss, decode: Decode
) -> Detector:
    """A detector around the network that ``make_network(style)`` builds."""
    network = make_network(style)

    def init(key: PRNGKeyArray) -> Variables:
        return init_variables(network, key, spec.input_size)

    def forward(variables: Variables, images: Float[Array, "B H W 3"]) -> Outputs:
        return network.apply(variables, images, train=False)

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        if style.folded:
            raise ConfigError("a folded detector is for inference; train the one it was folded from")
        outputs, new_state = network.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        return outputs, dict(new_state)

    def fold(variables: Variables) -> tuple[Detector, Variables]:
        if style.folded:
            return detector, variables
        folded = assemble(spec, make_network, replace(style, folded=True), loss, decode)
        return folded, fold_batch_norm(variables, style.epsilon)

    detector = Detector(spec, init, forward, forward_train, loss, decode, fold)
    return detector
