"""Says which model is best, as Markdown. Standard library only."""

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("metrics", type=Path)
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()

    metrics = json.loads(arguments.metrics.read_text(encoding="ascii"))
    lines = [
        "# Handwritten digits",
        "",
        f"The best of {len(metrics['models'])} models is **{metrics['best']}**: it reads {metrics['accuracy']:.2%} of "
        f"{metrics['digits']} digits that it had not seen.",
        "",
        "| model | accuracy | wrong |",
        "|---|---:|---:|",
    ]
    ranked = sorted(metrics["models"].items(), key=lambda entry: (-entry[1]["accuracy"], entry[0]))
    lines += [f"| {name} | {numbers['accuracy']:.2%} | {numbers['wrong']} |" for name, numbers in ranked]
    arguments.report.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
