"""Flax modules: the only package that imports flax. Backbones, necks, heads and what they are made of."""

from flax.linen import Module

from yolojax.models.backbones import DarknetTiny
from yolojax.models.batch_norm import fold_batch_norm, noting_folds, unfold_batch_norm
from yolojax.models.darknet_backbones import CSPDarknet53, CSPDarknetTiny, Darknet19, Darknet53, PooledDarknet
from yolojax.models.heads import AnchorFreeHead, PairedHead, YOLOHead
from yolojax.models.layers import Style
from yolojax.models.necks import FPN, PAN
from yolojax.models.network import Network, init_variables, parameter_count
from yolojax.models.resnet import ResNet18
from yolojax.models.yolox import PAFPN, CSPDarknet, DecoupledHead

__all__ = [
    "FPN",
    "PAFPN",
    "PAN",
    "AnchorFreeHead",
    "CSPDarknet",
    "CSPDarknet53",
    "CSPDarknetTiny",
    "Darknet19",
    "Darknet53",
    "DarknetTiny",
    "DecoupledHead",
    "Module",
    "Network",
    "PairedHead",
    "PooledDarknet",
    "ResNet18",
    "Style",
    "YOLOHead",
    "fold_batch_norm",
    "init_variables",
    "noting_folds",
    "parameter_count",
    "unfold_batch_norm",
]
