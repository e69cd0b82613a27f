"""Records in words."""

from typing import Any


def summary(record: dict[str, Any]) -> str:
    """Put the record of a run or an evaluation into words: accuracy, cost with its convention, routes."""
    from routekit.macs import describe
    from routekit.report.settings import answerer

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
    if "passes" in record:
        lines += _ladder(record)
    for each in record.get("exits", []):
        right = "" if each["accuracy"] is None else f", {100 * each['accuracy']:.2f}% of them right"
        said = f"{answerer(each['after'])}: answers {100 * each['stops']:.1f}%{right}"
        lines.append(f"  {said} (alone: {100 * each['alone']:.2f}% of all)")
    if decides:
        rates = " ".join(f"{100 * rate:.0f}" for rate in routes["run_rate"].values())
        lines.append(f"  run rates  {rates} (% of images that run each unit, or go on past each stop)")
    lines.append(f"  convention {flops['convention']}; {record['seconds']:.0f} s")
    return "\n".join(lines)


def _ladder(record: dict[str, Any]) -> list[str]:
    """The passes of a ladder, their time and size, and how they were chosen."""
    passes, taken, chosen = record["passes"], record["time"], record["chosen"]
    names = " > ".join(f"{each['form']} {each['precision']}" for each in passes)
    lines = [f"  passes     {names}{', mean of their answers' if record['average'] else ''}"]
    target = "" if taken["target_ms"] is None else f"; target {taken['target_ms']:.3f}, "
    off = f"{100 * (taken['mean_ms'] / taken['target_ms'] - 1):+.1f}% off" if target else ""
    lines += [
        f"  time       {taken['mean_ms']:.3f} ms an image (p50 {taken['p50']:.3f}, p95 {taken['p95']:.3f}, p99 "
        f"{taken['p99']:.3f}){target}{off}",
        f"             {taken['runtime']}, batch {taken['batch']}, {taken['threads']} threads; dense, float32: "
        f"{taken['dense_ms']:.3f} ms, {taken['speedup']:.2f} times as long",
        f"  size       {record['size']['bytes']:,} bytes, {record['size']['parameters']:,} parameters",
    ]
    said = f"  chosen     on {chosen['images']} validation images: {100 * chosen['accuracy']:.2f}%, dense "
    said += f"{100 * chosen['dense_accuracy']:.2f}%, ± {chosen['standard_error']:.2f} points"
    if "chance" in chosen:
        said += f"; a chance of {100 * chosen['chance']:.0f}%, by these images alone, that no more is lost on others"
    return [*lines, said]
