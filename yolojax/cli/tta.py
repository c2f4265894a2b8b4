"""The options of suppression and of test-time augmentation, which ``predict`` and ``val`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.inference.tta import TTA


@dataclass(frozen=True)
class TTAOptions:
    """Test-time augmentation: the detector is applied to each image several times.

    Attributes:
      tta: apply the detector to each image at several sizes and mirrored, and combine the results; takes as many times
        longer.
      tta_scales: sizes, as multiples of the detector's own; each is rounded to what its strides divide.
      tta_flip: also apply it to each size mirrored left to right.
      tta_fusion: how the results are combined: suppress, one suppression (see --suppress) over all of them; wbf, the
        average of boxes that overlap, with a score that counts how many augmentations agree.
    """

    tta: bool = False
    tta_scales: Annotated[tuple[float, ...], arg(metavar="SCALE ...")] = (0.8, 1.0, 1.2)
    tta_flip: Literal["yes", "no"] = "yes"
    tta_fusion: Literal["suppress", "wbf"] = "suppress"

    def settings(self) -> TTA | None:
        """The augmentations, None where there are none; raises `ConfigError` for options without ``--tta``."""
        if not self.tta:
            if self != TTAOptions():
                raise ConfigError("--tta-scales, --tta-flip and --tta-fusion say how to augment; give --tta as well")
            return None
        from yolojax.inference.tta import TTA

        return TTA(self.tta_scales, self.tta_flip == "yes", self.tta_fusion)
