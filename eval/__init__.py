"""COCO-style evaluation and reports, from arrays and files only; imported as `yolojax.eval`.

- `coco`: `evaluate_coco`, COCO's twelve numbers and what else one evaluation knows; `table` shows it as text and
  `files` writes it as `metrics.json` (and detections as a COCO result list).
- `inputs`, `checks`: ground truth and detections as checked columns; `counters`: what the guards found. `matching`,
  `operating_point`: precision, recall and F1 at a confidence. `backends`: pycocotools and hotcoco.
- `voc`: Pascal VOC's average precision.
- `diagnosis`: the metric reader, from numbers to the next experiment. `confusion`: which class is taken for which.
  `tide`: what each kind of error costs.
- `device`, `accumulate`: AP as one pure, compiled function of fixed-size arrays; `device_numbers`: the twelve numbers
  from it. `bootstrap`: confidence intervals and paired comparisons from those. `calibration`: what scores mean.
- `analysis`: all of that about one list of detections. `report`: the three files that say it.
"""
