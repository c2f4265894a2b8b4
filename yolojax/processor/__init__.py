"""What only a processor (CPU) needs; nothing in here affects a program for a GPU or a TPU.

Kept memory (`memory`, `heap`): freed memory that stays in the process gives 1.11 times the images per second of YOLOv8n
at 320 pixels, batch 16, on two cores, setting aside the holes of a compilation 1.09 and a device for every core 1.19.
Lowerings (`convolution`): all of them give 1.16 times. Each figure is one measure left out of all, from
experiments/benchmarks/what_pays of 2026-11-30, in which two runs of the same lie 7 % above and below their mean; its
REMARKS have figures of steps in turns.
Programs that only detect are compiled in a way of their own (`inference`).
"""
