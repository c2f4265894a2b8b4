"""The data and the settings of the small run that the tests of the command share."""

DATA = "shapes:?count=8&size=64"
SMALL = ["--size", "64", "--batch-size", "4", "--validation.batch-size", "8", "--validation.samples", "20"]
SMALL += ["--option", "widths=[8,8,16]", "depths=[0,0,1]", "head_width=16", "reg_max=8"]
for name, off in (("scale-min", 1), ("scale-max", 1), ("translate", 0), ("hue", 0), ("saturation", 0), ("value", 0)):
    SMALL += [f"--augment.{name}", str(off)]  # what is off need not be compiled
