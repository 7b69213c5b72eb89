"""Photographs into the uint8 pixels that a model wants: decode, turn upright, resize, crop the centre.

The geometry is torchvision's `Resize(preprocessing.resize)` then `CenterCrop(preprocessing.size)`, pixel for
pixel. Normalisation is left to the engine, which does it inside its first convolution.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from effnet_fast.models import Preprocessing

__all__ = ["ImageError", "find_images", "load_image", "prepare_image", "read_image"]

#: Sides further apart than this are cropped before resizing, not after: the result is the same crop, and a
#: strip of 10 x 100000 pixels is not first enlarged to gigabytes.
MAX_ASPECT = 16

#: Resampling filters by the names that `Preprocessing` uses.
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class ImageError(ValueError):
    """An image file that cannot be used. The message names the file and the reason; `path` is the file."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """Files named by `paths`, in order; a folder stands for the image files directly and deeper in it,
    sorted.

    A file that is named is kept whatever its name; it is refused when it is read. Raises ImageError for a
    folder without image files.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        files = (file for file in path.rglob("*") if file.suffix.lower() in suffixes)
        inside = sorted(file for file in files if file.is_file())
        if not inside:
            raise ImageError(path, "the folder holds no image files")
        found += inside
    return found


def read_image(path: str | Path) -> Image.Image:
    """Decode `path` to an upright 8-bit RGB picture.

    The camera's orientation (EXIF) is applied. Greyscale, palette and CMYK are converted; 16-bit samples keep
    their 8 upper bits; a transparent picture is laid on white; of an animation the first frame is taken.

    Raises:
        ImageError: there is no such file, it is no image, it is cut short, or it is too large to be meant.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.load()
                upright = ImageOps.exif_transpose(file)
        return _to_rgb(upright)
    except FileNotFoundError:
        raise ImageError(path, "there is no such file") from None
    except IsADirectoryError:
        raise ImageError(path, "it is a folder, not an image") from None
    except UnidentifiedImageError:
        raise ImageError(path, "it is not an image in a format that can be read") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(path, f"it is too large ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:  # what Pillow's decoders raise
        raise ImageError(path, f"it cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(samples: np.ndarray) -> np.ndarray:
    """16-bit integers (also held in 32) by their share of 65535, floats by their share of 1; to uint8."""
    if samples.dtype.kind == "f":
        if not np.isfinite(samples).all() or samples.min(initial=0) < 0 or samples.max(initial=0) > 1:
            raise ValueError("floating samples outside 0 to 1 have no known scale")
        return np.rint(samples * 255).astype(np.uint8)
    if samples.min(initial=0) < 0 or samples.max(initial=0) > 65535:
        raise ValueError("integer samples outside 0 to 65535 have no known scale")
    return (samples.astype(np.uint32) >> 8).astype(np.uint8)


def prepare_image(image: Image.Image, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize the shorter side to `preprocessing.resize`, crop the centre: uint8 [size, size, 3].

    Args:
        image: RGB, as `read_image` gives it.
        preprocessing: `size`, `crop` and `interpolation` are used.
    """
    if preprocessing.interpolation not in FILTERS:
        raise ValueError(
            f"preprocessing: interpolation is {preprocessing.interpolation!r}; allowed: {', '.join(FILTERS)}"
        )
    image = _without_far_ends(image)
    width, height = image.size
    shorter = preprocessing.resize
    if width <= height:
        resized = (shorter, max(1, int(shorter * height / width)))
    else:
        resized = (max(1, int(shorter * width / height)), shorter)
    image = image.resize(resized, FILTERS[preprocessing.interpolation])
    left = round((resized[0] - preprocessing.size) / 2)
    top = round((resized[1] - preprocessing.size) / 2)
    image = image.crop((left, top, left + preprocessing.size, top + preprocessing.size))
    return torch.from_numpy(np.array(image, dtype=np.uint8))


def _without_far_ends(image: Image.Image) -> Image.Image:
    width, height = image.size
    limit = MAX_ASPECT * min(width, height)
    if max(width, height) <= limit:
        return image
    left, top = max(0, (width - limit) // 2), max(0, (height - limit) // 2)
    return image.crop((left, top, left + min(width, limit), top + min(height, limit)))


def load_image(path: str | Path, preprocessing: Preprocessing) -> torch.Tensor:
    """`prepare_image(read_image(path), preprocessing)`: uint8 [size, size, 3]; ImageError as `read_image`."""
    return prepare_image(read_image(path), preprocessing)
