"""Tries every model on the test digits: accuracies, the best one's confusion matrix, accuracy by a model's size."""

import argparse
import json
from pathlib import Path

import numpy
from picture import write_confusion
from predict import predict


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("digits", type=Path, help="the folder that `prepare` made")
    parser.add_argument("models", type=Path, help="a folder with one entry a cell of `train`")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--confusion", type=Path, required=True)
    parser.add_argument("--curve", type=Path, required=True)
    arguments = parser.parse_args()

    table = numpy.loadtxt(arguments.digits / "test.csv", delimiter=",", skiprows=1)
    labels, pixels = table[:, 0].astype(int), table[:, 1:]
    metrics, answers, sizes = {}, {}, {}
    for file in sorted(arguments.models.iterdir()):
        model = json.loads(file.read_text(encoding="ascii"))
        name = f"{model['family']}-{model['setting']}"
        answers[name] = predict(model, pixels)
        sizes[name] = file.stat().st_size
        right = int((answers[name] == labels).sum())
        metrics[name] = {"accuracy": round(right / len(labels), 4), "wrong": len(labels) - right}
        print(f"{name}: {right} of {len(labels)}")

    best = max(metrics, key=lambda name: (metrics[name]["accuracy"], name))
    summary = {"best": best, "digits": len(labels), "accuracy": metrics[best]["accuracy"], "models": metrics}
    arguments.metrics.write_text(json.dumps(summary, indent=2) + "\n", encoding="ascii")

    confusion = [[int(((labels == true) & (answers[best] == said)).sum()) for said in range(10)] for true in range(10)]
    write_confusion(arguments.confusion, confusion)

    with open(arguments.curve, "w", encoding="ascii") as file:
        file.write("bytes,accuracy,model\n")
        for name in sorted(sizes, key=lambda name: (sizes[name], name)):
            file.write(f"{sizes[name]},{metrics[name]['accuracy']},{name}\n")


if __name__ == "__main__":
    main()
