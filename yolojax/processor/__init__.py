"""What only a processor (CPU) needs; nothing in here affects a program for a GPU or a TPU.

Kept memory (`memory`, `heap`): freed memory that stays in the process gives 1.35 times the images per second of YOLOv8n
at 320 pixels, batch 16, on two cores, setting aside the holes of a compilation 1.30 and a device for every core 1.10.
Lowerings (`convolution`): 1x1 convolutions as matrix products give 1.15 times, strided ones 1.07; each figure is one
measure left out of all, from experiments/benchmarks/what_pays of 2026-11-24, when 3x3 convolutions were rewritten too
(its REMARKS say what has changed).
Programs that only detect are compiled in a way of their own (`inference`).
"""
