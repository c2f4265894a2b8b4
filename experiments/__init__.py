"""Runnable studies, each in a folder with its recorded result; run from a checkout, not shipped."""
