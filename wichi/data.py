"""Data sets for learning and tests: the 8x8 digits that ship with wichi, and MNIST.

>>> data = DataModule("digits", batch_size=32)
>>> x, y = next(iter(data.next_training_batch(arrays=True)))
>>> x.shape, y.shape
((32, 64), (32, 10))
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wichi.errors import DataError
from wichi.tensor import Tensor

Floats = NDArray[np.float64]
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# The four files of Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits". The SHA-256 is of
# what they hold, unpacked: mirrors have packed them anew.
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class Split(NamedTuple):
    """Images of shape ``(N, pixels)``, scaled to [0, 1], and their labels of shape ``(N,)``."""

    images: Floats
    labels: NDArray[np.int64]


class DataModule:
    """Labelled images in three splits, served as shuffled minibatches.

    Args:
        source: ``"digits"``, 1,797 images of 8x8 pixels that ship with wichi (UCI Optical Recognition of Handwritten
            Digits, E. Alpaydin and C. Kaynak 1998, CC BY 4.0), or ``"mnist"``, 70,000 of 28x28, looked for in
            ``$WICHI_DATA``, then in wichi's cache folder, then downloaded.
        batch_size: images a minibatch; the last one of an epoch may be smaller.
        seed: of the shuffles (and of the splits of the digits). The same seed gives the same batches.
        validation: the part of the training images kept for validation.
        test: the part of the digits kept for testing; MNIST brings its own test set.
        mirrors: where MNIST is downloaded from.

    Raises:
        DataError: an unknown source, a broken file, or MNIST is nowhere to be had.

    >>> data = DataModule("digits", batch_size=100, seed=1)
    >>> sum(len(x) for x, y in data.next_training_batch(arrays=True)) == len(data.training(arrays=True)[0])
    True
    """

    def __init__(
        self,
        source: Literal["digits", "mnist"] = "digits",
        batch_size: int = 32,
        seed: int = 0,
        validation: float = 0.1,
        test: float = 0.2,
        mirrors: Sequence[str] = MIRRORS,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1.")
        if not (0 <= validation < 1 and 0 <= test < 1):
            raise DataError(f"validation={validation} and test={test} must be parts in [0, 1).")
        self.source, self.batch_size = source, batch_size
        self._rng = np.random.default_rng(seed)
        if source == "digits":
            training, self._test = _divided(_digits(), test, self._rng)
        elif source == "mnist":
            training, self._test = _mnist(mirrors)
        else:
            raise DataError(f"There is no source {source!r}.", fix='DataModule("digits") or DataModule("mnist")')
        self._training, self._validation = _divided(training, validation, self._rng)
        self.labels = np.arange(10)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{len(s.labels)} {n}"
            for n, s in (("training", self._training), ("validation", self._validation), ("test", self._test))
        )
        return f"DataModule({self.source!r}: {sizes})"

    def next_training_batch(self, arrays: bool = False) -> Iterator[tuple[Any, Any]]:
        """One epoch of shuffled minibatches ``(x, y)``: images ``(B, pixels)`` and one-hot labels ``(B, 10)``, float64.

        Each call shuffles anew. Batches are eager Tensors, or ndarrays with ``arrays=True``.
        """
        order = self._rng.permutation(len(self._training.labels))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self._served(Split(self._training.images[chosen], self._training.labels[chosen]), arrays)

    def training(self, arrays: bool = False) -> tuple[Any, Any]:
        """All training images and one-hot labels, in a fixed order."""
        return self._served(self._training, arrays)

    def validation(self, arrays: bool = False) -> tuple[Any, Any]:
        """The images kept for choosing hyperparameters, and their one-hot labels."""
        return self._served(self._validation, arrays)

    def test(self, arrays: bool = False) -> tuple[Any, Any]:
        """The images kept for the last word, and their one-hot labels."""
        return self._served(self._test, arrays)

    def _served(self, split: Split, arrays: bool) -> tuple[Any, Any]:
        y = np.zeros((len(split.labels), len(self.labels)))
        y[np.arange(len(split.labels)), split.labels] = 1.0
        return (split.images, y) if arrays else (Tensor(split.images, label="x"), Tensor(y, label="y"))


def _divided(split: Split, part: float, rng: np.random.Generator) -> tuple[Split, Split]:
    """``split`` shuffled and cut in two; the second has ``part`` of it."""
    order = rng.permutation(len(split.labels))
    cut = len(order) - round(len(order) * part)
    first, second = order[:cut], order[cut:]
    return Split(split.images[first], split.labels[first]), Split(split.images[second], split.labels[second])


def _digits() -> Split:
    with resources.files("wichi").joinpath("data_files/digits.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        images, labels = stored["images"], stored["labels"]
    return Split(images.reshape(len(labels), -1) / 16.0, labels.astype(np.int64))


# --- MNIST ---------------------------------------------------------------------------------------------------------
def _mnist(mirrors: Sequence[str]) -> tuple[Split, Split]:
    parts = []
    for name in ("train", "t10k"):
        images = read_idx(_find(f"{name}-images-idx3-ubyte.gz", mirrors))
        labels = read_idx(_find(f"{name}-labels-idx1-ubyte.gz", mirrors))
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(f"MNIST's {name} images have shape {images.shape}, its labels {labels.shape}.")
        parts.append(Split(images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)))
    return parts[0], parts[1]


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/wichi/mnist``, by default ``~/.cache/wichi/mnist``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wichi" / "mnist"


def _find(name: str, mirrors: Sequence[str]) -> Path:
    folders = [Path(os.environ["WICHI_DATA"])] if os.environ.get("WICHI_DATA") else []
    for folder in (*folders, cache_folder()):
        for candidate in (folder / name, folder / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
    return _download(name, mirrors)


def _download(name: str, mirrors: Sequence[str]) -> Path:
    """Fetch one file into the cache folder; a partial or altered download never gets its final name."""
    import urllib.error
    import urllib.request  # a hundredth of a second that only a download needs

    failures = []
    for mirror in mirrors:
        try:
            with urllib.request.urlopen(mirror + name, timeout=30) as answer:
                content = answer.read()
        except (urllib.error.URLError, OSError, ValueError) as error:
            failures.append(f"{mirror}: {error}")
            continue
        try:
            digest = hashlib.sha256(gzip.decompress(content)).hexdigest()
        except (OSError, EOFError, zlib.error) as error:
            failures.append(f"{mirror}: {error}")
            continue
        if digest != MNIST_FILES[name]:
            failures.append(f"{mirror}: SHA-256 is {digest}, not {MNIST_FILES[name]}")
            continue
        target = cache_folder() / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(content)
        os.replace(file.name, target)
        return target
    raise DataError(
        f"MNIST's {name} is not here and could not be downloaded.",
        value="; ".join(failures) or "no mirror to ask",
        fix=f"set WICHI_DATA to a folder that holds the four files, or put them into {cache_folder()}, or go online",
    )


_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> NDArray[Any]:
    """The array in a file of MNIST's IDX format, gzipped or plain.

    Raises:
        DataError: not an IDX file, or one that is cut short or longer than it says.

    The format: two zero bytes, a type code, the number of axes, each size as a big-endian int32, then the elements.
    """
    try:
        content = Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="delete it, so that it is fetched again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(f"{path} is not an IDX file.", value=f"it starts with {content[:4]!r}")
    dtype, axes = np.dtype(_TYPES[content[2]]), content[3]
    header = 4 + 4 * axes
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], ">i4")) if len(content) >= header else None
    if shape is None or len(content) != header + int(np.prod(shape)) * dtype.itemsize:
        raise DataError(f"{path} is cut short or has trailing bytes.", value=f"{len(content)} bytes for shape {shape}")
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder("="))
