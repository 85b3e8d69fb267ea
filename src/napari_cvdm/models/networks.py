"""A local convolutional U-Net, in which no layer sees more than its neighbourhood, and a DFCAN.

The U-Net has no normalisation over space and no attention. The output of a pixel therefore depends
only on its receptive field, and a tile with enough halo gives exactly the result of the whole
image. The first layer folds r x r pixels into channels (pixel unshuffle), which gives most of the
speed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

# A card comes from anywhere: beyond these it would fill the memory or never end.
MOST_LEVELS, MOST_BLOCKS, WIDEST = (8, 32, 1024)
MOST_PARAMETERS = 100_000_000  # fifty times those of a shipped model; 1.2 GB while it is loaded
# Of a network's widest level, alive at once: what passes through, its copies for the caller and for
# a skip, and the inside of a block. Measured by
# `python -m pytest -s tests/reconstruction/test_cost.py -k profiler`, which prints the bytes of
# this form over those of torch's profiler.
FEATURE_MAPS = 7
BF16_COLUMNS = 9 * 2  # bytes of a channel's 3 x 3 neighbourhood
# Exponent of the amplitude spectrum (the authors' gamma); with 1, low frequencies would dominate.
POWER = 0.8
Modulation = tuple[Tensor, Tensor] | None
"""Gain and shift of one block, each (B, width, Y, X); None for a network without a noise level."""


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether a value is a whole number from `low` to `high`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def check_whole(name: str, value: object, most: int) -> None:
    """ValueError unless a value is a whole number from 1 to `most`."""
    if not is_whole(value, 1, most):
        raise ValueError(f"{name} is {value!r:.80}; a whole number from 1 to {most} is needed.")


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Shape of a U-Net.

    Parameters
    ----------
    widths : tuple of int
        Channels at each level, finest first; each level halves the resolution.
    blocks : tuple of int
        Residual blocks at each level (on both arms, but once at the coarsest).
    level_channels : int
        Channels of the embedded noise level; 0 for a network without one.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    blocks: tuple[int, ...] = (1, 2, 3)
    level_channels: int = 16

    def __post_init__(self) -> None:
        shape = (*self.widths, *self.blocks, self.level_channels)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in shape):
            raise ValueError(
                f"widths, blocks and level_channels are {shape!r:.80}; whole numbers are needed."
            )
        if len(self.widths) != len(self.blocks) or not 1 <= len(self.widths) <= MOST_LEVELS:
            raise ValueError(
                f"there are {len(self.widths)} widths and {len(self.blocks)} blocks; as many of "
                f"both are needed, 1 to {MOST_LEVELS}."
            )
        if not all(1 <= width <= WIDEST for width in self.widths) or not all(
            0 <= count <= MOST_BLOCKS for count in self.blocks
        ):
            raise ValueError(
                f"widths are {self.widths} and blocks {self.blocks}; allowed are 1 to {WIDEST}, "
                f"and 0 to {MOST_BLOCKS}."
            )
        if not 0 <= self.level_channels <= WIDEST:
            raise ValueError(f"level_channels is {self.level_channels}; allowed is 0 to {WIDEST}.")

    @property
    def _level_blocks(self) -> list[int]:
        """Residual blocks at each level, of both arms together."""
        return [2 * count for count in self.blocks[:-1]] + [self.blocks[-1]]

    def count_parameters(self, channels: int) -> int:
        """Weights and biases, but for two biases, for channels of input and output together."""
        outer, embedded = 9 * channels * self.widths[0], self.level_channels
        blocks = 0
        for count, width in zip(self._level_blocks, self.widths, strict=True):
            modulation = 2 * width * (embedded + 1) if embedded else 0
            blocks += count * (18 * width**2 + 2 * width + modulation)
        steps = sum(8 * fine * coarse + fine + coarse for fine, coarse in pairwise(self.widths))
        return blocks + steps + embedded**2 + 5 * embedded + outer

    @property
    def stride(self) -> int:
        """Pixels of the folded grid to one pixel of the coarsest level."""
        return 2 ** (len(self.widths) - 1)

    @property
    def receptive_radius(self) -> int:
        """Distance [folded pixels] from which a pixel can be changed.

        Every 3 x 3 convolution adds the stride of its level.
        """
        convolutions = sum(2 * count * 2**level for level, count in enumerate(self._level_blocks))
        return 2 + convolutions + self.stride

    def live_bytes(
        self, precision: str, samples: int = 1, *, one_by_one: bool = False, unfolds: bool = False
    ) -> float:
        """Bytes that are alive at once at a folded pixel, at the peak of an evaluation.

        `samples` images go through together and share one noise level; or `one_by_one`, while the
        modulations of all blocks are kept. A bf16 convolution `unfolds` its input, as torch does on
        older CPUs.
        """
        # Under autocast convolutions give bf16, but sums at the first level stay float32.
        bf16 = precision == "bf16"
        first, deeper, gain_bytes = (3.5, 2.5, 2.0) if bf16 else (4.0, 4.0, 4.0)
        channels = [width / 4**level for level, width in enumerate(self.widths)]
        maps = [channels[0] * first, *(share * deeper for share in channels[1:])]
        features = FEATURE_MAPS * max(maps) + sum(maps[1:-1])
        if bf16 and unfolds:
            features += BF16_COLUMNS * max(channels)
        if not self.level_channels:
            return samples * features
        gains = [2 * gain_bytes * share for share in channels]
        kept = sum(gain * count for gain, count in zip(gains, self._level_blocks, strict=True))
        embedded = 4 / 3 * gain_bytes * self.level_channels
        return embedded + (features + kept if one_by_one else samples * features + max(gains))


def zero_init(layer: nn.Conv2d, bias: float = 0.0) -> None:
    """Make a layer start as the constant `bias`, whatever it is given."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


class ResidualBlock(nn.Module):
    """x + conv(silu(modulated conv(silu(x)))); starts as the identity."""

    def __init__(self, width: int, level_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Conv2d(level_channels, 2 * width, 1) if level_channels else None
        zero_init(self.second)

    def modulated(self, level: Tensor | None) -> Modulation:
        """1 + scale, and shift, for a level (B, level_channels, Y, X); laid out as features."""
        if self.modulation is None:
            return None
        scale, shift = self.modulation(level).chunk(2, dim=1)
        return (1 + scale).contiguous(memory_format=torch.channels_last), shift.contiguous(
            memory_format=torch.channels_last
        )

    def forward(self, features: Tensor, modulation: Modulation) -> Tensor:
        """Features of shape (B, width, Y, X), and what the noise level does to them."""
        hidden = self.first(functional.silu(features))
        if modulation is not None:
            gain, shift = modulation
            hidden = torch.addcmul(shift, hidden, gain)
        return features + self.second(functional.silu(hidden))


def _in_full_precision(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 x 3 convolution outside autocast: at the doors bf16 would round radians to hundredths."""
    with torch.autocast(features.device.type, enabled=False):
        return functional.conv2d(features.to(weight.dtype), weight, bias, padding=1)


def _through(blocks: nn.Module, features: Tensor, modulations: Iterator[Modulation]) -> Tensor:
    for block in blocks.children():
        features = block(features, next(modulations))
    return features


class UNet(nn.Module):
    """U-Net on a folded grid, with an optional noise level at every pixel."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        widths, channels = config.widths, config.level_channels
        self.embed = (
            nn.Sequential(
                nn.Conv2d(3, channels, 1), nn.SiLU(), nn.Conv2d(channels, channels, 1), nn.SiLU()
            )
            if channels
            else None
        )
        self.entry = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths)
        )

        def arm() -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(ResidualBlock(width, channels) for _ in range(count))
                for width, count in zip(widths, config.blocks, strict=True)
            )

        self.encoder, self.decoder = arm(), arm()[:-1]
        self.exit = nn.Conv2d(widths[0], outputs, 3, padding=1)
        zero_init(self.exit)

    def forward(self, features: Tensor, level: Tensor | None = None) -> Tensor:
        """Compute the output (B, outputs, Y, X).

        `features` is the folded input (B, inputs, Y, X), and `level` is the level map (B, 1, Y, X).
        Y and X must be multiples of the config's stride.
        """
        return self.forward_blocks(self.first_layer_features(features), self.modulations(level))

    def first_layer_features(self, features: Tensor) -> Tensor:
        """Contribution of the last n channels of an input to the first layer, with its bias.

        Maps (B, n, Y, X) to (B, widths[0], Y, X); n may be all channels. The layer is a sum over
        channels, so that channels that do not change between two inputs are convolved only once:
        see `forward_blocks`.
        """
        return _in_full_precision(
            features, self.entry.weight[:, -features.shape[1] :], self.entry.bias
        )

    def modulations(self, level: Tensor | None) -> Iterator[Modulation]:
        """The modulation of every block by a noise level, in the order of `forward_blocks`.

        Each is computed when it is needed. It depends on the level alone: images of one level may
        share the modulations, as a list.
        """
        pyramid = self._level_pyramid(level)
        for depth, blocks in (*enumerate(self.encoder), *reversed(list(enumerate(self.decoder)))):
            for block in blocks.children():
                yield block.modulated(pyramid[depth])  # type: ignore[operator]  # torch's stubs: a child may be a tensor

    def forward_blocks(
        self, features: Tensor, modulations: Iterable[Modulation], changing: Tensor | None = None
    ) -> Tensor:
        """Compute `forward` from the results of `first_layer_features` and `modulations`.

        `changing` is the first channels of the input, where `features` does not include them.
        """
        given = iter(modulations)
        if changing is not None:
            features = features + _in_full_precision(
                changing, self.entry.weight[:, : changing.shape[1]], None
            )
        skips: list[Tensor] = []
        for depth, blocks in enumerate(self.encoder):
            if depth:
                skips.append(features)
                features = self.down[depth - 1](features)
            features = _through(blocks, features, given)
        for depth in reversed(range(len(self.decoder))):
            features = self.up[depth](features) + skips[depth]
            features = _through(self.decoder[depth], features, given)
        return _in_full_precision(functional.silu(features), self.exit.weight, self.exit.bias)

    def _level_pyramid(self, level: Tensor | None) -> list[Tensor | None]:
        if self.embed is None or level is None:
            return [None] * len(self.encoder)
        embedded = self.embed(torch.cat([level, torch.sin(2 * level), torch.cos(2 * level)], dim=1))
        pyramid: list[Tensor | None] = [embedded]
        for _ in self.down:
            embedded = functional.avg_pool2d(embedded, 2)
            pyramid.append(embedded)
        return pyramid


@dataclass(frozen=True, slots=True, kw_only=True)
class DFCANConfig:
    """Shape of a DFCAN.

    Parameters
    ----------
    width : int
        Channels (64 in the paper).
    groups, blocks : int
        Residual groups, and attention blocks in each (4 and 4 in the paper).
    reduction : int
        Channels to one inside the attention (16 in the paper).
    """

    width: int = 32
    groups: int = 2
    blocks: int = 2
    reduction: int = 8

    def __post_init__(self) -> None:
        for name, most in (
            ("width", WIDEST),
            ("groups", MOST_BLOCKS),
            ("blocks", MOST_BLOCKS),
            ("reduction", WIDEST),
        ):
            check_whole(name, getattr(self, name), most)

    def count_parameters(self, channels: int) -> int:
        """Weights and biases, but for two biases, for channels of input and output together."""
        outer = 9 * channels * self.width
        few = max(1, self.width // self.reduction)
        attention = 2 * few * self.width + few + self.width
        one = 27 * self.width**2 + 3 * self.width + attention
        return outer + self.groups * self.blocks * one

    @property
    def stride(self) -> int:
        """It never leaves its grid."""
        return 1

    @property
    def receptive_radius(self) -> int:
        """Of its convolutions, in folded pixels; the attention sees everything."""
        return 2 + 3 * self.groups * self.blocks

    def live_bytes(self, precision: str) -> float:
        """As of a U-Net; the spectrum is one map more."""
        return (3.5 if precision == "bf16" else 4.0) * (FEATURE_MAPS + 1) * self.width


class FourierChannelAttention(nn.Module):
    """x + y a: y is two convolutions of x, and a is a factor for each channel.

    a is computed from the convolved amplitude spectrum of y.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.spectrum = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        few = max(1, width // reduction)
        self.weigh = nn.Sequential(
            nn.Conv2d(width, few, 1), nn.ReLU(), nn.Conv2d(few, width, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, Y, X) to the same shape."""
        found = self.body(features)
        with torch.autocast(features.device.type, enabled=False):
            spectrum = torch.fft.fft2(found.float(), norm="ortho")
            amplitude = torch.fft.fftshift(spectrum, dim=(-2, -1)).abs().clamp(min=1e-8) ** POWER
        return features + found * self.weigh(self.spectrum(amplitude))


class DFCAN(nn.Module):
    """A small DFCAN on a folded grid, for comparison (Qiao et al., Nature Methods 18, 2021).

    Its attention uses the power spectrum of the whole input. The output therefore depends a little
    on the crop, and tiles do not give exactly the result of the whole image.
    """

    def __init__(self, inputs: int, outputs: int, config: DFCANConfig) -> None:
        super().__init__()
        self.entry = nn.Conv2d(inputs, config.width, 3, padding=1)

        def group() -> nn.Sequential:
            parts = (config.width, config.reduction)
            return nn.Sequential(*(FourierChannelAttention(*parts) for _ in range(config.blocks)))

        self.groups = nn.ModuleList(group() for _ in range(config.groups))
        self.exit = nn.Conv2d(config.width, outputs, 3, padding=1)
        zero_init(self.exit)  # it starts from the physical estimate, as the other networks do

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, Y, X) -> (B, outputs, Y, X)."""
        features = functional.gelu(self.entry(features))
        for group in self.groups:
            features = features + group(features)
        return self.exit(features)
