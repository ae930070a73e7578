"""Draw what a recipe's augmentation makes of its training images, 8 × 8 of them.

python examples/augmented_images.py [RECIPE [DATA_FOLDER]]

Without arguments it cuts two photographs that come with scikit-learn into tiles, and takes those as a folder of images.
"""

import sys
import tempfile
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.utils import save_image

from staa import RECIPES, Data, Recipe
from staa.build import task_of
from staa.recipes.find import find_recipe


def tiles(folder: Path, side: int = 96) -> Path:
    """The two photographs as class folders of tiles."""
    photographs = load_sample_images()
    for name, pixels in zip(photographs.filenames, photographs.images, strict=True):
        (folder / Path(name).stem).mkdir()
        picture = Image.fromarray(pixels)
        for i, (x, y) in enumerate((x, y) for x in range(0, 576, side) for y in range(0, 384, side)):
            picture.crop((x, y, x + side, y + side)).save(folder / Path(name).stem / f"{i}.png")
    return folder


def sheet(recipe: Recipe, root: Path) -> Path:
    recipe = replace(recipe, batch_size=16, seed=1)  # MixUp and CutMix draw once for each batch
    source = task_of(recipe).source(root)
    if source.channels != 3:
        sys.exit(f"{recipe.name} has no colour images, but {source.channels} channels")
    batches = task_of(recipe).batches(source, "train", torch.device("cpu"), workers=0, training=True)
    images = (image for epoch in count() for x, _ in batches.epoch(epoch) for image in x)
    path = Path(f"{recipe.name}-augmented.png")
    save_image(torch.stack(list(islice(images, 64))), path, nrow=8, normalize=True)
    return path


if len(sys.argv) > 1:
    print(sheet(find_recipe(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "data")))
else:
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(RECIPES["folder-resnet18-staa"], data=Data(name="folder", size=64))
        print(sheet(recipe, tiles(Path(folder))))
