"""Training engine: knows `Detector` only. `fit` reads from top to bottom."""
