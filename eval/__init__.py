"""COCO-style evaluation and reports, from arrays and files only; imported as `yolojax.eval`.

- `inputs`: ground truth and detections, read and checked once, as columns; `result_format`: conventions of result
  files that are not COCO's.
- `matching`: which detection finds which object. `accumulate`: average precision from matched detections, the only one
  beside pycocotools'; also as a compiled function of fixed-size arrays, and COCO's twelve numbers from it.
- `coco`: `evaluate_coco`, COCO's twelve numbers by pycocotools (or hotcoco: `precision_tables`) and what else one
  evaluation knows. `counters`: what the checks found. `voc`: Pascal VOC's average precision.
- `confidence`: precision, recall and F1 at a threshold, and calibration. `confusion`: which class is taken for which.
  `tide`: what each kind of error costs. `bootstrap`: confidence intervals and paired comparisons. `diagnosis`: from
  numbers to the next experiment.
- `analysis`: all of that about one list of detections. `table` shows it as text, `files` writes `metrics.json`, and
  `report` writes the three files of a report.
"""
