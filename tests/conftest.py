"""Where the real MNIST is, if it is at hand; and a kernel cache of the tests' own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Set before wichi is imported: the suite neither reads nor fills the user's cache.
os.environ["WICHI_CACHE"] = tempfile.mkdtemp(prefix="wichi-tests-")
atexit.register(shutil.rmtree, os.environ["WICHI_CACHE"], ignore_errors=True)
# The same for PyTensor where it is installed; and no C compiler: numba mode is the one that is tested.
_PYTENSOR = tempfile.mkdtemp(prefix="wichi-tests-pytensor-")
os.environ["PYTENSOR_FLAGS"] = f"cxx=,base_compiledir={_PYTENSOR}"
atexit.register(shutil.rmtree, _PYTENSOR, ignore_errors=True)

# A shell's background job ignores Ctrl-C, and tests of it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def mnist_folder() -> Path | None:
    """The folder named by WICHI_DATA, or one beside the checkout."""
    folders = [Path(os.environ["WICHI_DATA"])] if os.environ.get("WICHI_DATA") else []
    return next((f for f in (*folders, _BESIDE) if (f / "train-images-idx3-ubyte.gz").is_file()), None)


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the real MNIST, set as WICHI_DATA; the test is skipped where it is not at hand."""
    folder = mnist_folder()
    if folder is None:
        pytest.skip("the real MNIST is not at hand: set WICHI_DATA to a folder with its four .gz files")
    monkeypatch.setenv("WICHI_DATA", str(folder))
    return folder
