"""Running detectors: loading, prediction, test-time augmentation, ensembles, evaluation of a data set."""
