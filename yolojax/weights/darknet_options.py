"""Reading the options of one section, strictly: every key is known, every value is of its kind and in its range."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import TypeVar

from yolojax.errors import ConfigError
from yolojax.weights.darknet_text import Section, shown

Number = TypeVar("Number", int, float)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LAYER_TRAINING = _words(
    "stopbackward onlyforward dont_update burnin_update train_only_bn learning_rate clip stream wait_stream"
)
"""Keys of any layer that steer Darknet's own training (or its streams) and change nothing about the network."""

TRAINING = {
    "net": _words("""
        batch subdivisions momentum decay angle saturation exposure hue aspect learning_rate learning_rate_min burn_in
        max_batches policy steps scales seq_scales step scale gamma power adam B1 B2 eps max_crop min_crop flip blur
        gaussian_noise mixup cutmix mosaic mosaic_bound label_smooth_eps ema_alpha resize_step track augment_speed
        sequential_subdivisions try_fix_nan loss_scale dynamic_minibatch optimized_memory workspace_size_limit_MB
        use_cuda_graph weights_reject_freq equidistant_point badlabels_rejection_percentage adversarial_lr attention
        num_sigmas_reject_badlabels max_chart_loss sgdr_cycle sgdr_mult contrastive contrastive_jit_flip
        contrastive_color unsupervised show_receptive_field seen max_epochs
    """),
    "convolutional": _words("dot angle grad_centr"),
    "yolo": _words("""
        jitter truth_thresh random cls_normalizer iou_normalizer obj_normalizer delta_normalizer nms_kind
        beta_nms max_delta label_smooth_eps resize max map focal_loss objectness_smooth counters_per_class
        iou_thresh_kind show_details track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm
        embedding_layer
    """),
    "region": _words("""
        jitter rescore object_scale noobject_scale class_scale coord_scale mask_scale absolute random bias_match max map
        focal_loss resize classfix log sqrt
    """),
    "detection": _words("jitter forced random max"),
    "crop": _words("flip angle saturation exposure shift"),
}
"""Keys that steer Darknet's training or its own drawing, by section. They are read over, knowingly: no value that a
network computes depends on them."""

_LONGEST_NUMBER = 100


class Options:
    """The options of a section; each is read once by its key, and `finish` refuses what nobody read."""

    def __init__(self, section: Section, source: str) -> None:
        self.section, self.source, self.known = section, source, set[str]()

    def fail(self, key: str, rule: str) -> ConfigError:
        """The error about a key: file, line, what stands there, and the rule that it breaks."""
        if key not in self.section.options:
            return ConfigError(f"{self.source}: line {self.section.line}: [{self.section.name}] needs {key}: {rule}")
        text, line = self.section.options[key]
        return ConfigError(f"{self.source}: line {line}: [{self.section.name}] {key}={shown(text)}: {rule}")

    def text(self, key: str) -> str | None:
        """The value as it is written."""
        self.known.add(key)
        return self.section.options[key].text if key in self.section.options else None

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        return self._number(key, int, default, low, high, "a whole number")

    def real(self, key: str, default: float, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        return self._number(key, float, default, low, high, "a number")

    def flag(self, key: str) -> bool:
        """0 or 1, by default 0."""
        return bool(self.integer(key, 0, 0, 1))

    def choice(self, key: str, default: str, allowed: dict[str, str]) -> str:
        """One of the keys of ``allowed``; what it stands for."""
        text = self.text(key) or default
        if text not in allowed:
            raise self.fail(key, f"not supported; known are {', '.join(allowed)}")
        return allowed[text]

    def reals(self, key: str) -> list[float] | None:
        """Finite numbers, separated by commas; None without the key."""
        return self._list(key, float, "numbers separated by commas")

    def integers(self, key: str) -> list[int] | None:
        """Whole numbers, separated by commas; None without the key."""
        return self._list(key, int, "whole numbers separated by commas")

    def unsupported(self, **values: int) -> None:
        """Keys that would change the network in a way that is not built here, with the values that do not."""
        for key, neutral in values.items():
            if self.real(key, float(neutral), -math.inf, math.inf) != neutral:
                raise self.fail(key, f"not supported; only {key}={neutral} is")

    def finish(self) -> None:
        """Raises `ConfigError` for the first key that is neither read nor one of training, or that is given twice with
        different values; of a key of training, which nothing depends on, the first value counts."""
        training = TRAINING.get(self.section.name, frozenset()) | LAYER_TRAINING
        for key, option in self.section.repeated.items():
            if key not in training:
                first = self.section.options[key]
                raise ConfigError(
                    f"{self.source}: line {option.line}: {key}={shown(option.text)} contradicts "
                    f"{key}={shown(first.text)} of line {first.line}; keep one"
                )
        for key, option in self.section.options.items():
            if key not in self.known and key not in training:
                near = difflib.get_close_matches(key, self.known | training, 1)
                hint = f"did you mean {near[0]}?" if near else "remove it if it does not change the network"
                raise ConfigError(
                    f"{self.source}: line {option.line}: [{self.section.name}] has no key {shown(key)}; {hint}"
                )

    def _number(
        self, key: str, kind: Callable[[str], Number], default: Number, low: Number, high: Number, what: str
    ) -> Number:
        text = self.text(key)
        if text is None:
            return default
        try:
            value = kind(_plain(text))
        except ValueError:
            raise self.fail(key, f"give {what}") from None
        if not low <= value <= high or not math.isfinite(value):
            raise self.fail(key, f"give {what} from {low:g} to {high:g}")
        return value

    def _list(self, key: str, kind: Callable[[str], Number], what: str) -> list[Number] | None:
        text = self.text(key)
        if text is None:
            return None
        try:
            values = [kind(_plain(part)) for part in text.removesuffix(",").split(",")]
        except ValueError:
            raise self.fail(key, f"give {what}") from None
        if not all(math.isfinite(value) for value in values):
            raise self.fail(key, f"give {what}")
        return values


def _plain(text: str) -> str:
    """The text itself; raises `ValueError` for ``1_000``, which is a number to Python alone, and for what no number is
    as long as."""
    if "_" in text or len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    return text
