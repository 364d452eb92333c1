"""EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6 for swish.

The shape of the network is that of the paper (https://arxiv.org/abs/1905.11946) and of the notes
to the Lite variants (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet).
"""

import re
from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

# The weights were trained in TensorFlow, whose batch normalisation has this epsilon.
_EPSILON = 1e-3


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280

# The published weights' names for what is called otherwise here.
_PUBLISHED_NAMES = (
    (r"^_conv_stem\.", "stem.convolution."),
    (r"^_bn0\.", "stem.normalisation."),
    (r"^_conv_head\.", "head.convolution."),
    (r"^_bn1\.", "head.normalisation."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expansion.convolution."),
    (r"^_blocks\.(\d+)\._bn0\.", r"blocks.\1.expansion.normalisation."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise.convolution."),
    (r"^_blocks\.(\d+)\._bn1\.", r"blocks.\1.depthwise.normalisation."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.projection.convolution."),
    (r"^_blocks\.(\d+)\._bn2\.", r"blocks.\1.projection.normalisation."),
)


class _SameConvolution(nn.Conv2d):
    """A convolution padded like TensorFlow's "SAME": what is odd goes to the right and bottom."""

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        padding: list[int] = []
        for size in (input.shape[-1], input.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(input, padding))


class _Unit(nn.Module):
    """Convolution and batch normalisation, then ReLU6 unless ``linear``."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = _SameConvolution(
            inputs, outputs, kernel, stride, groups=groups, bias=False
        )
        self.normalisation = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.activation = nn.Identity() if linear else nn.ReLU6()

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(self.normalisation(self.convolution(features)))
        return result


class _Block(nn.Module):
    """An inverted residual: widen, filter each channel by itself, narrow, add the input."""

    def __init__(self, inputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expansion = _Unit(inputs, inner) if stage.expansion > 1 else nn.Identity()
        self.depthwise = _Unit(inner, inner, stage.kernel, stride, groups=inner)
        self.projection = _Unit(inner, stage.channels, linear=True)
        self.residual = stride == 1 and inputs == stage.channels

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.projection(self.depthwise(self.expansion(features)))
        return result + features if self.residual else result


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) normalised float32 → (N, ``classes``) logits; trained at 224 × 224.

    Its own state dict loads, and so does the published one, whose layers have other names.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _Unit(3, _STEM_CHANNELS, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        channels = _STEM_CHANNELS
        for stage in _STAGES:
            for index in range(stage.repeats):
                blocks.append(_Block(channels, stage, stage.stride if index == 0 else 1))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = _Unit(channels, _HEAD_CHANNELS)
        self.classifier = nn.Linear(_HEAD_CHANNELS, classes)
        self.register_load_state_dict_pre_hook(_rename_published)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        features = self.head(self.blocks(self.stem(images)))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


def _rename_published(_module: nn.Module, state: "OrderedDict[str, Any]", *_: object) -> None:
    for name in list(state):
        for pattern, replacement in _PUBLISHED_NAMES:
            renamed, hits = re.subn(pattern, replacement, name)
            if hits:
                state[renamed] = state.pop(name)
                break
