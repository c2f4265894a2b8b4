"""The options of tiling, which ``predict``, ``val`` and ``data tile`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.tiling import Tiling


@dataclass(frozen=True)
class TilingOptions:
    """Tiles: large photos are cut into equal parts, so that small objects keep their pixels.

    Attributes:
      tile: cut photos into tiles of this side, in pixels of the photo, and put together what is found on them.
      overlap: least share of a tile's side that neighbours have in common; it should hold the objects that matter.
      whole: also detect on the whole photo, for objects that are larger than a tile.
    """

    tile: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: no tiles)")] = None
    overlap: float = 0.2
    whole: bool = False

    def settings(self) -> Tiling | None:
        """The tiling, None where there is none; raises `ConfigError` for options without ``--tile``."""
        if self.tile is None:
            if self != TilingOptions():
                raise ConfigError("--overlap and --whole say how to cut photos into tiles; give --tile as well")
            return None
        from yolojax.tiling import Tiling, check_tiling

        return check_tiling(Tiling(self.tile, self.overlap, self.whole))
