"""When things happen in a training run: phases, learning rate, temperature, budget."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.registry import one_of
from routekit.routing.gate import gates

# Wang et al. lower the learning rate at 150 and 200 epochs, of the 250 that their recipe has here.
MILESTONES = (0.6, 0.8)

Temperature = Annotated[float, Field(gt=0)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig:
    """How a network is trained; fractions are of the whole run.

    batch_size:      samples a step, over all processes; each is augmented into `copies` copies (M of Eq. 5)
    learning_rate:   the peak, of the backbone; routers take `router_learning_rate` times it (a least-squares fit, as
                     the benefit gate's, wants less than 1; the other gates 1 to 10)
    decay:           of the learning rate; "exponential" halves it every `half_life`, a fraction of the run
    router_weight_decay: of the routers' weights, not their biases: routes differ between images where that pays
    gate:            the relaxation while routers learn; its temperature goes geometrically from the first to the last
    anneal:          the fraction in which the wanted cost falls from the dense cost to the target
    hard:            the last fraction, under hard routing with frozen routers
    precision:       auto is bf16 where the hardware multiplies it natively (CUDA, CPUs with AMX), else fp32
    congestion:      with the benefit gate: keeps routes diverse (see `cost/price.py`)
    frozen:          leave the network's own weights as they are: only what was added to it learns; None for where
                     that is of use, which is where all that is added has weights of its own
    throughput_adjusted: scale what each section between exits learns by how many images get there (TALR), where that
                     is all that it learns from: not beside a weight of heads, or feature distillation
    check_every:     steps between two measurements of the realised cost on held-out images
    """

    epochs: Annotated[float, Field(ge=0)] = 6.0
    batch_size: Annotated[int, Field(ge=1)] = 128
    copies: Annotated[int, Field(ge=1)] = 1
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    router_learning_rate: Annotated[float, Field(gt=0)] = 0.3
    router_weight_decay: Annotated[float, Field(ge=0)] = 0.003
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decay: Literal["cosine", "multistep", "exponential"] = "cosine"
    half_life: Annotated[float, Field(gt=0)] = 0.125
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    gate: Annotated[str, one_of("gate", gates, but=["hard"])] = "benefit"
    temperature: tuple[Temperature, Temperature] = (1.0, 1.0)
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.1
    hard: Annotated[float, Field(ge=0, le=1)] = 0.7
    congestion: Annotated[float, Field(ge=0)] = 0.4
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    frozen: bool | None = None
    throughput_adjusted: bool = True
    check_every: Annotated[int, Field(ge=1)] = 20
    check_images: Annotated[int, Field(ge=1)] = 256


@dataclass(frozen=True)
class Schedule:
    """A TrainingConfig over a known number of steps."""

    config: TrainingConfig
    steps_per_epoch: int
    learns: bool

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return round(self.config.epochs * self.steps_per_epoch)

    @property
    def hard_from(self) -> int:
        """The first step under hard routing with frozen routers; step 0 where there is nothing to learn."""
        return round(self.steps * (1 - self.config.hard)) if self.learns else 0

    def is_hard(self, step: int) -> bool:
        """Whether `step` is in the last phase."""
        return step >= self.hard_from

    @property
    def anneal_steps(self) -> int:
        """Steps over which the wanted cost falls."""
        return round(self.steps * self.config.anneal)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up from near zero, then by `decay`: a half cosine to 0, steps, or halved again and again.

        The steps are those of Wang et al.: a tenth after each of `MILESTONES`.
        """
        done = step / max(1, self.steps)
        if done < self.config.warmup:
            return self.config.learning_rate * (step + 1) / max(1.0, self.config.warmup * self.steps)
        if self.config.decay == "exponential":
            return float(self.config.learning_rate * 0.5 ** (done / self.config.half_life))
        if self.config.decay == "multistep":
            return float(self.config.learning_rate * 0.1 ** sum(done >= milestone for milestone in MILESTONES))
        after = (done - self.config.warmup) / (1 - self.config.warmup)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * after))

    def temperature(self, step: int) -> float:
        """The gate's temperature, from first to last over the steps in which routers learn."""
        first, last = self.config.temperature
        return float(first * (last / first) ** min(1.0, step / max(1, self.hard_from)))
