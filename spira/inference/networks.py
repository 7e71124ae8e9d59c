"""The networks' forward pass from a dictionary of arrays, one window at a time, in float32 numpy.

Maps are ``[channels, time]``, or ``[channels, time, coefficients]`` in SpiraConv, whose convolutions run along time
alone. One window's maps fit a core's cache, and a long recording takes no more memory than a short one. Arrays have
the names that torch gives them; what can be folded into others is folded when they are loaded.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Tuple

import numpy as np

Weights = Mapping[str, np.ndarray]
Network = Callable[[np.ndarray], float]
Pair = Tuple[np.ndarray, np.ndarray]

EPSILON = np.float32(1e-5)
"""What torch adds to a variance in BatchNorm and GroupNorm."""

DILATIONS = (2, 2, 2, 1)
"""Of SpiraConv's blocks, along time."""

CONV1D_GROUPS = 8
"""Of conv1d's GroupNorms."""


def build(architecture: str, weights: Weights) -> Network:
    """The network as a function: MFCC of a window, float [frames, coefficients] -> its logit.

    Raises:
        ValueError: the architecture is unknown, or one of its arrays is missing.
    """
    if architecture not in NETWORKS:
        known = ", ".join(sorted(NETWORKS))
        raise ValueError("unknown architecture %r: this package's code knows %s" % (architecture, known))
    try:
        return NETWORKS[architecture](weights)
    except KeyError as missing:
        raise ValueError("the weights are not those of %s: %s is missing" % (architecture, missing)) from missing


class Conv1d:
    """conv1d: blocks of convolution, GroupNorm, ReLU and pooling over time; mean and maximum over what is left."""

    def __init__(self, weights: Weights) -> None:
        self.mean = weights["norm.running_mean"]  # [coefficients]
        self.scale = 1.0 / np.sqrt(weights["norm.running_var"] + EPSILON)
        depth = sum(name.startswith("blocks.") and name.endswith(".0.weight") for name in weights)
        self.blocks = [
            parameters(weights, "blocks.%d.0" % i) + parameters(weights, "blocks.%d.1" % i) for i in range(depth)
        ]
        self.head = parameters(weights, "head")

    def __call__(self, features: np.ndarray) -> float:
        maps = ((features - self.mean) * self.scale).T.astype(np.float32)  # [coefficients, T]
        for kernel, bias, scale, shift in self.blocks:
            maps = conv(maps, kernel, bias, padding=kernel.shape[2] // 2)  # [channels, T]
            maps = max_pool(relu(group_norm(maps, CONV1D_GROUPS, scale, shift)))  # [channels, T // 2]
        pooled = np.concatenate([maps.mean(axis=1), maps.max(axis=1)])  # [2 * channels]
        return float(linear(pooled, *self.head)[0])


class SpiraV2:
    """The paper's SpiraConv with GroupNorm, two channels a group."""

    def __init__(self, weights: Weights) -> None:
        self.convs = [spira_conv(weights, "conv.%d" % (5 * i)) for i in range(len(DILATIONS))]
        self.norms = [parameters(weights, "conv.%d" % (5 * i + 1)) for i in range(len(DILATIONS))]
        self.fc1 = parameters(weights, "fc1")
        self.fc2 = parameters(weights, "fc2")

    def __call__(self, features: np.ndarray) -> float:
        maps = features[None].astype(np.float32)  # [1, T, coefficients]
        for i, dilation in enumerate(DILATIONS):
            kernel, bias = self.convs[i]
            maps = conv(maps, kernel, bias, dilation)  # [channels, T', coefficients]
            maps = mish(self.normalise(maps, i))
            if i < len(DILATIONS) - 1:
                maps = max_pool(maps)  # [channels, T' // 2, coefficients]
        flat = maps.transpose(1, 0, 2).reshape(-1)  # [T' * channels * coefficients]
        return float(linear(mish(linear(flat, *self.fc1)), *self.fc2)[0])

    def normalise(self, maps: np.ndarray, i: int) -> np.ndarray:
        return group_norm(maps, len(maps) // 2, *self.norms[i])


class SpiraV1(SpiraV2):
    """The paper's SpiraConv with BatchNorm, folded into the convolutions before it."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        for i, (kernel, bias) in enumerate(self.convs):
            norm = "conv.%d" % (5 * i + 1)
            gain, shift = batch_norm(*self.norms[i], *running(weights, norm))  # [channels] each
            self.convs[i] = (kernel * gain[:, None, None], bias * gain + shift)

    def normalise(self, maps: np.ndarray, i: int) -> np.ndarray:
        return maps


NETWORKS: Dict[str, Callable[[Weights], Network]] = {"conv1d": Conv1d, "spira_v1": SpiraV1, "spira_v2": SpiraV2}


def parameters(weights: Weights, layer: str) -> Pair:
    """The weight and the bias of a layer."""
    return weights[layer + ".weight"], weights[layer + ".bias"]


def running(weights: Weights, layer: str) -> Pair:
    """The mean and the variance that a BatchNorm has seen in training."""
    return weights[layer + ".running_mean"], weights[layer + ".running_var"]


def spira_conv(weights: Weights, layer: str) -> Pair:
    """The kernel [outputs, inputs, taps] and the bias of one of SpiraConv's two-dimensional convolutions."""
    kernel, bias = parameters(weights, layer)  # [outputs, inputs, taps, 1]
    return kernel[..., 0], bias


def conv(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray, dilation: int = 1, padding: int = 0) -> np.ndarray:
    """Convolution along time, ``[inputs, T, ...] -> [outputs, T', ...]``, as one matrix product over all taps.

    Args:
        kernel: [outputs, inputs, taps].
        padding: zeros put before and after.
    """
    outputs, inputs, taps = kernel.shape
    if padding:
        maps = np.pad(maps, [(0, 0), (padding, padding)] + [(0, 0)] * (maps.ndim - 2))
    length = maps.shape[1] - dilation * (taps - 1)
    shifted = [maps[:, tap * dilation : tap * dilation + length] for tap in range(taps)]
    columns = np.stack(shifted, axis=1).reshape(inputs * taps, -1)  # [inputs * taps, T' * ...]
    out = kernel.reshape(outputs, -1) @ columns
    out += bias[:, None]
    return out.reshape((outputs, length, *maps.shape[2:]))


def batch_norm(scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> Pair:
    """BatchNorm in evaluation as a gain and a shift of each channel, [channels] each."""
    gain = scale / np.sqrt(variance + EPSILON)
    return gain, shift - mean * gain


def group_norm(maps: np.ndarray, groups: int, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance of each group of channels, then scale and shift of each channel."""
    centred = maps.reshape(groups, -1)
    centred = centred - centred.mean(axis=1, keepdims=True)  # [groups, ...]
    variance = np.array([group @ group for group in centred]) / centred.shape[1]  # [groups]
    gain = scale.reshape(groups, -1) / np.sqrt(variance + EPSILON)[:, None]  # [groups, channels a group]
    out = centred.reshape(len(maps), -1)
    out *= gain.reshape(-1, 1)
    out += shift[:, None]
    return out.reshape(maps.shape)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def mish(x: np.ndarray) -> np.ndarray:
    """``x * tanh(log(1 + e^x))``, written as ``x * n / (n + 2)`` with ``n = e^x (e^x + 2)``."""
    n = np.exp(np.minimum(x, 20))  # above 20 the quotient is 1 in float32
    n *= n + 2
    quotient = n + 2
    np.divide(n, quotient, out=quotient)
    quotient *= x
    return quotient


def max_pool(maps: np.ndarray) -> np.ndarray:
    """The larger of each two neighbours in time, ``[C, T, ...] -> [C, T // 2, ...]``."""
    even = maps.shape[1] // 2 * 2
    return np.maximum(maps[:, 0:even:2], maps[:, 1:even:2])


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """``[inputs] -> [outputs]``."""
    return weight @ x + bias
