"""An autoencoder trained with a critic, so that it restores the small scales that coding loses.

The mean square error is least for the mean of all fields that share a latent, which is smoother
than any of them. The critic (`learning/networks/critic.py`) asks for fields that look like true
ones, patch by patch, at the price of a larger mean square error. A trained coder is applied as any
other autoencoder, without the critic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from scaled_mpi.compressors.autoencoder import Autoencoder
from scaled_mpi.compressors.lesson import CodingLesson
from scaled_mpi.compressors.network_coder import seeded
from scaled_mpi.config import InputError, Spec
from scaled_mpi.learning.settings import Result
from scaled_mpi.parallel.comm import Comm
from scaled_mpi.parallel.root import on_root

if TYPE_CHECKING:
    import torch

    from scaled_mpi.learning.networks.coding import CodingNetwork
    from scaled_mpi.learning.networks.critic import Judged


class Critic(Spec):
    """The network that separates decoded fields from true ones; it learns from step `start` on."""

    start: NonNegativeInt | None = Field(
        default=None,
        description="steps of the plain autoencoder before it; by default a quarter of all",
    )
    weight: NonNegativeFloat = Field(
        default=0.2, description="its share of what moves the field made"
    )
    width: PositiveInt = Field(
        default=16, description="features of its first layer, doubled in the next"
    )
    depth: PositiveInt = Field(
        default=3, description="strided layers; 3 judge patches of 24 cells"
    )

    @property
    def patch(self) -> int:
        """Cells an axis that one number of the critic judges."""
        return 3 * 2**self.depth


class Adversarial(Autoencoder):
    """A convolutional autoencoder with a patch critic; lengths are in cells of the field."""

    kind: Literal["adversarial"] = "adversarial"  # type: ignore[assignment]
    critic: Critic = Critic()

    @model_validator(mode="after")
    def _critic_fits(self) -> Adversarial:
        least = self.critic.patch
        if self.patch < least:
            raise InputError(
                f"compressor.critic.depth: {self.critic.depth} is not allowed: its patch of "
                f"{least} cells exceeds compressor.patch. Allowed: patches of at most "
                f"{self.patch} cells"
            )
        if self.begin >= self.training.steps:
            raise InputError(
                f"compressor.critic.start: {self.critic.start} is not allowed: the training "
                f"ends before. Allowed: less than training.steps ({self.training.steps})"
            )
        return self

    @property
    def begin(self) -> int:
        """The first step that the critic takes part in."""
        return self.training.steps // 4 if self.critic.start is None else self.critic.start

    def _pupil(self, network: CodingNetwork, seed: int) -> Judged:
        from scaled_mpi.learning.networks.critic import Judged, PatchCritic

        spec, of = self.critic, (len(network.factor), network.project.in_channels)
        critic = seeded(seed, lambda: PatchCritic(*of, spec.width, spec.depth))
        return Judged(network, critic, spec.weight)

    def _lesson(self, *of: Any) -> CriticContest:
        return CriticContest(self.begin, self._recipe(), *of)

    def _chosen(
        self, pupil: torch.nn.Module, result: Result, exam: CodingLesson, comm: Comm
    ) -> dict[str, float]:
        """The last weights: the loss that names the best ones knows nothing of the critic."""
        import torch

        from scaled_mpi.learning.distributed import one_thread
        from scaled_mpi.learning.weights import load_into, load_weights

        tensors, _ = load_weights(result.last)
        load_into(pupil, tensors, str(result.last))

        def scores() -> dict[str, float]:
            with one_thread(), torch.no_grad():
                return exam.judge(pupil)

        found = on_root(comm, scores)
        return {name: value for name, value in found.items() if name != "loss"}


class CriticContest(CodingLesson):
    """The lesson of an autoencoder that also has to pass its critic, from step `begin` on."""

    def __init__(self, begin: int, *of: Any) -> None:
        super().__init__(*of)
        self.begin = begin

    def sample(self, step: int, micro: int, size: int) -> Any:
        """Normalised fields (size, C, *(patch + 2 ring)), and the step."""
        return {"fields": super().sample(step, micro, size), "step": step}

    def loss(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """The loss of the plain lesson, the coder's part and the critic's; a scalar tensor."""
        made, truth, total = self.remade(model, batch["fields"])
        if batch["step"] < self.begin:
            return total + model.truce()
        return total + model.contest(made, truth, total)

    def further_scores(
        self, model: Any, made: torch.Tensor, truth: torch.Tensor
    ) -> dict[str, float]:
        """Loss of the critic: 1 if blind, 0 if right by a margin; made, truth (1, C, *cells)."""
        from scaled_mpi.learning.networks.critic import hinge

        return {"critic": float(hinge(model.critic, truth, made))}
