"""Forward pass of the networks, one window at a time, in float32 numpy; the twin of :mod:`spira.models.networks`.

Maps are ``[channels, T]``, or ``[channels, T, F]`` in SpiraConv, whose convolutions run along time only (T frames,
F coefficients). The maps of one window fit the cache of a core, and a long recording needs no more memory than a short
one. Arrays have the names of torch's state dictionary. A BatchNorm is folded into a convolution at loading.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Tuple

import numpy as np

Weights = Mapping[str, np.ndarray]
Network = Callable[[np.ndarray], float]
Pair = Tuple[np.ndarray, np.ndarray]

EPSILON = np.float32(1e-5)
"""Constant that torch adds to the variance in BatchNorm and GroupNorm."""

DILATIONS = (2, 2, 2, 1)
"""Dilation along time of each of SpiraConv's blocks."""

GROUPS = 8
"""Groups of each GroupNorm of Conv1dNet."""


def build(architecture: str, weights: Weights) -> Network:
    """Return the network as a function: MFCC of a window, float [T, F] -> its logit.

    Raises:
        ValueError: the architecture is unknown, or one of its arrays is missing.
    """
    if architecture not in NETWORKS:
        known = ", ".join(sorted(NETWORKS))
        raise ValueError("unknown architecture %r: this package's code supports %s" % (architecture, known))
    try:
        return NETWORKS[architecture](weights)
    except KeyError as missing:
        raise ValueError("the weights do not belong to %s: %s is missing" % (architecture, missing)) from missing


class Conv1dNet:
    """Blocks of convolution, GroupNorm, ReLU and pooling over time, then the mean and the maximum over time."""

    def __init__(self, weights: Weights) -> None:
        self.mean = weights["norm.running_mean"]  # [F]
        self.scale = 1.0 / np.sqrt(weights["norm.running_var"] + EPSILON)
        depth = sum(name.startswith("blocks.") and name.endswith(".0.weight") for name in weights)
        self.blocks = [
            parameters(weights, "blocks.%d.0" % i) + parameters(weights, "blocks.%d.1" % i) for i in range(depth)
        ]
        self.head = parameters(weights, "head")

    def __call__(self, features: np.ndarray) -> float:
        maps = ((features - self.mean) * self.scale).T.astype(np.float32)  # [F, T]
        for kernel, bias, scale, shift in self.blocks:
            maps = conv(maps, kernel, bias, padding=kernel.shape[2] // 2)  # [channels, T]
            maps = max_pool(relu(group_norm(maps, GROUPS, scale, shift)))  # [channels, T // 2]
        pooled = np.concatenate([maps.mean(axis=1), maps.max(axis=1)])  # [2 * channels]
        return float(linear(pooled, *self.head)[0])


class SpiraConv:
    """The paper's network with GroupNorm, two channels per group (``spira_v2``)."""

    def __init__(self, weights: Weights) -> None:
        self.convs = [spira_conv(weights, "conv.%d" % (5 * i)) for i in range(len(DILATIONS))]
        self.norms = [parameters(weights, "conv.%d" % (5 * i + 1)) for i in range(len(DILATIONS))]
        self.fc1 = parameters(weights, "fc1")
        self.fc2 = parameters(weights, "fc2")

    def __call__(self, features: np.ndarray) -> float:
        maps = features[None].astype(np.float32)  # [1, T, F]
        for i, dilation in enumerate(DILATIONS):
            kernel, bias = self.convs[i]
            maps = conv(maps, kernel, bias, dilation)  # [channels, T', F]
            maps = mish(self.normalise(maps, i))
            if i < len(DILATIONS) - 1:
                maps = max_pool(maps)  # [channels, T' // 2, F]
        flat = maps.transpose(1, 0, 2).reshape(-1)  # [T' * channels * F]
        return float(linear(mish(linear(flat, *self.fc1)), *self.fc2)[0])

    def normalise(self, maps: np.ndarray, i: int) -> np.ndarray:
        """Normalise the maps of block ``i``."""
        return group_norm(maps, len(maps) // 2, *self.norms[i])


class SpiraConvBatchNorm(SpiraConv):
    """The paper's network with BatchNorm, folded into the convolution before it (``spira_v1``)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        for i, (kernel, bias) in enumerate(self.convs):
            norm = "conv.%d" % (5 * i + 1)
            gain, shift = batch_norm(*self.norms[i], *running(weights, norm))  # [channels] each
            self.convs[i] = (kernel * gain[:, None, None], bias * gain + shift)

    def normalise(self, maps: np.ndarray, i: int) -> np.ndarray:
        """Return the maps: the convolution has normalised them."""
        return maps


NETWORKS: Dict[str, Callable[[Weights], Network]] = {
    "conv1d": Conv1dNet,
    "spira_v1": SpiraConvBatchNorm,
    "spira_v2": SpiraConv,
}


def parameters(weights: Weights, layer: str) -> Pair:
    """Return the weight and the bias of a layer."""
    return weights[layer + ".weight"], weights[layer + ".bias"]


def running(weights: Weights, layer: str) -> Pair:
    """Return the running mean and variance of a BatchNorm."""
    return weights[layer + ".running_mean"], weights[layer + ".running_var"]


def spira_conv(weights: Weights, layer: str) -> Pair:
    """Return the kernel [outputs, inputs, taps] and the bias of one of SpiraConv's two-dimensional convolutions."""
    kernel, bias = parameters(weights, layer)  # [outputs, inputs, taps, 1]
    return kernel[..., 0], bias


def conv(maps: np.ndarray, kernel: np.ndarray, bias: np.ndarray, dilation: int = 1, padding: int = 0) -> np.ndarray:
    """Convolve along time, ``[inputs, T, ...] -> [outputs, T', ...]``, as one matrix product over all taps.

    Args:
        kernel: [outputs, inputs, taps].
        padding: number of zeros added before and after.
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
    """Return BatchNorm in evaluation mode as a gain and a shift, [channels] each."""
    gain = scale / np.sqrt(variance + EPSILON)
    return gain, shift - mean * gain


def group_norm(maps: np.ndarray, groups: int, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Normalise each group of channels to mean 0 and variance 1, then scale and shift each channel."""
    centred = maps.reshape(groups, -1)
    centred = centred - centred.mean(axis=1, keepdims=True)  # [groups, ...]
    variance = np.array([group @ group for group in centred]) / centred.shape[1]  # [groups]
    gain = scale.reshape(groups, -1) / np.sqrt(variance + EPSILON)[:, None]  # [groups, channels per group]
    out = centred.reshape(len(maps), -1)
    out *= gain.reshape(-1, 1)
    out += shift[:, None]
    return out.reshape(maps.shape)


def relu(x: np.ndarray) -> np.ndarray:
    """Return ``max(x, 0)``."""
    return np.maximum(x, 0)


def mish(x: np.ndarray) -> np.ndarray:
    """Return ``x * tanh(log(1 + e^x))``, computed as ``x * n / (n + 2)`` with ``n = e^x (e^x + 2)``."""
    n = np.exp(np.minimum(x, 20))  # above 20 the quotient is 1 in float32
    n *= n + 2
    quotient = n + 2
    np.divide(n, quotient, out=quotient)
    quotient *= x
    return quotient


def max_pool(maps: np.ndarray) -> np.ndarray:
    """Return the larger of each two neighbours in time, ``[C, T, ...] -> [C, T // 2, ...]``."""
    even = maps.shape[1] // 2 * 2
    return np.maximum(maps[:, 0:even:2], maps[:, 1:even:2])


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Apply a linear layer, ``[inputs] -> [outputs]``."""
    return weight @ x + bias
