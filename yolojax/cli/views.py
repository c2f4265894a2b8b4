"""The options of test-time augmentation, which ``predict`` and ``val`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.inference.tta import TTA


@dataclass(frozen=True)
class Views:
    """Test-time augmentation: the detector looks at each image several times.

    Attributes:
      tta: look at each image several times and make one of what is found; takes as many times longer.
      tta_scales: sizes to look at, as multiples of the detector's own; each is rounded to what its strides divide.
      tta_flip: also look at each size mirrored left to right.
      tta_fusion: how the finds become one: nms, the best box of those that overlap; soft, the others stay with lower
        scores; wbf, their average, with a score that counts how many looks agree.
    """

    tta: bool = False
    tta_scales: Annotated[tuple[float, ...], arg(metavar="SCALE ...")] = (0.8, 1.0, 1.2)
    tta_flip: Literal["yes", "no"] = "yes"
    tta_fusion: Literal["nms", "soft", "wbf"] = "nms"

    def settings(self) -> TTA | None:
        """The views, None where each image is looked at once; raises `ConfigError` for options without ``--tta``."""
        if not self.tta:
            if self != Views():
                raise ConfigError("--tta-scales, --tta-flip and --tta-fusion say how to augment; give --tta as well")
            return None
        from yolojax.inference.tta import TTA

        return TTA(self.tta_scales, self.tta_flip == "yes", self.tta_fusion)
