"""The architectures that a manifest may name: whoever holds only weights needs one."""

from collections.abc import Callable

from torch import nn

from app.inference.architectures.efficientnet_lite import EfficientNetLite0

# Each builds the network for a number of classes.
ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "efficientnet-lite0": EfficientNetLite0,
}
