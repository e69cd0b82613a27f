"""Which errors do classifiers share? A cascade can be no better than its networks are different.

    python reports/measure_agreement.py runs/resnet20-dense runs/resnet56-dense runs/<cascade> ...

On validation images of the first run's data, every image by every classifier: each exit is one,
and the end of each network. For each pair: the share of images on which both err, and the accuracy of the mean of their
probabilities.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.formats.checkpoint import load
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.pipeline.inputs import load_splits
from routekit.pipeline.run_folder import RunFolder


def probabilities(network: RoutedNetwork, images: Images) -> dict[str, Tensor]:
    """What each classifier says of each image: [N, classes] by the place where it lies, the end's being ""."""
    spec, said = network.spec, []
    for batch, _ in images.batches(torch.arange(len(images)), 250):
        trace = network(normalize(batch, spec.mean, spec.std), execution=masked)
        said.append([leaf.softmax(dim=1) for leaf in trace.leaves or (trace.logits,)])
    names = [f" after {step.name}" for step in network.stops] + [""]
    return dict(zip(names, map(torch.cat, zip(*said, strict=True)), strict=True))


@torch.no_grad()
def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs = parser.parse_args().runs
    networks = [load(run) for run in runs]
    _, plan = RunFolder.open(runs[0])
    val = load_splits(plan.data, networks[0].spec, plan.seed).val
    said = {
        f"{run}{place}": probability
        for run, network in zip(runs, networks, strict=True)
        for place, probability in probabilities(network, val).items()
    }
    labels = torch.cat([batch for _, batch in val.batches(torch.arange(len(val)), 250)])

    def share(right: Tensor) -> float:
        return round(100 * float(right.float().mean()), 2)

    right = {name: probability.argmax(dim=1) == labels for name, probability in said.items()}
    document = {
        "images": len(labels),
        "accuracy": {name: share(each) for name, each in right.items()},
        "pairs": [
            {
                "of": [one, other],
                "both err": share(~right[one] & ~right[other]),
                "mean of both": share((said[one] + said[other]).argmax(dim=1) == labels),
            }
            for one, other in itertools.combinations(said, 2)
        ],
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
