"""The report of an evaluation: `metrics.json`, `report.md` and a self-contained `index.html`.

- `write`: `write_report`, the one function that training and the commands call.
- `facts`: what the report says, as plain values. `gallery`: which images it shows, and what is drawn on them.
- `charts`: curves and bars as inline SVG. `pictures`: curves and the confusion matrix as PNG. `page`
  and `markdown`: the two ways to read it; `templates/` beside this package holds the page's own files.
"""
