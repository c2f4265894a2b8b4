"""Runnable studies, each with its recorded result under ``experiments/results``; run from a checkout, not shipped."""
