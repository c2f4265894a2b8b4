"""COCO-style evaluation and reports, from arrays and files only; imported as `yolojax.eval`."""
