"""Splits and batches; the IDX reader; MNIST from a folder, from the cache and over (loopback) HTTP."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wichi import DataModule, Tensor
from wichi import data as module
from wichi.errors import DataError


def idx(array: Any) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def small_mnist() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for name, count in (("train", 50), ("t10k", 20)):
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(idx(rng.integers(0, 256, (count, 28, 28))))
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(idx(rng.integers(0, 10, count)))
    return files


def test_an_epoch_holds_every_training_image_once() -> None:
    data = DataModule("digits", batch_size=32, seed=3)
    batches = list(data.next_training_batch(arrays=True))
    x, y = data.training(arrays=True)
    assert [len(b[0]) for b in batches[:-1]] == [32] * (len(batches) - 1)
    assert 0 < len(batches[-1][0]) <= 32
    seen = np.concatenate([b[0] for b in batches])
    assert seen.shape == x.shape
    np.testing.assert_array_equal(np.sort(seen.sum(1)), np.sort(x.sum(1)))
    assert set(np.unique(y)) == {0.0, 1.0}
    np.testing.assert_array_equal(y.sum(1), 1)


def test_splits_are_apart_and_complete() -> None:
    data = DataModule("digits", seed=0)
    sizes = [len(part(arrays=True)[0]) for part in (data.training, data.validation, data.test)]
    assert sum(sizes) == 1797
    assert min(sizes) > 100
    x = data.test(arrays=True)[0]
    assert x.min() == 0
    assert x.max() == 1


def test_seeds_decide_and_epochs_differ() -> None:
    first, second, other = DataModule(seed=1), DataModule(seed=1), DataModule(seed=2)
    a, b, c = (next(iter(d.next_training_batch(arrays=True)))[0] for d in (first, second, other))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a, next(iter(first.next_training_batch(arrays=True)))[0])


def test_batches_are_tensors_by_default() -> None:
    x, y = next(iter(DataModule(batch_size=5).next_training_batch()))
    assert isinstance(x, Tensor)
    assert x.shape == (5, 64)
    assert y.data.dtype == np.float64


def test_bad_arguments() -> None:
    for arguments in ({"source": "cifar"}, {"batch_size": 0}, {"validation": 1.0}, {"test": -0.1}):
        with pytest.raises(DataError):
            DataModule(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_idx_reader(tmp_path: Path, packed: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    np.testing.assert_array_equal(module.read_idx(path), array)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"hello world", idx(np.zeros((2, 3)))[:-1], idx(np.zeros(3)) + b"x", gzip.compress(idx(np.zeros(9)), mtime=0)[:-9],
     b"\0\0\x07\x01\0\0\0\0", b"\x1f\x8bgarbled"],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(DataError, match="broken"):
        module.read_idx(path)


def test_mnist_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in small_mnist().items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("WICHI_DATA", str(tmp_path))
    data = DataModule("mnist", batch_size=8)
    assert data.test(arrays=True)[0].shape == (20, 784)
    assert len(data.training(arrays=True)[0]) == 45


def test_the_real_mnist(mnist: Path) -> None:
    data = DataModule("mnist")
    assert len(data.training(arrays=True)[0]) == 54_000
    assert data.test(arrays=True)[1].sum(0).astype(int).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A mirror on the loopback that serves a folder; the cache is another folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Nothing: pytest shows what matters."""

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    monkeypatch.delenv("WICHI_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield f"http://127.0.0.1:{httpd.server_port}/", folder
    httpd.shutdown()
    httpd.server_close()
    thread.join()


def digests(files: dict[str, bytes]) -> dict[str, str]:
    import hashlib

    return {name: hashlib.sha256(gzip.decompress(content)).hexdigest() for name, content in files.items()}


def test_download(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    files = small_mnist()
    monkeypatch.setattr(module, "MNIST_FILES", digests(files))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    first = DataModule("mnist", mirrors=["http://127.0.0.1:1/", url])  # the first mirror is dead
    for name in files:
        (folder / name).unlink()
    second = DataModule("mnist", mirrors=[url])  # from the cache
    np.testing.assert_array_equal(first.test(arrays=True)[0], second.test(arrays=True)[0])


@pytest.mark.parametrize("fault", ["altered", "missing", "cut short"])
def test_faulty_downloads_leave_nothing_behind(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    url, folder = server
    files = small_mnist()
    monkeypatch.setattr(module, "MNIST_FILES", digests(files))
    for name, content in files.items():
        if fault == "altered":
            (folder / name).write_bytes(gzip.compress(b"something else"))
        elif fault == "cut short":
            (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError) as caught:
        DataModule("mnist", mirrors=[url])
    message = str(caught.value)
    assert "WICHI_DATA" in message
    assert str(module.cache_folder()) in message
    assert "online" in message
    assert not list(module.cache_folder().glob("*")) if module.cache_folder().exists() else True
