import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from effnet_fast.images import MAX_ASPECT, ImageError, find_images, load_image, prepare_image, read_image
from effnet_fast.models.config import Preprocessing

PREPROCESSING = Preprocessing(
    size=32, crop=0.875, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth colours, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def as_array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("size", [(50, 40), (40, 51), (37, 37), (20, 33), (200, 41)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_geometry_is_torchvisions_pixel_for_pixel(size, interpolation):
    from torchvision import transforms

    preprocessing = replace(PREPROCESSING, interpolation=interpolation)
    image = picture(*size)
    mode = transforms.InterpolationMode(interpolation)
    resized = transforms.Resize(preprocessing.resize, interpolation=mode)(image)
    expected = np.asarray(transforms.CenterCrop(preprocessing.size)(resized))
    pixels = prepare_image(image, preprocessing)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (32, 32, 3)
    assert np.array_equal(pixels.numpy(), expected)


def test_a_very_long_picture_is_cropped_before_it_is_enlarged():
    pixels = prepare_image(picture(100_000, 4), PREPROCESSING)
    assert pixels.shape == (32, 32, 3)
    assert (pixels[..., 0].int() - 127).abs().max() <= 2  # the middle of the red ramp
    just_wider = picture(33 * MAX_ASPECT + 2, 33)
    narrower = just_wider.crop((1, 0, 33 * MAX_ASPECT + 1, 33))
    difference = prepare_image(just_wider, PREPROCESSING).int() - prepare_image(narrower, PREPROCESSING).int()
    assert difference.abs().max() <= 2


def test_an_unknown_interpolation_is_named():
    with pytest.raises(ValueError, match="'cubic-ish'; allowed: bicubic, bilinear"):
        prepare_image(picture(8, 8), replace(PREPROCESSING, interpolation="cubic-ish"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(tmp_path, orientation):
    upright = picture(24, 16)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(as_array(read_image(tmp_path / "photo.png")), as_array(upright))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("1", "png"),
        ("P", "png"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("YCbCr", "jpg"),
        ("RGB", "webp"),
    ],
)
def test_every_colour_mode_becomes_rgb(tmp_path, mode, suffix):
    original = picture(24, 16, mode)
    path = tmp_path / f"image.{suffix}"
    original.save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = read_image(path)
    assert (image.mode, image.size) == ("RGB", (24, 16))
    tolerance = 40 if suffix == "jpg" else 0
    assert np.abs(as_array(image) - as_array(original.convert("RGB"))).max() <= tolerance


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    samples = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(samples).save(tmp_path / f"deep.{suffix}")
        image = as_array(read_image(tmp_path / f"deep.{suffix}"))
        assert image[0, :, 0].tolist() == [0, 0, 1, 128, 255]
        assert (image[..., 0] == image[..., 2]).all()


def test_floats_are_shares_of_one_and_others_are_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "unit.tif")
    assert as_array(read_image(tmp_path / "unit.tif"))[0, :, 1].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0.0, 300.0]], dtype=np.float32)).save(tmp_path / "wide.tif")
    with pytest.raises(ImageError, match="no known scale"):
        read_image(tmp_path / "wide.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), (0,) * (len(mode) - 1) + (255,))
    image.putpixel((1, 0), (0,) * len(mode))
    image.save(tmp_path / "clear.png")
    assert as_array(read_image(tmp_path / "clear.png"))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_a_transparent_palette_entry_is_laid_on_white(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=1)
    assert as_array(read_image(tmp_path / "palette.png"))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert as_array(read_image(tmp_path / "moving.gif"))[0, 0].tolist() == [255, 0, 0]


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture(200, 100).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (encoded("JPEG")[:900], "cannot be decoded"),
        (encoded("PNG")[:300], "cannot be decoded"),
        (b"GIF89a", "not an image|cannot be decoded"),
    ],
    ids=["empty", "text", "half jpeg", "half png", "gif header"],
)
def test_what_cannot_be_read_says_which_file_and_why(tmp_path, content, words):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as error:
        load_image(path, PREPROCESSING)
    assert error.value.path == path
    assert str(path) in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match="there is no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="it is a folder"):
        read_image(tmp_path)


def test_an_image_too_large_to_be_meant_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    picture(15, 10).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "large.png")
    picture(30, 10).save(tmp_path / "larger.png")
    with pytest.raises(ImageError, match="too large"):
        read_image(tmp_path / "larger.png")


def test_folders_stand_for_the_images_in_them(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/two.PNG", "one.jpg", "notes.txt", "three.webp"):
        (tmp_path / name).write_bytes(b"")
    found = find_images([tmp_path, tmp_path / "notes.txt", "missing.jpg"])
    names = [path.name for path in found]
    assert names == ["two.PNG", "one.jpg", "three.webp", "notes.txt", "missing.jpg"]
    (tmp_path / "c").mkdir()
    with pytest.raises(ImageError, match="holds no image files"):
        find_images([tmp_path / "c"])
