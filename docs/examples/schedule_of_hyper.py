"""Hyper-parameters as a function of the step: YOLOX's L1 loss in the last part of the run.

The function is traced into the compiled step, so the run stays one program.
Run: python docs/examples/schedule_of_hyper.py
Prints the L1 part of the loss in every epoch: 0 until the last quarter of the run, above 0 from there on.
"""

import jax.numpy as jnp

import yolojax
from yolojax.config import ModelConfig, TrainConfig
from yolojax.data import shapes_dataset

LAST = 0.25  # YOLOX itself: the last 15 of 300 epochs, .05


def l1_at_the_end(hyper, step, total_steps):
    """``hyper`` holds the values of the configuration; ``step`` and ``total_steps`` are traced integers."""
    return hyper._replace(lambda_l1=jnp.where(step >= (1 - LAST) * total_steps, 1.0, 0.0))


def main(out="runs/schedule", images=64, epochs=8):
    rows = []
    run = yolojax.fit(
        TrainConfig(
            model=ModelConfig(name="yolox", size=64, options={"depth": 0.33, "width": 0.125}),
            epochs=epochs,
            validate_every=0,
        ),
        out,
        data=shapes_dataset(images, size=(64, 64)),
        hyper=l1_at_the_end,
        callbacks=[lambda event: rows.append(event.row) if event.kind == "epoch" else None],
    )
    for number, row in enumerate(rows, 1):
        print(f"epoch {number}: loss {row['train/loss']:.3f}, of which L1 {row['train/l1']:.3f}")
    print(f"{run.programs} program")
    return run, rows


if __name__ == "__main__":
    main()
