"""Write the tables of the reports from their records, so that no figure is typed by hand.

    python reports/table.py            # rewrite what lies between the markers of README.md and reports/README.md
    python reports/table.py --check    # say whether they are up to date (exit code 1 if not)

Each folder under `reports/` with a `record.json` is a recorded run: what `routekit convert --json` and
`routekit evaluate --json` measured on test images, the recipe it ran with, its metrics, and the `command` that made it.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

if __name__ == "__main__":  # run as a file: what lies beside it is imported by its whole name, as the tests do
    sys.path.insert(0, str(Path(__file__).parent.parent))
from reports.headline import compared, milliseconds
from reports.hostile import hostile
from reports.ladders import aims, ladder, ladder_first, ladder_seeds, picture
from routekit.evaluation.answers import unpack
from routekit.report.benchmark import benchmark_markdown
from routekit.report.drawing import save

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


def records(group: str) -> list[dict[str, Any]]:
    """Read the recorded runs of one group, the cheapest budget first, then the most accurate."""
    found = [json.loads(path.read_text()) | {"name": path.parent.name} for path in (HERE / group).glob("*/record.json")]
    # A dense network has no target but its own cost.
    return sorted(found, key=lambda record: (_target(record), -record["accuracy"]["routed"]))


def _target(record: dict[str, Any]) -> float:
    return float(record["flops"]["target"] or record["flops"]["dense"])


def table(group: str) -> str:
    """One line a run."""
    lines = [
        "| run | method | target | realised cost | accuracy | its start | shuffled | routes | bits | seed | epochs |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for record in records(group):
        flops, routes, accuracy = record["flops"], record["routes"], record["accuracy"]
        lines.append(
            f"| [{record['name']}]({group}/{record['name']}/) | {record['method']} "
            f"| {100 * flops['target'] / flops['dense']:.0f}% "
            f"| {100 * flops['realized'] / flops['dense']:.2f}% ({flops['realized'] / 1e6:.2f}M, "
            f"{100 * (flops['realized'] / flops['target'] - 1):+.2f}% off target) "
            f"| **{100 * accuracy['routed']:.2f}%** | {100 * accuracy['dense']:.2f}% "
            f"| {100 * record['shuffled_accuracy']:.2f}% "
            f"| {routes['unique']} | {routes['entropy_bits']:.2f} | {record['seed']} | {record['epochs']:g} |"
        )
    return "\n".join(lines)


def spread(group: str) -> str:
    """One line for all seeds of a run, named alike but for `-seedN`; costs are shares of the largest network's."""
    found: dict[str, list[dict[str, Any]]] = {}
    full = max(record["flops"]["dense"] for record in records(group))
    for record in records(group):
        found.setdefault(re.sub(r"-seed\d+$", "", record["name"]), []).append(record)
    lines = [
        "| run | target | realised cost | accuracy | seeds | routes | the last classifier alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, seeds in found.items():
        shares, right, last, routes = (
            [of(record) for record in seeds]
            for of in (
                lambda record: 100 * record["flops"]["realized"] / full,
                lambda record: 100 * record["accuracy"]["routed"],
                lambda record: 100 * record["accuracy"]["dense"],
                lambda record: record["routes"]["unique"],
            )
        )
        target = seeds[0]["flops"]["target"]
        asked = "" if target is None else f"{100 * target / full:.0f}%"
        lines.append(
            f"| {name} | {asked} | {fmean(shares):.2f}% "
            f"| **{mean_and_deviation(right)}** | {', '.join(str(record['seed']) for record in seeds)} "
            f"| {', '.join(map(str, routes))} | {mean_and_deviation(last)} |"
        )
    return "\n".join(lines)


def mean_and_deviation(values: list[float]) -> str:
    """The mean, and the standard deviation where there are several."""
    return f"{fmean(values):.2f}%" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def commands(group: str) -> str:
    """The command of each run, its machine, date and training time."""
    lines = []
    for record in records(group):
        where = record["environment"]
        # A network that was set for another budget was not trained for it.
        trained = f"{record['seconds'] / 60:.0f} minutes of training" if record.get("epochs") else "no training"
        lines.append(
            f"- `{record['name']}`: `{record['command']}`  \n  {where['device']}, {where['threads']} threads, "
            f"torch {where['torch']}, {where['date']}, {trained}"
        )
    return "\n".join(lines)


def speed(name: str) -> str:
    """One line a runtime and batch size of `speed/NAME.json`, and what was measured where."""
    report = json.loads((HERE / "speed" / f"{name}.json").read_text())
    lines = [
        "| runtime | batch | dense, ms | routed, ms | 10th to 90th percentile | speed-up | ideal | efficiency |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['runtime']} | {row['batch']} | {row['dense_ms']:.2f} ({row['dense_form']}) "
        f"| {row['routed_ms']:.2f} ({row['routed_form']}) "
        f"| {row['dense_p10']:.2f} to {row['dense_p90']:.2f}; {row['routed_p10']:.2f} to {row['routed_p90']:.2f} "
        f"| {row['speedup']:.2f} | {row['ideal']:.2f} | **{row['efficiency']:.2f}** |"
        for row in report["rows"]
    ]
    where = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    kept = 100 * report["flops"]["realized"] / report["flops"]["dense"]
    lines += [
        "",
        f"`{report['command']}`  ",
        f"{report['network']}, {kept:.1f}% of the MACs kept; {report['images']} test images of {report['data']}; "
        f"{where['device']}, {where['threads']} threads; {versions}; {where['date']}",
    ]
    return "\n".join(lines)


def benchmark(name: str) -> str:
    """One line a runtime, precision and network of `benchmarks/NAME.json`, and which one to ship."""
    report = json.loads((HERE / "benchmarks" / f"{name}.json").read_text())
    return f"{benchmark_markdown(report)}\n\n`{report['environment']['command']}`"


def widths(name: str) -> str:
    """One line a network of `speed/NAME.json`: what pruned channels save, kept one by one and in steps."""
    report = json.loads((HERE / "speed" / f"{name}.json").read_text())
    batches = list(dict.fromkeys(row["batch"] for row in report["rows"]))
    heads = [f"batch {batch}, ms | of the dense time" for batch in batches]
    lines = ["| MACs | channels kept in steps of | " + " | ".join(heads) + " |", "|---" * (2 + 2 * len(batches)) + "|"]
    for row in report["rows"]:
        if row["batch"] == batches[0]:
            same = [each for each in report["rows"] if (each["share"], each["step"]) == (row["share"], row["step"])]
            dense = [each for each in report["rows"] if each["step"] is None]
            times = [f"{own['ms']:.2f} | {own['ms'] / full['ms']:.2f}" for own, full in zip(same, dense, strict=True)]
            lines.append(f"| {100 * row['share']:.1f}% | {row['step'] or 'dense'} | " + " | ".join(times) + " |")
    where = report["environment"]
    lines += [
        "",
        f"`{report['command']}`  ",
        f"{report['model']}, {report['runtime']}; {where['device']}, {where['threads']} threads; {where['date']}",
    ]
    return "\n".join(lines)


def curve(name: str) -> str:
    """One line a budget of `NAME/curve.json`: one network, measured at several budgets that were met on validation."""
    report = json.loads((HERE / name / "curve.json").read_text())
    lines = ["| target | realised cost | accuracy |", "|---|---|---|"]
    for record in report["curve"]:
        flops = record["flops"]
        asked, spent = (100 * flops[name] / flops["dense"] for name in ("target", "realized"))
        right = 100 * record["accuracy"]["routed"]
        lines.append(
            f"| {asked:.0f}% | {spent:.2f}% ({100 * (spent / asked - 1):+.2f}% off target) | **{right:.2f}%** |"
        )
    where = report["curve"][0]["environment"]
    lines += ["", f"`{report['command']}`  ", f"{where['device']}, {where['threads']} threads, {where['date']}"]
    return "\n".join(lines)


def policies(name: str) -> str:
    """One line a budget of `NAME/learned.json` and `NAME/rule.json`: what exits learned to decide, and a rule beside.

    Both answer the same images with the same classifiers: the standard error of the difference is paired.
    """
    reports = [json.loads((HERE / name / f"{kind}.json").read_text()) for kind in ("learned", "rule")]
    headings = " | ".join(f"{report['curve'][0]['policy']} (its cost)" for report in reports)
    lines = [f"| target | {headings} | difference |", "|---|---|---|---|"]
    for pair in zip(*(report["curve"] for report in reports), strict=True):
        flops = pair[0]["flops"]
        figures = [
            f"{100 * each['accuracy']['routed']:.2f}% ({100 * each['flops']['realized'] / flops['dense']:.2f}%)"
            for each in pair
        ]
        right = [unpack(each["right"], each["images"]).double() for each in pair]
        lead = 100 * (right[0] - right[1])
        error = float(lead.std()) / len(lead) ** 0.5
        lines.append(
            f"| {100 * flops['target'] / flops['dense']:.0f}% | {' | '.join(figures)} "
            f"| {float(lead.mean()):+.2f} ± {error:.2f} |"
        )
    alone = ", ".join(f"{100 * leaf['alone']:.2f}% ({leaf['after']})" for leaf in reports[0]["curve"][0]["exits"])
    where = reports[0]["curve"][0]["environment"]
    lines += ["", f"Each classifier for all images: {alone}.", ""]
    lines += [f"`{report['command']}`  " for report in reports]
    lines += [f"{where['device']}, {where['threads']} threads, {where['date']}"]
    return "\n".join(lines)


def met(folder: str) -> str:
    """How near to their budgets the test images came, over all records under `folder` ("." is all)."""
    found = [json.loads(path.read_text()) for path in sorted((HERE / folder).glob("**/record.json"))]
    # Nothing is decided in a static network; and some runs are cells of two comparisons.
    decided = {
        (record["flops"]["realized"], record["accuracy"]["routed"]): record["flops"]["realized"]
        / record["flops"]["target"]
        for record in found
        if record["flops"]["target"] and record["method"] in ("routed", "cascade")
    }
    off = [100 * (ratio - 1) for ratio in decided.values()]
    near = sum(abs(each) <= 2 for each in off)
    return (
        f"Of {len(off)} recorded measurements of networks that decide image by image, {near} came within 2% of the "
        f"cost that was asked for, on test images that it was not set on; {fmean(map(abs, off)):.1f}% off on average."
    )


# The picture of the first page.
PICTURE, PICTURED = HERE / "ladders" / "resnet18-photos.svg", "resnet18-photos-onnx-batch1"
PAGES = (HERE.parent / "README.md", HERE / "README.md")
RENDERERS = {
    "table": table,
    "spread": spread,
    "commands": commands,
    "curve": curve,
    "policies": policies,
    "speed": speed,
    "widths": widths,
    "benchmark": benchmark,
    "compared": compared,
    "milliseconds": milliseconds,
    "met": met,
    "ladder": ladder,
    "ladder-first": ladder_first,
    "ladder-seeds": ladder_seeds,
    "aims": aims,
    "hostile": hostile,
}


def rendered(text: str) -> str:
    """Fill every pair of markers, each named by how it is rendered and of what: `table GROUP`, `speed NAME`, ..."""
    for kind, render in RENDERERS.items():
        for group in re.findall(rf"<!-- begin {kind} (\S+) -->", text):
            begin, end = BEGIN.format(f"{kind} {group}"), END.format(f"{kind} {group}")
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            text = f"{before}{begin}\n{render(group)}\n{end}{after}"
    return text


def main() -> int:
    """Rewrite or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    pages = {page: (page.read_text(), rendered(page.read_text())) for page in PAGES}
    if parser.parse_args().check:
        return int(any(old != new for old, new in pages.values()))
    for page, (_, new) in pages.items():
        page.write_text(new)
    save(picture(PICTURED), PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
