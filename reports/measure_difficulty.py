"""How early does a network know that it will fail on an image? What routers see is all that they can route by.

    python reports/measure_difficulty.py resnet56 WEIGHTS DATA

On validation images: before each unit, a logistic regression on the pooled features (what a router sees) predicts
whether the dense network errs. It is fitted on 60% of the images, its ROC AUC is taken on the rest: 0.5 is chance. The
last figure is the AUC of the network's own confidence, after its classifier.
"""

import argparse
import json
import sys

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from routekit.backbones.load import load_backbone
from routekit.data.augment import normalize
from routekit.pipeline.inputs import load_splits
from routekit.recipe import DataSection
from routekit.routing.router import pool


@torch.no_grad()
def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "weights", "data"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    view = load_backbone(arguments.model, weights=arguments.weights)
    view.model.eval()
    spec = view.spec
    val = load_splits(DataSection(source=arguments.data), spec, seed=0).val
    seen: list[list[torch.Tensor]] = [[] for _ in view.units]
    logits, labels = [], []
    for images, batch_labels in val.batches(torch.arange(len(val)), 250):
        x = view.stem(normalize(images, spec.mean, spec.std))
        for pooled, unit in zip(seen, view.units, strict=True):
            pooled.append(pool(x))
            x = unit.run(x)
        logits.append(view.head(x))
        labels.append(batch_labels)
    scores = torch.cat(logits)
    wrong = (scores.argmax(dim=1) != torch.cat(labels)).numpy()
    doubt = 1 - scores.softmax(dim=1).amax(dim=1).numpy()
    order = torch.randperm(len(wrong), generator=torch.Generator().manual_seed(0)).numpy()
    fit, held_out = order[: int(0.6 * len(order))], order[int(0.6 * len(order)) :]
    auc = {}
    for unit, pooled in zip(view.units, seen, strict=True):
        features = torch.cat(pooled).numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(features[fit], wrong[fit])
        auc[unit.name] = round(roc_auc_score(wrong[held_out], model.decision_function(features[held_out])), 3)
    document = {
        "model": arguments.model,
        "images": len(wrong),
        "error": float(wrong.mean()),
        "auc_before_unit": auc,
        "auc_of_confidence": round(roc_auc_score(wrong[held_out], doubt[held_out]), 3),
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
