"""The trainer: from a configuration, data and a detector to a released detector in a run directory."""
