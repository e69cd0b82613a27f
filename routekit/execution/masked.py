"""The masked form: everything is computed, and of each unit what an image's route asks for is kept."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from routekit.execution.executor import Segment, SparseExecutor, ask_units


class MaskedExecutor(SparseExecutor):
    """Gives the sparse executor's answers at the price of the dense network, and of its routers.

    Where units are so small that gathering costs more than computing, it is the faster of the two. It does not execute
    what `CostModel` charges.
    """

    def _group(self, segment: Segment, x: Tensor, state: Any) -> tuple[Tensor, np.ndarray, Any]:
        margins = []
        for junction, unit in zip(segment.junctions, segment.units, strict=True):
            routers = self.network.routers
            asked, state = ask_units(routers, range(junction, junction + 1), x, state)
            margins.append(asked)
            takes = torch.from_numpy(asked >= 0).to(x.device)
            out = unit.take(x, -1)
            for sink in range(routers.width):
                made = unit.take(x, sink)
                out = torch.where(takes[:, sink].view(-1, 1, 1, 1), made, out.to(made.dtype))
            x = out
        return x, np.concatenate(margins, axis=1), state
