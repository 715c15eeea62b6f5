"""Write the names and shapes of torchvision's ResNet-18: ``python write_torchvision.py FOLDER``."""

import argparse
import json
import pathlib

import torchvision

NUM_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    state = torchvision.models.resnet18(num_classes=NUM_CLASSES).state_dict()
    content = {
        "version": torchvision.__version__.split("+")[0],
        "num_classes": NUM_CLASSES,
        "shapes": {name: list(tensor.shape) for name, tensor in state.items()},
    }
    path = folder / "torchvision-resnet18.json"
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    print(path.name, path.stat().st_size, len(content["shapes"]), "entries")


if __name__ == "__main__":
    main()
