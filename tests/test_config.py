"""Configuration: what is written is read back, and every wrong setting is refused by its name."""

import dataclasses
import json
import operator
import re
import typing

import pytest

from yolojax import config as config_module
from yolojax.config import DataConfig, TrainConfig, check, from_dict, to_json
from yolojax.errors import ConfigError


def with_setting(name: str, value: object) -> TrainConfig:
    """The defaults with one setting, named by its dotted path, changed."""
    *parts, leaf = name.split(".")
    if not parts:
        return dataclasses.replace(TrainConfig(), **{leaf: value})
    inner = dataclasses.replace(getattr(TrainConfig(), parts[0]), **{leaf: value})
    return dataclasses.replace(TrainConfig(), **{parts[0]: inner})


def test_defaults_are_valid_and_come_back_from_json():
    assert check(TrainConfig()) == TrainConfig()
    assert from_dict(json.loads(to_json(TrainConfig()))) == TrainConfig()


def test_changed_settings_come_back_from_json():
    config = dataclasses.replace(
        with_setting("data.max_objects", 64), hyper={"lambda_coord": 2.5}, init="runs/a", compute="bfloat16"
    )
    config = dataclasses.replace(config, batch_size="auto", freeze=("backbone", "neck"), minutes=30.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, options={"widths": [8, 16]}))
    assert from_dict(json.loads(to_json(config))) == config


def test_settings_left_out_take_their_defaults():
    assert from_dict({"augment": {"hue": 0.1}, "epochs": 3}) == dataclasses.replace(
        with_setting("augment.hue", 0.1), epochs=3
    )


def test_a_whole_number_does_where_a_fraction_is_expected():
    made = from_dict({"optimiser": {"learning_rate": 1}, "hyper": {"lambda_obj": 2}})
    assert type(made.optimiser.learning_rate) is float and type(made.hyper["lambda_obj"]) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "unknown setting epoch: did you mean epochs?"),
        ({"augment": {"mosaik": 1}}, "unknown setting augment.mosaik: did you mean augment.mosaic?"),
        ({"augment": {"zzz": 1}}, "unknown setting augment.zzz: known here: close_mosaic, cutout, "),
        ({"augment": 3}, "augment: expected settings by name, got 3"),
        ([], "configuration: expected settings by name, got []"),
        ({"epochs": "3"}, "epochs = '3': give a whole number"),
        ({"epochs": 2.5}, "epochs = 2.5: give a whole number"),
        ({"epochs": True}, "epochs = True: give a whole number"),
        ({"data": {"skip_bad": 1}}, "data.skip_bad = 1: give true or false"),
        ({"augment": {"hue": None}}, "augment.hue = None: give a number"),
        ({"augment": {"hue": True}}, "augment.hue = True: give a number"),
        ({"augment": {"hue": float("nan")}}, "augment.hue = nan: give a finite number"),
        ({"compute": "float16"}, "compute = 'float16': give one of float32, bfloat16"),
        ({"hyper": {"lambda_obj": "x"}}, "hyper.lambda_obj = 'x': give a number"),
        ({"hyper": {"lambda_obj": float("inf")}}, "hyper.lambda_obj = inf: give a finite number"),
        ({"data": {"max_objects": "many"}}, "data.max_objects = 'many': give a whole number"),
        ({"batch_size": "many"}, "batch_size = 'many': give a whole number or auto"),
        ({"freeze": "backbone"}, "freeze = 'backbone': give a list of texts"),
        ({"freeze": ["backbone", 3]}, "freeze[1] = 3: give text"),
    ],
)
def test_what_cannot_be_read_is_named(values, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        from_dict(values)


OUT_OF_RANGE = {
    "epochs": (0, -1),
    "batch_size": (0,),
    "accumulate": (0, 3),
    "minutes": (0.0, -1.0),
    "patience": (-1,),
    "select_by": ("mAP",),
    "data.fraction": (0.0, 1.1),
    "validate_every": (-1,),
    "checkpoint_every": (-1,),
    "seed": (-1,),
    "model.size": (31,),
    "augment.flip_horizontal": (-0.1, 1.1),
    "augment.flip_vertical": (-0.1, 1.1),
    "augment.mosaic": (-0.1, 1.1),
    "augment.mosaic9": (-0.1, 1.1),
    "augment.close_mosaic": (-0.1, 1.1),
    "augment.mixup": (-0.1, 1.1),
    "augment.cutout": (-0.1, 1.1),
    "augment.rotate": (-1.0, 181.0),
    "augment.shear": (-1.0, 45.0),
    "augment.perspective": (-0.1, 0.5),
    "model.multi_scale": (0, 2, 6),
    "model.multi_scale_range": (0.0, 1.0),
    "data.repeat_threshold": (0.0, 1.1),
    "augment.hue": (-0.1, 1.1),
    "augment.saturation": (-0.1, 1.1),
    "augment.value": (-0.1, 1.1),
    "augment.translate": (-0.1, 1.1),
    "augment.scale_min": (0.0, 1.5),
    "optimiser.learning_rate": (0.0, -1.0),
    "optimiser.final_fraction": (-0.1, 1.1),
    "optimiser.ema_decay": (-0.1, 1.0),
    "optimiser.momentum": (-0.1, 1.0),
    "optimiser.b1": (-0.1, 1.0),
    "optimiser.b2": (0.0, 1.0),
    "final_share": (0.0, 1.1),
    "optimiser.weight_decay": (-0.1,),
    "optimiser.warmup_steps": (-1,),
    "optimiser.clip_norm": (0.0,),
    "validation.confidence": (-0.1, 1.0),
    "validation.iou": (0.0, 1.1),
    "validation.max_detections": (0,),
    "validation.suppress_parameter": (0.0, -1.0),
    "validation.batch_size": (0,),
    "validation.samples": (-1, 1),
    "data.max_objects": (0,),
}


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in OUT_OF_RANGE.items() for v in values])
def test_each_rule(name, value):
    with pytest.raises(ConfigError, match=f"^{re.escape(name)} = {re.escape(repr(value))}: give "):
        check(with_setting(name, value))


@pytest.mark.parametrize("setting", ["hyper", "final_hyper"])
@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [("learning_rate", 0.0, "positive"), ("weight_decay", -0.1, "0 or more"), ("lambda_cls", -1.0, "0 or more")],
)
def test_overrides_of_hyper_parameters_have_the_ranges_of_what_they_override(setting, name, value, rule):
    with pytest.raises(ConfigError, match=f"^{setting}.{name} = {re.escape(repr(value))}: give .*{rule}"):
        check(with_setting(setting, {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("augment.hue", float("nan")), ("optimiser.learning_rate", float("inf")), ("optimiser.schedule", "cosin")],
)
def test_a_configuration_made_in_python_is_checked_like_one_that_was_read(name, value):
    config = TrainConfig()
    # Past the type checks that these tests run under.
    object.__setattr__(getattr(config, name.split(".")[0]), name.split(".")[1], value)
    with pytest.raises(ConfigError, match=f"^{re.escape(name)} = "):
        check(config)


def numbers(cls: type, prefix: str = "") -> set[str]:
    """The dotted names of all settings that are numbers."""
    found = set()
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found |= numbers(hint, f"{prefix}{name}.")
        elif hint in (int, float, int | None, float | None, int | typing.Literal["auto"]):
            found.add(prefix + name)
    return found


def test_every_number_has_a_rule():
    # scale_max is ruled together with scale_min.
    assert numbers(TrainConfig) - set(OUT_OF_RANGE) == {"augment.scale_max"}


@pytest.mark.parametrize("name", sorted(numbers(TrainConfig)))
def test_every_number_has_an_upper_bound(name):
    config = TrainConfig()
    *parts, leaf = name.split(".")
    whole = isinstance(getattr(operator.attrgetter(parts[0])(config) if parts else config, leaf), int)
    config = with_setting(name, 10**30 if whole or leaf in ("max_objects", "max_detections") else 1e30)
    if leaf == "suppress_parameter":  # it belongs to some methods only
        object.__setattr__(config.validation, "suppress", "soft-gaussian")
    with pytest.raises(ConfigError, match=f"^{re.escape(name)} = (1e\\+30|10{{30}}): give ") as caught:
        check(config)
    assert "\n" not in str(caught.value)


def test_a_path_is_taken_where_text_is_and_becomes_text(tmp_path):
    config = TrainConfig(data=DataConfig(path=tmp_path, cache_folder=tmp_path / "cache"), init=tmp_path / "best")
    found = check(config)
    assert (found.data.path, found.data.cache_folder, found.init) == (
        str(tmp_path),
        str(tmp_path / "cache"),
        str(tmp_path / "best"),
    )
    assert from_dict(json.loads(to_json(found))) == found


def test_messages_quote_little_of_a_foreign_value():
    for value in ("x" * 10**6, 10**5000, ["x"] * 10**5):
        with pytest.raises(ConfigError) as caught:
            from_dict({"augment": {"hue": value}})
        assert len(str(caught.value)) < 400 and "augment.hue" in str(caught.value)


def test_every_setting_is_documented():
    for cls in vars(config_module).values():
        if dataclasses.is_dataclass(cls):
            for field in dataclasses.fields(cls):
                assert f"  {field.name}: " in cls.__doc__, (cls, field.name)  # Python 3.13 strips the indentation
