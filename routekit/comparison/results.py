"""What a comparison has found so far."""

from routekit.backbones.load import spec_of
from routekit.comparison.plan import ComparisonFolder, Plan
from routekit.comparison.timing import read_timings
from routekit.errors import InputError
from routekit.pipeline.plan import subject_of
from routekit.recipe import load_recipe
from routekit.report.comparison import Measured
from routekit.report.record import read_record


def measured(folder: ComparisonFolder, plan: Plan) -> list[Measured]:
    """Read the records of the cells that are done.

    Args:
        folder: The comparison.
        plan: Its plan.

    Returns:
        The cells, in the order of the plan.

    Raises:
        InputError: A record is of another network, or of other images, than the others. One table cannot hold both.
    """
    timings = read_timings(folder) or {"milliseconds": {}}
    network = spec_of(subject_of(load_recipe(plan.base, plan.shared))["network"]).label
    done = [cell for cell in plan.cells() if folder.of(cell).finished]
    found: list[Measured] = []
    for cell in done:
        record, wrong = read_record(folder.of(cell).path), ""
        first = found[0].record if found else record
        # Smaller networks, and cascades of several, are other networks by design.
        if not (cell.joined or cell.given) and record["model"] != network:
            wrong = f"{record['model']}, and the plan of {network}"
        elif (record["data"], record["images"]) != (first["data"], first["images"]):
            images = f"{record['images']} images of {record['data']}"
            wrong = f"{images}, and {done[0].name} of {first['images']} of {first['data']}"
        if wrong:
            raise InputError(
                f"{folder.of(cell).path} is of {wrong}: they do not compare; move it away, and `routekit compare "
                f"--resume {folder.path}` makes it anew"
            )
        times, exact = (timings.get(key, {}).get(cell.name, {}) for key in ("milliseconds", "accuracy"))
        found.append(Measured(cell.method, cell.budget, cell.seed, record, times, exact, given=cell.given))
    return found
