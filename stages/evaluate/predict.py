"""Answers of the models that `train` stores, by the numbers in their files alone."""

from typing import Any

import numpy


def predict(model: dict[str, Any], pixels: numpy.ndarray) -> numpy.ndarray:
    """Return a label for each row of pixels."""
    return {"bayes": _bayes, "neighbours": _neighbours, "tree": _tree}[model["family"]](model, pixels)


def _bayes(model: dict[str, Any], pixels: numpy.ndarray) -> numpy.ndarray:
    mean, variance = numpy.array(model["mean"]), numpy.array(model["variance"])
    constant = numpy.log(model["prior"]) - 0.5 * numpy.log(2 * numpy.pi * variance).sum(axis=1)
    squares = ((pixels[:, None, :] - mean) ** 2 / variance).sum(axis=2)
    return (constant - 0.5 * squares).round(6).argmax(axis=1)


def _neighbours(model: dict[str, Any], pixels: numpy.ndarray) -> numpy.ndarray:
    points, labels = numpy.array(model["points"]), numpy.array(model["labels"])
    whole = (pixels * 16).astype(int)
    answers = []
    for row in whole:
        nearest = numpy.argsort(((points - row) ** 2).sum(axis=1), kind="stable")[: model["k"]]
        answers.append(numpy.bincount(labels[nearest], minlength=10).argmax())
    return numpy.array(answers)


def _tree(model: dict[str, Any], pixels: numpy.ndarray) -> numpy.ndarray:
    answers = []
    for row in pixels:
        node = 0
        while model["left"][node] >= 0:
            left = row[model["pixel"][node]] <= model["threshold"][node]
            node = model["left" if left else "right"][node]
        answers.append(model["label"][node])
    return numpy.array(answers)
