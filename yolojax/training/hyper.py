"""The traced hyper-parameters of a run."""

from yolojax.config import TrainConfig
from yolojax.detector import Detector
from yolojax.errors import ConfigError
from yolojax.structures import Hyper, hyper_as_arrays


def make_hyper(config: TrainConfig, detector: Detector) -> Hyper:
    """Defaults, then what the detector wants, then the optimiser's, then what the user overrides."""
    unknown = sorted(set(config.hyper) - set(Hyper._fields))
    if unknown:
        raise ConfigError(f"unknown hyper-parameter hyper.{unknown[0]}: known are {', '.join(Hyper._fields)}")
    values = {
        **detector.spec.hyper,
        "learning_rate": config.optimiser.learning_rate,
        "weight_decay": config.optimiser.weight_decay,
        **config.hyper,
    }
    return hyper_as_arrays(Hyper()._replace(**values))
