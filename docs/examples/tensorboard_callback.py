"""A logger as a callback: TensorBoard where it is installed, and a logger of your own in ten lines.

Run: python docs/examples/tensorboard_callback.py        (pip install 'yolojax[tensorboard]' for the first of the two)
Prints the header and the last line of steps.csv; `tensorboard --logdir runs` shows the curves.
"""

import csv
from pathlib import Path

import yolojax
from yolojax.config import ModelConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.errors import ConfigError
from yolojax.training.loggers import TensorBoard

OPTIONS = {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


class CsvLog:
    """Writes every step's losses and counts to ``steps.csv`` in the run directory; a resumed run begins it anew."""

    reads_state = False  # it never looks at event.state, so the run need not keep one for it

    def __call__(self, event):  # event is a yolojax.training.callbacks.Event
        if event.kind == "start":
            self.file = open(event.folder / "steps.csv", "w", newline="")  # noqa: SIM115 (closed at the end)
            self.writer = None
        elif event.kind == "step":
            row = {"step": event.step} | event.row
            if self.writer is None:
                self.writer = csv.DictWriter(self.file, row)
                self.writer.writeheader()
            self.writer.writerow(row)
        elif event.kind == "end":
            self.file.close()
        return False  # True would end the training with this epoch


def main(out="runs/logged", images=64, epochs=5):
    loggers = [CsvLog()]
    try:
        loggers.append(TensorBoard())
    except ConfigError as error:
        print(f"without TensorBoard: {error}")
    data = shapes_dataset(images, size=(64, 64)), shapes_dataset(16, size=(64, 64), split="val")
    config = TrainConfig(
        model=ModelConfig(size=64, options=OPTIONS), epochs=epochs, validation=ValidationConfig(samples=0)
    )
    yolojax.fit(config, out, data=data, callbacks=loggers)
    lines = (Path(out) / "steps.csv").read_text().splitlines()
    print(lines[0], lines[-1], sep="\n")


if __name__ == "__main__":
    main()
