import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def file(tmp_path):
    """The path of a file of this name."""
    return lambda name: str(tmp_path / name)
