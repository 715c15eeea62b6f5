"""Folders of images, one folder per class."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fls_bench.errors import InputError
from fls_bench.schema import TaskSpec
from fls_bench.tasks.arrays import arrays_source
from fls_bench.tasks.drawing import SPLIT_SEED, Bytes, Official, part_of
from fls_bench.tasks.generated import MAX_NUMBERS
from fls_bench.tasks.task import Labels, TaskSource

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

PARTS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
"""Names of the folders that hold a part."""

MAX_PIXELS = 50_000_000
"""Most pixels of one image before it is made smaller: what is more may be a decompression bomb."""

GREY = {"1", "L", "LA"}
COLOUR = {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB"}


def folder_source(path: Path, *, n_train: int | None = None, size: int = 32) -> TaskSource:
    """Turn a folder of images into a task source.

    Either ``path/train/CLASS/*``, ``path/test/CLASS/*`` and ``path/val/CLASS/*`` if there is one, or
    ``path/CLASS/*``, of which 40 % (at most 1,000 images) are a fixed test part. Images are turned
    upright as their camera said, made smaller or larger until the shorter side has ``size`` pixels,
    and cut to the square in the middle. Hidden files are ignored. Each channel is standardised by
    the images that are not for testing.

    Args:
        path: The folder.
        n_train: Training images per draw; None: as for an .npz.
        size: Height and width of the inputs, 4 .. 512.

    Returns:
        seed -> Task with inputs [n, 1 or 3, size, size].

    Raises:
        InputError: No images, one class only, classes that training lacks, or an image that can't be
            read or is too large.
    """
    if not 4 <= size <= 512:
        raise InputError(f"Task {str(path)!r}: size = {size} is out of range.", "Choose 4 .. 512.")
    given = {part: _first(path, names) for part, names in PARTS.items()}
    if (given["train"] is None) != (given["test"] is None) and (given["train"] or given["test"]):
        raise InputError(
            f"{str(path)!r} has a folder {'train' if given['train'] else 'test'!r} and none for "
            f"{'testing' if given['train'] else 'training'}.",
            "Give both train/CLASS/* and test/CLASS/*, or CLASS/* alone.",
        )
    roots = {part: root for part, root in given.items() if root is not None}
    if "train" not in roots:
        roots = {"whole": path}
    files = {part: _files_by_class(root) for part, root in roots.items()}
    first = files["train" if "train" in files else "whole"]
    classes = sorted(first)
    for part, by_class in files.items():
        if unknown := sorted(set(by_class) - set(classes)):
            raise InputError(
                f"{str(roots[part])!r} has the class {unknown[0]!r}, which {str(roots['train'])!r} "
                "lacks.",
                "Give every class training images.",
            )
    if len(classes) < 2:
        raise InputError(
            f"{str(path)!r} has images of {len(classes)} class{'' if classes else 'es'}; a "
            "classification task needs two.",
            "Put the images of each class into a folder of its own: FOLDER/CLASS/*.png.",
        )
    listed = {
        part: [(file, k) for k, name in enumerate(classes) for file in by_class.get(name, ())]
        for part, by_class in files.items()
    }
    num = sum(map(len, listed.values()))
    if 3 * num * size**2 > MAX_NUMBERS:
        raise InputError(
            f"{str(path)!r} holds {num:,} images: of {size} x {size} pixels they are more than "
            f"{MAX_NUMBERS:,} numbers.",
            "Choose a smaller size, or fewer images.",
        )
    every = [file for pairs in listed.values() for file, _ in pairs]
    grey, notes = _mode(every)
    x = {part: _decode([file for file, _ in pairs], size, grey) for part, pairs in listed.items()}
    y = {part: np.array([k for _, k in pairs], dtype=np.int64) for part, pairs in listed.items()}
    notes = (f"Classes: {_listing(classes)}.", *notes)
    arrays, more = _scaled(x, y)
    if n_train is None and "whole" in x:
        n_train = len(arrays["y_train"]) // 2
    return arrays_source(
        path.name, arrays, n_train,
        TaskSpec(name=str(path.absolute())), len(classes), (*notes, *more),
    )  # fmt: skip


def _first(path: Path, names: tuple[str, ...]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)


def _files_by_class(root: Path) -> dict[str, list[Path]]:
    try:
        folders = [one for one in sorted(root.iterdir()) if one.is_dir() and one.name[0] != "."]
        found = {
            folder.name: sorted(
                file
                for file in folder.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part[0] == "." for part in file.relative_to(folder).parts)
            )
            for folder in folders
        }
    except OSError as error:
        raise InputError(f"{str(root)!r} can't be read: {error.strerror}.", "Check it.") from None
    empty = [name for name, files in found.items() if not files]
    if empty and len(empty) < len(found):
        raise InputError(
            f"The folder {str(root / empty[0])!r} holds no images.",
            f"Remove it, or put images ({', '.join(sorted(SUFFIXES))}) into it.",
        )
    return {name: files for name, files in found.items() if files}


def _listing(classes: list[str]) -> str:
    shown = ", ".join(f"{k} = {name}" for k, name in enumerate(classes[:20]))
    return shown + (f", and {len(classes) - 20} more" if len(classes) > 20 else "")


def _opened(file: Path) -> Any:
    """An image that is open, checked before any pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes between Pillow's two limits: ours is lower
            image = Image.open(file)
    except (Image.DecompressionBombError, UnidentifiedImageError, OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise InputError(
            f"The image {str(file)!r} has {width} x {height} pixels, more than {MAX_PIXELS:,}.",
            "Make it smaller, or remove it.",
        )
    if image.mode not in GREY | COLOUR:
        image.close()
        raise InputError(
            f"The image {str(file)!r} has pixels of mode {image.mode}, not of 8 bits.",
            "Convert it to 8 bits per channel.",
        )
    return image


def _unreadable(file: Path, error: Exception) -> InputError:
    reason = "it has far too many pixels" if "bomb" in str(error) else str(error)[:200].rstrip(".")
    if "cannot identify" in reason:
        reason = "it is not an image"
    return InputError(
        f"The image {str(file)!r} can't be read: {reason}.", "Repair it, or remove it."
    )


def _mode(files: list[Path]) -> tuple[bool, tuple[str, ...]]:
    """Whether all images are grey, and a note where they are of several kinds."""
    modes: Counter[str] = Counter()
    for file in files:
        with _opened(file) as image:
            modes[image.mode] += 1
    grey = set(modes) <= GREY
    notes = []
    if not grey and (num := sum(modes[mode] for mode in GREY)):
        notes.append(
            f"{num} of {len(files)} images are grey and the others in colour: all are read as colour."
        )
    if see_through := sum(modes[mode] for mode in ("LA", "RGBA", "PA")):
        notes.append(f"{see_through} of {len(files)} images have transparency, which is left out.")
    return grey, tuple(notes)


def _decode(files: list[Path], size: int, grey: bool) -> Bytes:
    from PIL import ImageOps

    x = np.empty((len(files), 1 if grey else 3, size, size), dtype=np.uint8)
    for k, file in enumerate(files):
        with _opened(file) as image:
            try:
                upright = ImageOps.exif_transpose(image).convert("L" if grey else "RGB")
            except (OSError, ValueError, SyntaxError) as error:  # what decoders raise
                raise _unreadable(file, error) from None
        pixels = np.asarray(ImageOps.fit(upright, (size, size)))
        x[k] = pixels[None] if grey else pixels.transpose(2, 0, 1)
    return x


def _scaled(x: dict[str, Bytes], y: dict[str, Labels]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Arrays by name, standardised by what is not for testing; and what was decided."""
    notes: tuple[str, ...] = ()
    if "whole" in x:
        num = len(y["whole"])
        num_test = min(1000, int(0.4 * num))
        if num - num_test < 20 or num_test < 10:
            raise InputError(
                f"There are {num} images: too few for three parts.", "Give at least 30."
            )
        pool, test = part_of(y["whole"], np.arange(num), num - num_test, SPLIT_SEED % 2**32)
        whole_x, whole_y = x["whole"], y["whole"]
        x = {"train": whole_x[pool], "test": whole_x[test]}
        y = {"train": whole_y[pool], "test": whole_y[test]}
        notes = (f"The folder has no parts: {num_test} images are the test part for every seed.",)
    seen = np.concatenate([x["train"], x["val"]]) if "val" in x else x["train"]
    scaled = Official(seen, y["train"], x["test"], y["test"]).scaled
    arrays = {f"x_{part}": scaled(images) for part, images in x.items()}
    return arrays | {f"y_{part}": labels for part, labels in y.items()}, notes
