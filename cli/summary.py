"""Records in words."""

from typing import Any


def summary(record: dict[str, Any]) -> str:
    """Put the record of a run or an evaluation into words: accuracy, cost with its convention, routes."""
    from routekit.macs import describe

    flops, routes, accuracy = record["flops"], record["routes"], record["accuracy"]
    dense = flops["dense"]
    decides = bool(routes["run_rate"])
    head = f"{record['run']}: {record['model']} on {record['data']}, {record['images']} {record['split']} images"
    said = f"{100 * accuracy['routed']:.2f}%"
    if decides:
        head, said = f"{head}, {record.get('inference', 'hard')} routing", f"{said} routed"
    if accuracy["dense"] is not None and record["method"] != "dense":
        said += f", {100 * accuracy['dense']:.2f}% dense"
    lines = [
        head,
        f"  accuracy   {said}",
        f"  cost       {describe(flops['realized'])}{' mean, routers included' if decides else ''}: "
        f"{100 * flops['realized'] / dense:.1f}% of dense",
    ]
    if flops["target"] is not None:
        off = 100 * (flops["realized"] / flops["target"] - 1)
        chance = 100 * flops.get("chance", 0.0) / flops["target"]
        within = f"; ± {chance:.2f}% is chance (which images these are)" if chance else ""
        lines.append(f"  target     {describe(flops['target'])}: {off:+.2f}% off{within}")
    if decides:
        lines += [
            f"             of images, 5% cost under {flops['p5']:.3g}, half under {flops['p50']:.3g}, 95% under "
            f"{flops['p95']:.3g}; dense {describe(dense)}",
            f"  routes     {routes['unique']} distinct, {routes['entropy_bits']:.2f} bits, "
            f"{routes['mean_units']:.1f} of {routes['units']} units on average",
        ]
    if "shuffled_accuracy" in record:
        lines.append(
            f"             {100 * record['shuffled_accuracy']:.2f}% when each image takes another image's route"
        )
    for each in record.get("exits", []):
        right = "" if each["accuracy"] is None else f", {100 * each['accuracy']:.2f}% of them right"
        said = f"{_answerer(each['after'])}: answers {100 * each['stops']:.1f}%{right}"
        lines.append(f"  {said} (alone: {100 * each['alone']:.2f}% of all)")
    if decides:
        rates = " ".join(f"{100 * rate:.0f}" for rate in routes["run_rate"].values())
        lines.append(f"  run rates  {rates} (% of images that run each unit, or go on past each stop)")
    lines.append(f"  convention {flops['convention']}; {record['seconds']:.0f} s")
    return "\n".join(lines)


# What answers an image, if it is no exit after a unit.
ANSWERERS = {"end": "the end", "again": "both looks", "narrow": "the narrow form"}


def _answerer(after: str) -> str:
    """`layer1.2`, `narrow`, `network 0`, or `0/narrow` of joined networks -> what answers there, in words."""
    number, inside, own = after.rpartition("/")
    if own.startswith("network "):
        return own
    said = f"narrow form {own.removeprefix('narrow.')}" if own.startswith("narrow.") else f"exit after {own}"
    return ANSWERERS.get(own, said) + (f" of network {number}" if inside else "")
