"""What a comparison says of methods that were not done rising."""

from dataclasses import replace

from routekit.report.comparison import Measured
from routekit.report.verdict import findings
from tests.report.test_comparison import CELLS, cell


def test_methods_that_still_rose_are_named() -> None:
    def risen(method: str, gain: float) -> Measured:
        made = cell(method, "40%", 0, 80.0, 40)
        return replace(made, record=made.record | {"last_epoch": {"gain": gain, "error": 0.5}})

    told = findings([risen("skip", 1.4), risen("l1", 0.9), risen("branch", 2.0), cell("dense", None, 0, 90.0, 100)])
    assert told[-1] == (
        "On validation images, these still rose in their last epoch: skip (by 1.4 points), branch (by 2.0 points). "
        "With more, another method may win."
    )
    assert not any("rose" in sentence for sentence in findings(CELLS))
