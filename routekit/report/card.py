"""The model card of a run, for its page on the Hugging Face Hub: the record in Markdown. Nothing is added."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

# Imported for its entries in the registry.
import routekit.data.sources  # noqa: F401
from routekit.data.provided import named_sets
from routekit.junctions.words import kinds
from routekit.report.card_figures import (
    accuracy_of,
    classes_of,
    cost_of,
    elsewhere,
    of_passes,
    paired,
    place_of,
    plain,
    time_of,
    training_of,
)
from routekit.report.findings import warnings
from routekit.report.page import in_markdown
from routekit.report.record import portable
from routekit.report.run_page import name_of


def card(record: Mapping[str, Any], home: str | None = None) -> str:
    """Write the model card of a run.

    Args:
        record: The record of the run.
        home: Where its checkpoint is: `hf://user/name`. None: the run itself is used.

    Returns:
        The card: YAML for machines, then Markdown.
    """
    record = portable(record)
    name = name_of(record) if home is None else home.partition("@")[0].rpartition("/")[2]
    sections = {
        "": _what(record),
        "Accuracy": accuracy_of(record),
        "Cost": cost_of(record),
        "Time": time_of(record),
        "Classes that lost most": classes_of(record),
        "Data and training": training_of(record),
        "How to use it": _use(record, home or record["run"]),
        "Limits": _limits(record),
        "What was not measured": _unmeasured(record),
    }
    parts = [f"---\n{_front(record, name)}\n---", f"# {plain(name)}"]
    for heading, blocks in sections.items():
        found = [*blocks]
        parts += [*([f"## {heading}"] if heading and found else []), *found]
    return "\n\n".join(parts) + "\n"


def _front(record: Mapping[str, Any], name: str) -> str:
    """The card's data, in YAML. The Hub reads it."""
    from huggingface_hub import EvalResult, ModelCardData

    data, name = (" ".join(each.split()) for each in (record["data"], name))

    def measured(kind: str, value: float, said: str) -> EvalResult:
        return EvalResult(
            task_type="image-classification",
            dataset_type=data,
            dataset_name=data,
            dataset_split=record["split"],
            metric_type=kind,
            metric_name=said,
            metric_value=value,
        )

    found = [
        measured("accuracy", round(record["accuracy"]["routed"], 6), f"Accuracy{of_passes(record)}"),
        measured("macs", round(record["flops"]["realized"]), "Mean multiply-adds of an image"),
    ]
    if taken := record.get("time"):
        said = f"Mean milliseconds of an image{of_passes(record)}, {place_of(taken)}, {taken['machine']}"
        found.append(measured("milliseconds", round(taken["mean_ms"], 4), said))
    decides = ["dynamic-routing"] if record["routes"]["run_rate"] else []
    exits = ["early-exit"] if record.get("exits") else []
    pruned = ["pruning"] if "pruning" in record else []
    return ModelCardData(
        library_name="routekit",
        pipeline_tag="image-classification",
        tags=["image-classification", "routekit", *decides, *exits, *pruned],
        # A folder of images is no data set of the Hub, whatever it is called.
        datasets=[data] if data in {*named_sets} else None,
        metrics=["accuracy"],
        model_name=name,
        eval_results=found,
    ).to_yaml()


def _what(record: Mapping[str, Any]) -> Iterator[str]:
    made_of, routes, flops = record.get("model"), record["routes"], record["flops"]
    classes = record.get("by_class", {}).get("class") or record.get("classes")
    count = f"{len(classes)} classes of " if classes else ""
    of = f", made of {in_markdown(made_of)}" if made_of else ""
    sentence = f"A classifier of images ({count}{plain(record['data'])}){of} by routekit"
    if version := record["environment"].get("routekit"):
        sentence += f" {version}"
    words = kinds()
    decided = "; ".join(words[kind] for kind in record.get("junctions", []) if kind in words)
    if not routes["run_rate"]:
        how = "Nothing is decided in it: every image takes the same way"
    elif "passes" in record or record["method"] == "cascade":
        how = "An image whose answer so far is certain enough goes no further: networks are asked one after the other"
        how += " (the mean of their answers counts)" if record.get("average") else ""
    else:
        how = "It decides for each image what of it is computed" + (f" ({decided})" if decided else "")
    share = 100 * flops["realized"] / flops["dense"]
    yield f"{sentence}. {how}, and on average an image costs {share:.1f}% of the dense network's multiply-adds."


def _use(record: Mapping[str, Any], home: str) -> Iterator[str]:
    home = " ".join(home.split())
    word = shlex.quote(home)
    python = [
        "import routekit",
        "",
        f"network = routekit.load({json.dumps(home)})  # on the CPU, in eval mode",
        "print(network.spec)  # the size, mean and deviation of its images",
        "answer = routekit.optimize(network)(images)  # [B, C, H, W], normalised -> answer.logits, answer.routes",
    ]
    shell = [f"routekit predict {word} image.jpg", f"routekit evaluate {word} --data FOLDER"]
    if ".py:" in str(record.get("model")):  # no file says which code is run
        python[2] = f"network = routekit.load({json.dumps(home)}, model=...)  # an instance of your own network"
        del shell[:]
    yield "In Python:"
    yield "\n".join(f"    {line}".rstrip() for line in python)
    if shell:
        yield "On the command line:"
        yield "\n".join(f"    {line}" for line in shell)


def _limits(record: Mapping[str, Any]) -> Iterator[str]:
    found = [
        f"Every figure is of one run, of {record['images']} images of one data set. The intervals tell what other "
        "images like these would change, and not what another seed would.",
        "How often these test images were looked at before is not in the record.",
    ]
    if record["routes"]["run_rate"]:
        found.append("Costs are means: a single image can cost more, and so can a set of harder images.")
    yield "\n".join(f"- {in_markdown(each)}" for each in [*found, *warnings(record)])


def _unmeasured(record: Mapping[str, Any]) -> Iterator[str]:
    """What a reader could look for, and the record does not hold."""
    taken, dense = record.get("time"), record["method"] == "dense"
    checkpoint = (
        "The compact checkpoint (`routekit push`, `routekit export`): it is made of the run, whose figures these are, "
        "and was not measured again."
    )
    if elsewhere(record):
        checkpoint += (
            f" These are figures{of_passes(record)}; the checkpoint holds float32 for torch: its answers can differ, "
            "and its time is another one."
        )
    found = [checkpoint]
    if taken is None:
        found.append("Time: multiply-adds alone were counted. `routekit bench` measures milliseconds.")
    else:
        found.append("Time elsewhere: on other machines, in other runtimes, with other batches or numbers of threads.")
    found.append("Memory and energy.")
    if not dense and record["accuracy"]["dense"] is None:
        found.append("The accuracy of the dense network on these images.")
    elif not dense and not paired(record):
        found.append("Which images the dense network answers rightly.")
    if not dense and not (record.get("by_class") or {}).get("dense_right"):
        found.append("What each class lost.")
    if "seed" not in record:
        found.append("The seed is not in the record.")
    if "command" not in record["environment"] and "command" not in record:
        found.append("The command line is not in the record.")
    found += [
        "Other seeds, other data sets, images that are noisy, shifted or made to deceive.",
        "How well probabilities are calibrated, and whether groups of people are treated alike.",
        "The licences of the images and of the weights that this was made of: the record does not hold them.",
    ]
    yield "\n".join(f"- {in_markdown(each)}" for each in found)
