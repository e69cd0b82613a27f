"""Records as text for people."""

from typing import Any


def summary(record: dict[str, Any]) -> str:
    """Say what a run or an evaluation found: accuracy, cost with its convention, routes."""
    from routekit.macs import describe

    flops, routes, accuracy = record["flops"], record["routes"], record["accuracy"]
    dense = flops["dense"]
    before = "" if accuracy["dense"] is None else f", {100 * accuracy['dense']:.2f}% dense"
    lines = [
        f"{record['run']}: {record['model']} on {record['data']}, "
        f"{record['images']} {record['split']} images, {record.get('inference', 'hard')} routing",
        f"  accuracy   {100 * accuracy['routed']:.2f}% routed{before}",
        f"  cost       {describe(flops['realized'])} mean, routers included: "
        f"{100 * flops['realized'] / dense:.1f}% of dense",
    ]
    if flops["target"] is not None:
        off = 100 * (flops["realized"] / flops["target"] - 1)
        chance = 100 * flops.get("chance", 0.0) / flops["target"]
        within = f"; by chance of which images these are: ± {chance:.2f}%" if chance else ""
        lines.append(f"  target     {describe(flops['target'])}: {off:+.2f}% off{within}")
    lines += [
        f"             p5 {flops['p5']:.3g}, p50 {flops['p50']:.3g}, p95 {flops['p95']:.3g}; dense {describe(dense)}",
        f"  routes     {routes['unique']} distinct, {routes['entropy_bits']:.2f} bits, "
        f"{routes['mean_units']:.1f} of {routes['units']} units on average",
    ]
    if "shuffled_accuracy" in record:
        lines.append(
            f"             {100 * record['shuffled_accuracy']:.2f}% when each image takes another image's route"
        )
    for leaving in record.get("exits", []):
        right = "" if leaving["accuracy"] is None else f", {100 * leaving['accuracy']:.2f}% of them right"
        said = f"{_answerer(leaving['after'])}: answers {100 * leaving['stops']:.1f}%{right}"
        lines.append(f"  {said} (alone: {100 * leaving['alone']:.2f}% of all)")
    if routes["run_rate"]:  # something is decided
        rates = " ".join(f"{100 * rate:.0f}" for rate in routes["run_rate"].values())
        lines.append(f"  run rates  {rates} (% of images, per unit and exit)")
    lines.append(f"  convention {flops['convention']}; {record['seconds']:.0f} s")
    return "\n".join(lines)


# Who answers an image, if it is no exit after a unit.
ANSWERERS = {"end": "the end", "again": "both looks", "narrow": "the narrow form"}


def _answerer(after: str) -> str:
    """`layer1.2`, `narrow`, `network 0`, of joined networks `0/narrow` -> who answers there."""
    number, inside, own = after.rpartition("/")
    if own.startswith("network "):
        return own
    said = f"narrow form {own.removeprefix('narrow.')}" if own.startswith("narrow.") else f"exit after {own}"
    return ANSWERERS.get(own, said) + (f" of network {number}" if inside else "")
