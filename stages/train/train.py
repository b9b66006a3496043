"""Trains one model and writes it as JSON, with numbers rounded so that no processor's last bit gets into the file."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier


def neighbours(pixels: numpy.ndarray, labels: numpy.ndarray, k: str) -> dict[str, Any]:
    """Return the rows that a condensed nearest-neighbour model keeps: those that the rows kept before them get wrong.

    Distances are sums of squares of sixteenths, which floating point holds exactly in any order.
    """
    kept: list[int] = []
    for row in range(len(labels)):
        if kept:
            distances = ((pixels[kept] - pixels[row]) ** 2).sum(axis=1)
            if labels[kept[int(numpy.argmin(distances))]] == labels[row]:
                continue
        kept.append(row)
    sixteenths = (pixels[kept] * 16).astype(int)
    return {"k": int(k), "points": sixteenths.tolist(), "labels": labels[kept].tolist()}


def tree(pixels: numpy.ndarray, labels: numpy.ndarray, depth: str) -> dict[str, Any]:
    """Return a decision tree as lists, one entry a node. left and right: -1 at a leaf."""
    fitted = DecisionTreeClassifier(max_depth=int(depth), random_state=0).fit(pixels, labels).tree_
    return {
        "pixel": fitted.feature.tolist(),
        "threshold": [round(float(value), 6) for value in fitted.threshold],
        "left": fitted.children_left.tolist(),
        "right": fitted.children_right.tolist(),
        "label": fitted.value[:, 0, :].argmax(axis=1).tolist(),
    }


def bayes(pixels: numpy.ndarray, labels: numpy.ndarray, smoothing: str) -> dict[str, Any]:
    """Return mean and variance of each pixel in each class, and how frequent the class is."""
    fitted = GaussianNB(var_smoothing=float(smoothing)).fit(pixels, labels)
    return {
        "prior": numpy.round(fitted.class_prior_, 6).tolist(),
        "mean": numpy.round(fitted.theta_, 6).tolist(),
        "variance": numpy.round(fitted.var_, 6).tolist(),
    }


FAMILIES = {"bayes": bayes, "neighbours": neighbours, "tree": tree}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("digits", type=Path, help="the folder that `prepare` made")
    parser.add_argument("model", type=Path, help="the JSON file to write")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--setting", required=True, help="smoothing, k or depth, as the family has it")
    arguments = parser.parse_args()

    table = numpy.loadtxt(arguments.digits / "train.csv", delimiter=",", skiprows=1)
    labels, pixels = table[:, 0].astype(int), table[:, 1:]
    model = {"family": arguments.family, "setting": arguments.setting}
    model |= FAMILIES[arguments.family](pixels, labels, arguments.setting)
    arguments.model.write_text(json.dumps(model, separators=(",", ":")) + "\n", encoding="ascii")
    print(f"{arguments.family} {arguments.setting}: {arguments.model.stat().st_size} bytes")


if __name__ == "__main__":
    main()
