import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def file(tmp_path):
    """The path of a file of this name."""
    return lambda name: str(tmp_path / name)


@pytest.fixture(scope="session")
def spark():
    """A driver and two executors, all processes of their own, for all tests that use Spark."""
    import spark_cluster

    session = spark_cluster.session("local-cluster[2,1,1024]")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def data(spark, tmp_path_factory):
    import spark_cluster

    return spark_cluster.Data(spark, str(tmp_path_factory.mktemp("single")))
