"""What decoders of queries predict, as their losses read it."""

from typing import NamedTuple

from jaxtyping import Array, Float

from yolojax.assign import DenoisingQueries


class QuerySet(NamedTuple):
    """Predictions of ``Q`` queries by each of ``L`` layers of a decoder.

    Attributes:
      logits: of the classes.
      boxes: ``(centre x, centre y, width, height)`` as fractions of the image.
      corners: logits of the distributions of the four sides, ``K`` bins each, where the detector has them.
      references: the boxes that the distributions refine.
      first_logits, first_boxes: what the first layer predicts by itself, where the detector learns from it.
    """

    logits: Float[Array, "B L Q C"]
    boxes: Float[Array, "B L Q 4"]
    corners: Float[Array, "B L Q K"] | None = None
    references: Float[Array, "B Q 4"] | None = None
    first_logits: Float[Array, "B Q C"] | None = None
    first_boxes: Float[Array, "B Q 4"] | None = None


class QueryOutputs(NamedTuple):
    """What a detector of queries returns.

    Attributes:
      queries: of the decoder.
      places: what the places predicted from which the queries come, as one layer; None where nobody learns from it.
      denoised: of the denoising queries; None at inference.
      denoising: the denoising queries themselves; None at inference.
      size: ``(width, height)`` of the input image in pixels, for every image of the batch.
    """

    queries: QuerySet
    places: QuerySet | None
    denoised: QuerySet | None
    denoising: DenoisingQueries | None
    size: Float[Array, "B 2"]
