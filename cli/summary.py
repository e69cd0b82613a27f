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
        where = {"end": "the end", "again": "both looks"}.get(leaving["after"], f"exit after {leaving['after']}")
        lines.append(
            f"  {where}: answers {100 * leaving['stops']:.1f}%{right} (alone: {100 * leaving['alone']:.2f}% of all)"
        )
    rates = " ".join(f"{100 * rate:.0f}" for rate in routes["run_rate"].values())
    lines += [
        f"  run rates  {rates} (% of images, per unit)",
        f"  convention {flops['convention']}; {record['seconds']:.0f} s",
    ]
    return "\n".join(lines)
