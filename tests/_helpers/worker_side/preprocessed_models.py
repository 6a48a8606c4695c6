"""Models of TensorFlow with steps in front of their images: imported, run and converted in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.events import Listener

SIZE, CROP = (24, 30), (16, 16)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
STEPS = "image:size=24x30,resize=18,crop=16,channels=bgr,scale=1/255,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"


def images(count: int = 40) -> Any:
    """Return BGR images of 24x30 pixels with soft edges, shape (N, H, W, 3)."""
    coarse = np.random.default_rng(0).uniform(-40, 295, (count, 6, 10, 3))
    return np.clip(bilinear(coarse, *SIZE), 0, 255).round().astype(np.uint8)


def bilinear(pixels: Any, height: int, width: int) -> Any:
    """Resize (N, H, W, C) by the definition: half-pixel centres, no antialiasing, edges repeated."""
    for axis, size in ((1, height), (2, width)):
        length = pixels.shape[axis]
        place = (np.arange(size) + 0.5) * length / size - 0.5
        lower = np.floor(place).astype(int)
        weight = np.expand_dims(place - lower, tuple(range(1, 4 - axis)))
        first, second = (np.take(pixels, np.clip(lower + step, 0, length - 1), axis) for step in (0, 1))
        pixels = first * (1 - weight) + second * weight
    return pixels


def expected_input(pixels: Any) -> Any:
    """Return what `STEPS` make of images: shape (N, 16, 16, 3), in float64."""
    resized = bilinear(pixels.astype(np.float64), 18, 22)  # 18 * 30 / 24 = 22.5
    return (resized[:, 1:17, 3:19, ::-1] / 255 - MEAN) / STD


def preprocessed_model(kind: str, folder: str, *, emit: Listener) -> dict[str, Any]:
    """Save a network of images, import it with `STEPS`, and convert it to TFLite.

    Returns:
        The notes, the inputs and the errors of the loaded source and its files.
    """
    from edgekit.contracts.runtime import RUNTIMES
    from edgekit.contracts.source import SOURCES
    from edgekit.core.records import samples
    from edgekit.core.values.file_names import CALIBRATION_FILE, GOLDEN_FILE
    from edgekit.core.values.preprocessing import parse_all
    from edgekit.stages.conversion.convert_job import ConvertRequest, convert
    from edgekit.stages.models.import_job import ImportRequest, import_user_model

    path, network = _saved(kind, Path(folder))
    np.save(Path(folder, "raw.npy"), images())
    place = Path(folder, "source")
    place.mkdir()
    sample = str(Path(folder, "raw.npy"))
    request = ImportRequest(
        "net", kind, folder, str(path), sample=sample, preprocess=parse_all([STEPS]), folder=str(place)
    )
    source = import_user_model(request, emit)
    loaded = SOURCES.load(kind).load(place / source.file, source.all_inputs(source.signature), None)
    loaded = loaded.with_preprocessing(source.preprocessing).at(source.signature, source.sizes)
    golden, calibration = (samples.load(place / name, "samples").inputs for name in (GOLDEN_FILE, CALIBRATION_FILE))
    expected = network(expected_input(golden["image"]).astype(np.float32))
    answer: dict[str, Any] = {
        "notes": [note for note in source.notes if "preprocessed" in note],
        "rounding": [*source.rounding],
        "sqnr_db": _sqnr_db(loaded.run(golden), expected),
        "files": {},
    }
    for precision in ("float32", "int8"):
        target = Path(folder, precision)
        target.mkdir()
        convert_request = ConvertRequest(
            str(place), source, None, "tflite", precision, str(target), calibration=calibration
        )
        converted = convert(convert_request, emit).converted
        session = RUNTIMES.load("litert").open(target / converted.file, threads=1, signature=converted.signature)
        (image,) = converted.signature.inputs
        scale = None if image.quantization is None else (image.quantization.scale, image.quantization.zero_point)
        outputs = session.infer(golden)
        answer["files"][precision] = (image.shape, image.dtype, scale, _sqnr_db(outputs, expected))
    return answer


def _sqnr_db(outputs: Any, expected: Any) -> float:
    (actual,) = outputs.values()
    return float(10 * np.log10(np.sum(expected**2) / np.sum((actual - expected) ** 2)))


def _saved(kind: str, folder: Path) -> tuple[Path, Any]:
    """Write a convolution with the mean over the image; return its path and a function that runs it."""
    import keras

    keras.utils.set_random_seed(0)
    x = keras.Input((16, 16, 3), name="image")
    y = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(x)
    model = keras.Model(x, keras.layers.Dense(4, name="scores")(keras.layers.GlobalAveragePooling2D()(y)))

    def network(batch: Any) -> Any:
        return np.asarray(model(batch))

    if kind == "keras":
        model.save(folder / "net.keras")
        return folder / "net.keras", network
    model.export(folder / "net", verbose=False)
    return folder / "net", network
