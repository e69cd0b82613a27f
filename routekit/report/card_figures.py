"""What a model card says of accuracy, cost, time, classes and training: each from a record, in Markdown blocks."""

from collections.abc import Iterator, Mapping
from typing import Any

from routekit.evaluation.answers import unpack
from routekit.macs import describe
from routekit.report.chance import mcnemar, wilson
from routekit.report.findings import MET_ON
from routekit.report.page import in_markdown, markdown_table

# How many of the classes that lost most are listed.
MOST = 5
# What a checkpoint is for, in float32.
TORCH = "torch"


def plain(name: object) -> str:
    """A name of others as words in Markdown: no code, no link, no HTML."""
    return in_markdown(str(name).replace("`", "'"))


def accuracy_of(record: Mapping[str, Any]) -> Iterator[str]:
    """How many test images are answered rightly, beside the dense network: intervals, and McNemar's test."""
    images, accuracy = record["images"], record["accuracy"]
    shares = {"this network": accuracy["routed"]}
    if record["method"] != "dense" and accuracy["dense"] is not None:
        shares["the dense network"] = accuracy["dense"]
    lines = []
    for name, share in shares.items():
        right = round(share * images)
        low, high = wilson(right, images)
        lines.append([name, f"{100 * share:.2f}%", f"{right} of {images}", f"{100 * low:.2f}% to {100 * high:.2f}%"])
    of = plain(f"{record['data']}{_routing(record)}{of_passes(record)}")
    yield f"On {images} {record['split']} images of {of}:"
    yield markdown_table(["", "answered rightly", "images", "95% interval (Wilson)"], lines)
    if len(shares) > 1:
        yield f"The difference is {100 * (accuracy['routed'] - accuracy['dense']):+.2f} points. {_test(record)}"
    if "shuffled_accuracy" in record:
        yield f"With another image's route, {100 * record['shuffled_accuracy']:.2f}% would be right."


def _routing(record: Mapping[str, Any]) -> str:
    if not record["routes"]["run_rate"]:
        return ""
    return f", under {'hard' if record.get('inference', 'hard') == 'hard' else 'sampled'} routing"


def paired(record: Mapping[str, Any]) -> bool:
    """Whether a record says which images each of the two networks answers rightly."""
    return "right" in record and "dense_right" in record


def _test(record: Mapping[str, Any]) -> str:
    """McNemar's test in words, where the record allows it."""
    if not paired(record):
        return (
            "Whether that is chance cannot be tested image by image (McNemar): the record does not hold which images "
            "the dense network answers rightly."
        )
    ours, theirs = (unpack(record[each], record["images"]) for each in ("right", "dense_right"))
    one, other = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    chance = mcnemar(one, other)
    said = f"{chance:.3f}" if chance >= 0.001 else f"{chance:.1e}"
    return (
        f"The dense network alone answers {other} of the images rightly, this one alone {one}: p = {said} by McNemar's "
        "exact test, two-sided."
    )


def cost_of(record: Mapping[str, Any]) -> Iterator[str]:
    """The mean multiply-adds of an image, with their convention, their spread and the budget."""
    flops = record["flops"]
    share = 100 * flops["realized"] / flops["dense"]
    yield (
        f"On average, one of these images costs {flops['realized']:,.0f} multiply-adds: {share:.2f}% of the dense "
        f"network's {flops['dense']:,.0f}. That is {describe(flops['realized'])}. Convention: "
        f"{in_markdown(flops['convention'])}; routers and exits included."
    )
    if all(each in flops for each in ("p5", "p50", "p95")):
        yield (
            f"5% of the images cost {flops['p5']:,.0f} or less, half of them {flops['p50']:,.0f}, 95% "
            f"{flops['p95']:,.0f}."
        )
    if flops["target"] is not None:
        on = MET_ON.get(record.get("validation", ""), "validation images")
        yield f"The budget was {100 * flops['target'] / flops['dense']:.2f}%, set on {on}."
    if size := record.get("size"):
        where = ", in the files that were measured" if elsewhere(record) else ""
        yield f"{size['parameters']:,} parameters, {size['bytes']:,} bytes{where}."


def place_of(taken: Mapping[str, Any]) -> str:
    """Where a time was measured: runtime, batch and threads."""
    threads = taken["threads"]
    return f"{taken['runtime']}, batch {taken['batch']}, {threads} thread{'' if threads == 1 else 's'}"


def _passes(record: Mapping[str, Any]) -> str:
    return ", then ".join(f"{each['form']} in {each['precision']}" for each in record["passes"])


def of_passes(record: Mapping[str, Any]) -> str:
    """Of what a figure is, where that is no network in float32 in torch."""
    return f" ({_passes(record)}, by {record['time']['runtime']})" if elsewhere(record) else ""


def elsewhere(record: Mapping[str, Any]) -> bool:
    """Whether what was measured is not what a checkpoint is."""
    where = record.get("time", {}).get("runtime", TORCH)
    return any((where, each["precision"]) != (TORCH, "fp32") for each in record.get("passes", []))


def time_of(record: Mapping[str, Any]) -> Iterator[str]:
    """The milliseconds of an image; nothing where no time was measured."""
    if not (taken := record.get("time")):
        return
    yield f"Milliseconds an image, test images as they come, on {in_markdown(taken['machine'])}, {place_of(taken)}:"
    spread = [f"{taken[each]:.3f}" for each in ("p50", "p95", "p99")]
    lines = [
        ["this network", f"{taken['mean_ms']:.3f}", *spread],
        ["the dense network, float32", f"{taken['dense_ms']:.3f}", "", "", ""],
    ]
    yield markdown_table(["", "mean", "p50 of the calls", "p95", "p99"], lines)
    target = "" if taken["target_ms"] is None else f" The target was {taken['target_ms']:.3f} ms."
    ran = f" What ran is {in_markdown(_passes(record))}." if "passes" in record else ""
    yield f"The dense network takes {taken['dense_ms'] / taken['mean_ms']:.2f} times as long.{target}{ran}"


def classes_of(record: Mapping[str, Any]) -> Iterator[str]:
    """The classes of which the dense network answers more, those that lost most first."""
    found = record.get("by_class") or {}
    if record["method"] == "dense" or not found.get("dense_right"):
        return
    counted = zip(found["class"], found["images"], found["right"], found["dense_right"], strict=True)
    lost = sorted(
        ((dense - right) / images, name, images, right, dense)
        for name, images, right, dense in counted
        if dense > right
    )
    if not lost:
        yield "No class is answered worse than by the dense network."
        return
    lines = [
        [plain(name), str(images), str(right), str(dense), f"{-100 * share:+.1f}"]
        for share, name, images, right, dense in lost[: -MOST - 1 : -1]
    ]
    yield markdown_table(["class", "test images", "right", "right, dense network", "points"], lines)
    yield f"These are the extremes of {len(found['class'])} classes: with so few images of each, much of it is chance."


def training_of(record: Mapping[str, Any]) -> Iterator[str]:
    """The images, how it was trained and chosen, where, and by which command line."""
    where = record["environment"]
    seed = f", seed {record['seed']}" if "seed" in record else ""
    versions = ", ".join(f"{name} {where[name]}" for name in ("routekit", "torch") if name in where)
    at = f"{in_markdown(where['device'])}, {where['date']}{f' ({versions})' if versions else ''}"
    if "epochs" in record:
        how = f"{record['epochs']:g} epochs{seed}, {record['seconds']:.0f} s on {at}."
    else:  # its seconds are those of a measurement
        how = f"how it was trained is not in the record{seed}. Measured on {at}."
    yield f"Images: {plain(record['data'])}, as the folder or the data set is called; {how}"
    if "aim" in record:
        yield f"The aim: {in_markdown(record['aim'])}."
    if "validation" in record:
        on = MET_ON.get(record["validation"], "validation images of their own")
        yield f"What was chosen or set was so on {on}."
    if chosen := record.get("chosen"):
        yield (
            f"The passes were chosen on {chosen['images']} validation images, of which {100 * chosen['accuracy']:.2f}% "
            f"are answered rightly, {100 * chosen['dense_accuracy']:.2f}% by the dense network. These images chose, so "
            "that their own figure flatters it."
        )
    if command := where.get("command", record.get("command")):
        yield "The command line, without the folders of the machine:"
        yield f"    {' '.join(command.split())}"
        if "--resume" in command.split():
            yield "That went on with a run: the command line that began it is not in the record."
