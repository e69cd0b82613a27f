"""Which images of a batch have not left it by an exit."""

import torch
from torch import Tensor

from routekit.routing.decision import Decision


class Remaining:
    """Keeps the images that are left apart from the batch that they came in, of `size` images.

    As long as nobody has left, nothing is picked or spread: a network without exits knows of no rows.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: Tensor | None = None

    @property
    def nobody(self) -> bool:
        """Whether all have left."""
        return self.rows is not None and not len(self.rows)

    def pick(self, values: Tensor) -> Tensor:
        """Values of the batch [size, ...] -> of the images that are left."""
        return values if self.rows is None else values[self.rows]

    def spread(self, decision: Decision) -> Decision:
        """What the images that are left decided -> the decision of the batch: -inf for those who never came here."""
        if self.rows is None:
            return decision
        others = decision.logits.shape[1] - 1
        logits = decision.logits.new_tensor([-torch.inf] * others + [0.0]).repeat(self.size, 1)
        weights = decision.weights.new_tensor([0.0] * others + [1.0]).repeat(self.size, 1)
        choice = torch.full((self.size,), others, device=decision.choice.device)
        return Decision(
            logits.index_copy(0, self.rows, decision.logits),
            weights.index_copy(0, self.rows, decision.weights),
            choice.index_copy(0, self.rows, decision.choice),
        )

    def nothing(self, like: Tensor, sinks: int = 2) -> Decision:
        """What a batch decides where nobody is left; on the device of `like`."""
        none = torch.zeros(0, sinks, device=like.device)
        return self.spread(Decision(none, none, none.argmax(dim=1)))

    def answered(self, answers: Tensor | None, said: Tensor) -> Tensor:
        """The answers of the batch, now that the images that are left were told `said` [b, classes]."""
        return said if answers is None or self.rows is None else answers.index_copy(0, self.rows, said)

    def leave(self, go: Tensor) -> Tensor:
        """Let all but the images that `go` [b] bool leave; returns the places of those among what was left."""
        on = go.nonzero().squeeze(1)
        self.rows = on if self.rows is None else self.rows[on]
        return on
