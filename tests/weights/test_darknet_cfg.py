"""The cfg reader: what it accepts, its defaults, and that whatever it does not understand is named with its line."""

import dataclasses
import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests import darknet_cases
from yolojax.errors import ConfigError
from yolojax.weights.darknet import format_cfg, layer_shapes, parse_cfg, read_cfg
from yolojax.weights.darknet_layers import Convolutional, Maxpool, Region, Route, Shortcut, Yolo
from yolojax.weights.darknet_write import with_classes

SMALL = """[net]
width=64
height=32
channels=3

[convolutional]
filters=16
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=21
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=1,2, 3,4, 5,6
classes=2
num=3
"""


def without_lines(cfg):
    return [dataclasses.replace(layer, line=0) for layer in cfg.layers]


def test_comments_blanks_and_encodings():
    """Comments in another encoding, blanks inside of values, a byte-order mark and Windows line ends change nothing."""
    messy = SMALL.replace("[net]", "\ufeff; begin\n# t\ufffdte\n [ net ]").replace("size=3", " size = 3  # odd\n\n")
    assert without_lines(parse_cfg(messy.replace("\n", "\r\n"))) == without_lines(parse_cfg(SMALL))


def test_defaults_are_darknets():
    first = parse_cfg(SMALL.replace("filters=16\nsize=3\nstride=2\npad=1\nactivation=leaky\n", "")).layers[0]
    assert first == Convolutional(6, 1, 1, 1, 0, 1, False, "logistic")
    text = SMALL.replace("[yolo]", "[maxpool]\nsize=5\n\n[maxpool]\nstride=2\n\n[convolutional]\nfilters=21\n\n[yolo]")
    layers = parse_cfg(text).layers
    assert layers[2] == Maxpool(18, 5, 1, 4) and layers[3] == Maxpool(21, 2, 2, 1)
    last = layers[-1]
    assert isinstance(last, Yolo) and (last.scale_x_y, last.new_coords, last.iou_loss) == (1.0, False, "mse")
    assert last.iou_thresh == 1
    region = SMALL.replace("[yolo]\nmask=0,1,2", "[region]").replace("21", "75").replace("classes=2\n", "")
    region = parse_cfg(region).layers[-1]
    assert isinstance(region, Region) and (region.classes, region.softmax) == (20, False)


def test_padding_is_half_the_kernel_when_pad_is_set_and_in_pixels_otherwise():
    """As Darknet: any ``pad`` but 0 means ``size / 2``, whatever ``padding`` says."""
    for options, padding in (("pad=1", 2), ("pad=1\npadding=7", 2), ("padding=1", 1), ("pad=0", 0)):
        first = parse_cfg(SMALL.replace("size=3\nstride=2\npad=1", f"size=5\n{options}")).layers[0]
        assert isinstance(first, Convolutional) and first.padding == padding


def test_sources_are_counted_from_zero_or_back():
    text = SMALL.replace("[yolo]", "[route]\nlayers=-2,0\ngroups=2\ngroup_id=1\n[convolutional]\nfilters=21\n\n[yolo]")
    route = parse_cfg(text).layers[2]
    assert route == Route(18, (0, 0), 2, 1)
    assert layer_shapes(parse_cfg(text), (32, 64))[2] == (16, 32, 16)


@pytest.mark.parametrize("name", sorted(darknet_cases.NARROW))
def test_what_is_written_is_read_back(name):
    cfg = parse_cfg(darknet_cases.NARROW[name])
    text = format_cfg(cfg)
    again = parse_cfg(text)
    assert without_lines(again) == without_lines(cfg)
    assert (again.width, again.height) == (cfg.width, cfg.height)
    assert format_cfg(again) == text


def test_weighted_shortcuts_and_letterboxing_are_written_too():
    text = SMALL.replace("channels=3", "channels=3\nletter_box=1").replace(
        "[yolo]",
        "[convolutional]\nfilters=21\n[shortcut]\nfrom=-2\nweights_type=per_feature\nweights_normalization=avg_relu\n"
        "[convolutional]\nfilters=21\nsize=1\n[yolo]",
    )
    cfg = parse_cfg(text)
    assert cfg.layers[3] == Shortcut(21, (1,), "linear", "per_layer", "relu")
    again = parse_cfg(format_cfg(cfg))
    assert again.letter_box and without_lines(again) == without_lines(cfg)


def test_other_numbers_of_classes():
    cfg = with_classes(parse_cfg(SMALL), 7)
    assert cfg.classes == 7 and cfg.layers[1] == Convolutional(13, 36, 1, 1, 0, 1, False, "linear")
    layer_shapes(cfg, (32, 64))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[net]\n", "", "line 1: 'width=64' stands before the first section"),
        ("[net]", "[yolo]", r"line 1: begins with \[yolo\]; a .cfg begins with \[net\]"),
        ("size=3", "size", "line 8: 'size' is neither"),
        ("size=3", "size=", "line 8: 'size=' is neither"),
        ("size=3", "size=gross", "line 8: .*size='gross': give a whole number"),
        ("size=3", "size=-3", "line 8: .*size='-3': give a whole number from 1 to 127"),
        ("size=3", "size=99999999999", "line 8: .*from 1 to 127"),
        ("size=3", "size=1_1", "line 8: .*give a whole number"),
        ("size=3", "size=3.5", "line 8: .*give a whole number"),
        ("size=3", "size=3\nsize=5", "line 9: size='5' contradicts size='3' of line 8"),
        ("size=3", "size=" + "9" * 400, "line 8: .*give a whole number"),
        ("5,6", "5," + "9" * 400, "line 20: .*give numbers"),
        ("[yolo]", "[route]\nlayers=" + "9" * 400 + "\n[yolo]", "line 19: .*give whole numbers"),
        ("channels=3", "channels=3\nzebra=1\n[gru]", r"layer 0 \[gru\] is not supported"),
        ("channels=3", "channels=3\nzebra=1\n[convolutional]\ndilation=2", "dilation='2': not supported"),
        (
            "[yolo]",
            "[convolutional]\nsize=9\nfilters=4\n[shortcut]\nfrom=0\n[yolo]",
            r"layer 3 \[shortcut\], line 21: its inputs differ in size, and not by one factor: 24 x 8 x 4 and 32 x 16",
        ),
        ("size=3", "sise=3", r"line 8: \[convolutional\] has no key 'sise'; did you mean size"),
        ("size=3", "zebra=3", "line 8: .*has no key 'zebra'; remove it"),
        ("size=3", "size=3\ngröße=3", "line 9: 'größe=3' is not plain text"),
        ("size=3", "size=3\ndilation=2", "line 9: .*dilation='2': not supported; only dilation=1 is"),
        ("size=3", "size=3\ndontload=1", "line 9: .*dontload"),
        ("size=3", "size=3\nstride_x=1\nstride_y=2", "line 10: .*strides must be equal"),
        ("activation=leaky", "activation=selu", "line 11: .*activation='selu': not supported; known are linear, leaky"),
        ("filters=16", "filters=65536", None),
        ("filters=16", "filters=0", "line 7: .*from 1"),
        ("width=64", "width=-64", "line 2: .*width='-64': give a whole number from 1 to 16384"),
        ("width=64", "width=999999999", "line 2: .*from 1 to 16384"),
        ("width=64\n", "", "line 1: .*needs width"),
        ("channels=3", "channels=1", "line 4: .*channels='1': not supported; only channels=3"),
        ("[yolo]", "[Gaussian_yolo]", r"line 18: layer 2 \[Gaussian_yolo\] is not supported; known are convolutional"),
        ("[yolo]", "[gru]\n[yolo]", r"line 18: layer 2 \[gru\] is not supported"),
        ("[yolo]", "[yolo", "line 18: '\\[yolo' is no section"),
        ("[yolo]", "[route]\nlayers=-3\n[yolo]", "line 19: .*this is layer 2; it can read layers 0 to 1"),
        ("[yolo]", "[route]\nlayers=2\n[yolo]", "line 19: .*this is layer 2"),
        ("[yolo]", "[route]\n[yolo]", r"line 18: \[route\] needs layers"),
        ("[yolo]", "[route]\nlayers=-1,x\n[yolo]", "line 19: .*whole numbers separated by commas"),
        ("[yolo]", "[route]\nlayers=-1\ngroups=2\n[yolo]", r"layer 2 \[route\], line 18: .*split into 2 groups"),
        ("[yolo]", "[sam]\nfrom=0\n[yolo]", r"layer 2 \[sam\], line 18: its inputs differ"),
        ("[yolo]", "[scale_channels]\nfrom=0\n[yolo]", r"layer 2 \[scale_channels\], line 18: factors of shape"),
        ("[yolo]", "[reorg]\nstride=3\n[yolo]", r"layer 2 \[reorg\], line 18: .*not divisible by its stride 3"),
        ("[yolo]", "[dropout]\ndropblock=1\n[yolo]", "line 19: .*dropblock"),
        ("size=3\nstride=2\npad=1", "size=65", r"layer 0 \[convolutional\], line 6: nothing is left of its input"),
        ("filters=16", "filters=16\ngroups=5", "cannot be split into 5 groups"),
        ("classes=2", "classes=3", r"layer 2 \[yolo\], line 18: 3 anchors and 3 classes need 24 filters .* has 21"),
        ("classes=2", "classes=0", "line 21: .*classes"),
        ("num=3", "num=4", "line 20: .*num=4 needs 8 values, here are 6"),
        ("mask=0,1,2", "mask=0,1,3", "line 19: .*anchor 3 is not among the 3"),
        ("5,6", "5,-6", "line 20: .*sides must be above 0"),
        ("5,6", "5,nan", "line 20: .*give numbers"),
        ("anchors=1,2, 3,4, 5,6\n", "", "line 18: .*needs anchors"),
        ("num=3", "num=3\nnew_coords=1", "line 23: .*activation=logistic"),
        ("num=3", "num=3\nscale_x_y=inf", "line 23: .*give a number from"),
        ("[yolo]\nmask=0,1,2", "[region]\ntree=a.tree", "line 19: .*a tree of classes is not supported"),
        (SMALL[SMALL.index("[yolo]") :], "", r"has no \[yolo\], \[region\] or \[detection\] layer"),
        ("num=3", "num=3\n" + "[maxpool]\n", r"line 23: layer 3 \[maxpool\] would read the boxes of layer 2"),
        (SMALL, "", "holds no section"),
    ],
)
def test_what_is_not_understood_is_named_with_its_line(old, new, message):
    assert old in SMALL
    text = SMALL.replace(old, new, 1)
    if message is None:
        parse_cfg(text)
        return
    with pytest.raises(ConfigError, match=message) as caught:
        parse_cfg(text, "net.cfg")
    assert str(caught.value).startswith("net.cfg: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("channels=3", "channels=3\nmax_batches=5\nmax_batches=6\nseen=0\nmax_epochs=3"),
        ("num=3", "num=3\njitter=.1\njitter=.2"),
        ("1,2, 3,4, 5,6", "1,2, 3,4, 5,6, 7,8, 9,9"),
        ("num=3", "num=2"),  # the masks mean all of the anchors that are listed
    ],
)
def test_what_published_files_hold_beyond_need_changes_nothing(old, new):
    assert without_lines(parse_cfg(SMALL.replace(old, new))) == without_lines(parse_cfg(SMALL))


def test_two_prediction_layers_must_agree_about_the_classes():
    other = SMALL[SMALL.index("[yolo]") :].replace("classes=2", "classes=1")
    with pytest.raises(ConfigError, match=r"\[1, 2\] classes"):
        parse_cfg(SMALL + "\n[route]\nlayers=0\n[convolutional]\nfilters=18\n" + other)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "net.cfg").write_bytes(b"\x00\x00\x00\x00\x02\xff\xfe\n" * 9)
    with pytest.raises(ConfigError, match=r"line 1: .* is not plain text"):
        read_cfg(tmp_path / "net.cfg")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_cfg(tmp_path / "none.cfg")
    comment = SMALL.encode() + "# Größe\n".encode("latin-1")
    (tmp_path / "net.cfg").write_bytes(comment)
    assert without_lines(read_cfg(tmp_path / "net.cfg")) == without_lines(parse_cfg(SMALL))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, len(SMALL)),
    st.integers(0, 8),
    st.text(st.sampled_from("-0123456789.,=[]#;\nabenstu \x00\xe4"), max_size=12),
)
def test_damaged_text_is_read_or_refused_with_a_named_error(place, removed, inserted):
    text = SMALL[:place] + inserted + SMALL[place + removed :]
    try:
        parse_cfg(text)
    except ConfigError as error:
        assert re.match(r"cfg: ", str(error)) and len(str(error)) < 600
