"""The masked form: everything is computed, and of each unit what an image's route asks for is kept."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from routekit.execution.executor import Segment, SparseExecutor


class MaskedExecutor(SparseExecutor):
    """Gives the sparse executor's answers at the price of the dense network, and of its routers.

    Where units are so small that gathering costs more than computing, it is the faster of the two. It does not execute
    what `CostModel` charges.
    """

    def _group(self, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, np.ndarray, Any]:
        margins = []
        for junction, unit in zip(segment.junctions, segment.units, strict=True):
            asked, state = self.network.routers.survey(range(junction, junction + 1), x, state)
            margins.append(asked)
            ran = unit.run(x)
            x = torch.where((asked >= 0).view(-1, 1, 1, 1), ran, unit.skip(x).to(ran.dtype))
        return x, torch.cat(margins, dim=1).float().cpu().numpy(), state
