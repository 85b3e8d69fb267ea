"""CVDM: a schedule, a denoiser and (for the zero-mean target) a regression mean, with a condition.

The channels of the condition are on the grid of the input image. The grid of the target is
`upsampling` times finer. Both are folded onto one working grid, on which all three networks run.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cvdm.core.device import prefers_sequential, to_device
from napari_cvdm.core.noise import noise_field
from napari_cvdm.diffusion.process import PREDICTIONS, TARGETS, half_log_snr
from napari_cvdm.models.networks import (
    DFCAN,
    MOST_PARAMETERS,
    DFCANConfig,
    Modulation,
    UNet,
    UNetConfig,
    check_whole,
)
from napari_cvdm.models.schedule import (
    COSINE_RATE,
    DILATIONS,
    LINEAR_RATE,
    Clock,
    CosineClock,
    FixedRate,
    GlobalRate,
    LinearClock,
    PixelRate,
    check_schedule,
)

# Half log-SNR is about -20 to 6; the network gets it divided by 2 and clipped to +-3.
LEVEL_SCALE = 2.0
LEVEL_LIMIT = 3.0
LARGEST_COUNT = 64  # a card comes from anywhere
NOISE_SCALES = (0.5, 2.0)
SCHEDULES = ("pixel-wise", "global", "linear", "cosine")
LEARNED_SCHEDULES = ("pixel-wise", "global")
LARGEST_LOG_STD = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CVDMConfig:
    """All settings that define the networks; the card stores them to rebuild a checkpoint.

    Parameters
    ----------
    condition_channels : int
        Channels of the condition.
    upsampling : int
        Target pixels to one condition pixel along each axis, 1 or 2.
    fold : int
        Target pixels folded into one on the working grid, a multiple of `upsampling`.
    denoiser : UNetConfig
        Shape of the U-Net that sees the noise.
    mean : UNetConfig or DFCANConfig
        Shape of the mean network, which sees no noise level.
    prediction : {"v", "eps"}
        What the denoiser predicts.
    target : {"zero-mean", "residual", "direct", "regression"}
        The image around which the target is diffused. A regression is the mean network alone, and
        nothing is diffused.
    schedule : {"pixel-wise", "global", "linear", "cosine"}
        One learned rate for each pixel, or one for all, or a fixed schedule (the CDDPM of the
        paper).
    rate_dilations : tuple of int
        Dilations of the hidden layers of the pixel-wise rate, see `PixelRate`. They define its
        receptive field. Empty for a single 1 x 1 layer.
    clock_terms : {2, 8, 32}
        Functions that a learned clock is mixed from.
    residual_std : UNetConfig or DFCANConfig, optional
        Shape of the network that predicts sigma(x), the expected error of the mean. The target is
        divided by sigma(x), so that the added noise follows it, and dim and bright structures are
        diffused alike. Without this network, one constant divides all pixels.
    noise_scale : float
        Factor, 0.5 to 2, for the noise that stochastic samplers add at each step. Use a factor
        above 1 where the denoiser removes too much noise and samples would be too alike (S_noise
        of Karras et al., arXiv 2206.00364, algorithm 2).
    """

    condition_channels: int
    upsampling: int = 1
    fold: int = 2
    denoiser: UNetConfig = field(default_factory=UNetConfig)
    mean: UNetConfig | DFCANConfig = field(default_factory=lambda: UNetConfig(level_channels=0))
    prediction: str = "v"
    target: str = "zero-mean"
    schedule: str = "pixel-wise"
    rate_dilations: tuple[int, ...] = DILATIONS
    clock_terms: int = 8
    residual_std: UNetConfig | DFCANConfig | None = None
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("condition_channels", "upsampling", "fold"):
            check_whole(name, getattr(self, name), LARGEST_COUNT)
        for name, allowed in (
            ("prediction", tuple(PREDICTIONS)),
            ("target", tuple(TARGETS)),
            ("schedule", SCHEDULES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(allowed)}.")
        check_schedule(self.rate_dilations, self.clock_terms)
        low, high = NOISE_SCALES
        if not isinstance(self.noise_scale, int | float) or not low <= self.noise_scale <= high:
            raise ValueError(
                f"noise_scale is {self.noise_scale!r:.80}; a number from {low:g} to {high:g} is "
                "needed, 1 is usual."
            )
        if self.fold % self.upsampling:
            raise ValueError(
                f"fold is {self.fold}; it must be a multiple of upsampling, {self.upsampling}."
            )
        # In: the condition, the mean and the noisy target. Out: the target.
        channels = self.condition_channels * self.condition_fold**2 + 3 * self.fold**2
        count = sum(network.count_parameters(channels) for network in self._networks)
        if count > MOST_PARAMETERS:
            raise ValueError(
                f"the networks have {count:.4g} parameters; at most {MOST_PARAMETERS:,} are "
                "allowed. Choose smaller widths, fewer blocks or a smaller fold."
            )

    @property
    def _networks(self) -> list[UNetConfig | DFCANConfig]:
        networks = (self.denoiser, self.mean, self.residual_std)
        return [network for network in networks if network is not None]

    @property
    def diffused(self) -> bool:
        """Whether samples differ: a regression has one answer."""
        return self.target != "regression"

    @property
    def learned_schedule(self) -> bool:
        """Whether the schedule has something to learn."""
        return self.diffused and self.schedule in LEARNED_SCHEDULES

    @property
    def condition_fold(self) -> int:
        """Condition pixels folded into one on the working grid."""
        return self.fold // self.upsampling

    @property
    def alignment(self) -> int:
        """Sizes and tile origins on the working grid must be multiples of this."""
        return max(network.stride for network in self._networks)


def regression_network(inputs: int, outputs: int, config: UNetConfig | DFCANConfig) -> UNet | DFCAN:
    """The network of a shape."""
    if isinstance(config, DFCANConfig):
        return DFCAN(inputs, outputs, config)
    return UNet(inputs, outputs, config)


class CVDM(nn.Module):
    """The three networks of one model."""

    residual_scale: Tensor

    def __init__(self, config: CVDMConfig) -> None:
        super().__init__()
        self.config = config
        self.prediction = PREDICTIONS[config.prediction]
        self.centre = TARGETS[config.target]
        folded = config.condition_channels * config.condition_fold**2
        pixels = config.fold**2
        # The order of the networks fixes the random start of a training.
        self.mean: UNet | DFCAN | None = None
        features = folded
        if config.target in ("zero-mean", "regression"):
            self.mean = regression_network(folded, pixels, config.mean)
            features += pixels
        self.denoiser: UNet | None = None
        if config.diffused:
            self.denoiser = UNet(features + pixels, pixels, config.denoiser)
        self.rate_network: PixelRate | GlobalRate | FixedRate
        self.clock: Clock | LinearClock | CosineClock
        if config.schedule == "linear":
            self.rate_network, self.clock = FixedRate(LINEAR_RATE, config.fold), LinearClock()
        elif config.schedule == "cosine":
            self.rate_network, self.clock = FixedRate(COSINE_RATE, config.fold), CosineClock()
        else:
            self.rate_network = (
                PixelRate(features, config.fold, config.rate_dilations)
                if config.schedule == "pixel-wise"
                else GlobalRate(config.fold)
            )
            self.clock = Clock(config.clock_terms)
        self.std_network: UNet | DFCAN | None = None
        if config.residual_std is not None and config.diffused:
            self.std_network = regression_network(features, pixels, config.residual_std)
        # With the weights in the file, since no sample can be decoded without it.
        self.register_buffer("residual_scale", torch.tensor(1.0))

    def schedule_parameters(self) -> list[nn.Parameter]:
        """Parameters of the rate and of the clock."""
        return [*self.rate_network.parameters(), *self.clock.parameters()]

    def mean_residual(self, condition: Tensor) -> Tensor:
        """Mean residual, which is added to the initial estimate: (B, C, Y, X) -> (B, 1, uY, uX).

        It is zero without a mean network.
        """
        folded = functional.pixel_unshuffle(condition, self.config.condition_fold)
        if self.mean is None:
            batch, _, height, width = folded.shape
            return folded.new_zeros(batch, 1, height * self.config.fold, width * self.config.fold)
        return functional.pixel_shuffle(self.mean(folded), self.config.fold).to(condition.dtype)

    def features(self, condition: Tensor, mean_residual: Tensor) -> Tensor:
        """What the denoiser and the rate see of the image, on the working grid."""
        folded = functional.pixel_unshuffle(condition, self.config.condition_fold)
        if self.mean is None:
            return folded
        # In units of its own spread, as the target is.
        scaled = functional.pixel_unshuffle(mean_residual / self.residual_scale, self.config.fold)
        return torch.cat([folded, scaled], dim=1)

    def rate(self, features: Tensor) -> Tensor:
        """lambda(x) of shape (B, 1, uY, uX), from the features.

        It is computed in full precision: torch 2.13 gives NaN for the bf16 gradient of a dilated
        convolution in channels-last order on the CPU.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.rate_network(features)

    def residual_std(self, features: Tensor) -> Tensor:
        """sigma(x), by which the target is divided, (B, 1, uY, uX) in network units.

        It lies within a factor of e^4 of the residual scale.
        """
        fold = self.config.fold
        if self.std_network is None:
            batch, _, height, width = features.shape
            return self.residual_scale.expand(batch, 1, height * fold, width * fold)
        logarithm = functional.pixel_shuffle(self.std_network(features), fold).to(features.dtype)
        # Smooth, so that the bound does not stop the gradient as a clip does.
        bounded = LARGEST_LOG_STD * torch.tanh(logarithm / LARGEST_LOG_STD)
        return self.residual_scale * torch.exp(bounded)

    def first_layer_features(self, features: Tensor) -> Tensor:
        """Contribution of the features to the denoiser's first layer, used at every step."""
        return features if self.denoiser is None else self.denoiser.first_layer_features(features)

    def output(self, noisy: Tensor, neg_log_gamma: Tensor, first_layer_features: Tensor) -> Tensor:
        """The denoiser's raw output (v or eps) for a noisy target.

        `noisy`, n = lambda T (`neg_log_gamma`) and the result have the shape (B, 1, uY, uX).
        `first_layer_features` is that of an image. Several noisy targets may share one n and one
        image, which then have a batch of 1. The network computes only once what depends on these
        two alone.
        """
        if self.denoiser is None:
            raise TypeError("a regression has no denoiser, so there is no output to ask for.")
        # At every pixel, since the schedule is pixel-wise: no single time describes the noise.
        level = (half_log_snr(neg_log_gamma) / LEVEL_SCALE).clamp(-LEVEL_LIMIT, LEVEL_LIMIT)
        modulations = self.denoiser.modulations(functional.avg_pool2d(level, self.config.fold))
        if len(noisy) == len(first_layer_features) or not prefers_sequential(noisy.device):
            return self._denoise(self.denoiser, noisy, first_layer_features, modulations)
        shared = tuple(modulations)  # computed once, and read once for each image
        alone = (
            self._denoise(self.denoiser, one, first_layer_features, shared)
            for one in noisy.split(1)
        )
        return torch.cat(tuple(alone))

    def _denoise(
        self,
        denoiser: UNet,
        noisy: Tensor,
        first_layer_features: Tensor,
        modulations: Iterable[Modulation],
    ) -> Tensor:
        folded = functional.pixel_unshuffle(noisy, self.config.fold)
        output = denoiser.forward_blocks(first_layer_features, modulations, folded)
        return functional.pixel_shuffle(output, self.config.fold).to(noisy.dtype)

    def clean(self, noisy: Tensor, neg_log_gamma: Tensor, first_layer_features: Tensor) -> Tensor:
        """The clean (centred, scaled) target by the denoiser; zero, the centre, of a regression."""
        if self.denoiser is None:
            return torch.zeros_like(noisy)
        output = self.output(noisy, neg_log_gamma, first_layer_features)
        return self.prediction.clean(noisy, output, neg_log_gamma)

    def noise(
        self,
        shape: tuple[int, int],
        samples: Sequence[int],
        step: int,
        seed: int,
        origin: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Noise that a sampler adds at a step, (S, 1, uY, uX).

        It is a function of seed, sample, step and absolute pixel. Step 0 is the start: pure noise,
        whatever `noise_scale` is. Samples 2 k and 2 k + 1 have opposite noise, so that most of it
        cancels in their mean (antithetic variates; Hammersley and Morton, Proc. Camb. Phil. Soc.
        52, 449 (1956)).
        """
        fields = [
            (1 - 2 * (sample % 2))
            * noise_field(shape, seed=seed, sample=sample // 2, step=step, origin=origin)
            for sample in samples
        ]
        noise = to_device(np.stack(fields)[:, None], self.residual_scale.device)
        return noise * self.config.noise_scale if step else noise

    def encode(
        self, truth: Tensor, initial_estimate: Tensor, mean_residual: Tensor, std: Tensor
    ) -> Tensor:
        """Convert a truth to the centred, scaled target; `std` is the image's `residual_std`."""
        return (truth - self.centre(initial_estimate, mean_residual)) / std

    def decode(
        self, sample: Tensor, initial_estimate: Tensor, mean_residual: Tensor, std: Tensor
    ) -> Tensor:
        """The inverse of `encode`."""
        return sample * std + self.centre(initial_estimate, mean_residual)
