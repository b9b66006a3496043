"""Writes scikit-learn's digits as CSV, a train and a test part: a line is a label and 64 pixels from 0 to 1."""

import argparse
import random
from pathlib import Path

from sklearn.datasets import load_digits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True, help="folder to write train.csv and test.csv into")
    parser.add_argument("--test-share", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()

    digits = load_digits()
    rows = list(range(len(digits.target)))
    random.Random(arguments.seed).shuffle(rows)
    test_rows = round(len(rows) * arguments.test_share)
    arguments.out.mkdir(parents=True)
    for name, chosen in (("test", rows[:test_rows]), ("train", rows[test_rows:])):
        with open(arguments.out / f"{name}.csv", "w", encoding="ascii") as file:
            file.write("label," + ",".join(f"p{pixel}" for pixel in range(64)) + "\n")
            for row in sorted(chosen):
                # Pixels are whole numbers from 0 to 16, so a sixteenth is exact.
                scaled = ",".join(f"{pixel / 16:g}" for pixel in digits.data[row])
                file.write(f"{digits.target[row]},{scaled}\n")
        print(f"{name}: {len(chosen)} digits")


if __name__ == "__main__":
    main()
