"""AnnoyIndex behaves as Annoy's does: the behaviours that Annoy's own tests name, and the package itself as a peer."""
import math
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from sqlite_annoy import AnnoyIndex

METRICS = ["angular", "euclidean", "manhattan", "hamming", "dot"]


def rows_of(metric, rng, n, f):
    if metric == "hamming":
        return (rng.random((n, f)) < 0.5).astype(np.float32)
    return rng.standard_normal((n, f)).astype(np.float32)


def filled(metric, rows, trees=10, numbers=None):
    index = AnnoyIndex(rows.shape[1], metric)
    for i, row in zip(numbers if numbers is not None else range(len(rows)), rows):
        index.add_item(i, row)
    index.build(trees)
    return index


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_and_distances_are_those_of_annoy(metric, rng):
    annoy = pytest.importorskip("annoy")
    rows, queries = rows_of(metric, rng, 500, 24), rows_of(metric, rng, 20, 24)
    ours, theirs = filled(metric, rows), annoy.AnnoyIndex(24, metric)
    for i, row in enumerate(rows):
        theirs.add_item(i, row)
    theirs.build(10)
    for query in queries:
        items, distances = ours.get_nns_by_vector(query, 10, include_distances=True)
        # Annoy looks at everything.
        wanted, their_distances = theirs.get_nns_by_vector(query, 10, 100_000, True)
        np.testing.assert_allclose(distances, their_distances, rtol=1e-4, atol=1e-4)
        if metric != "hamming":
            assert items == wanted
    for i in range(20):
        assert ours.get_distance(i, i + 7) == pytest.approx(theirs.get_distance(i, i + 7), rel=1e-4, abs=1e-4)
        assert ours.get_item_vector(i) == theirs.get_item_vector(i)
        assert len(ours.get_nns_by_item(i, 5)) == 5
    assert (ours.get_n_items(), ours.get_n_trees()) == (theirs.get_n_items(), theirs.get_n_trees())


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_saved_is_loaded_by_others(metric, rng, file):
    rows = rows_of(metric, rng, 300, 10)
    index = filled(metric, rows)
    before = [index.get_nns_by_item(i, 7, include_distances=True) for i in range(30)]
    assert index.save(file("i.db")) is True
    # As Annoy does, it goes on with the file.
    assert [index.get_nns_by_item(i, 7, include_distances=True) for i in range(30)] == before
    with pytest.raises(Exception):
        index.add_item(1, rows[1])
    for prefault in (False, True):
        other = AnnoyIndex(10, metric)
        assert other.load(file("i.db"), prefault) is True
        assert [other.get_nns_by_item(i, 7, include_distances=True) for i in range(30)] == before
        assert other.get_n_trees() == 10
    code = (
        f"import sqlite_annoy; i = sqlite_annoy.AnnoyIndex(10, {metric!r}); i.load({file('i.db')!r}); "
        "print(i.get_nns_by_item(3, 7))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(before[3][0])


@pytest.mark.parametrize("metric", METRICS)
def test_files_of_annoy_are_opened_and_written(metric, rng, file):
    annoy = pytest.importorskip("annoy")
    rows = rows_of(metric, rng, 400, 12)
    theirs = annoy.AnnoyIndex(12, metric)
    for i, row in enumerate(rows):
        theirs.add_item(i, row)
    theirs.build(8)
    theirs.save(file("theirs.ann"))
    ours = AnnoyIndex(12, metric)
    ours.load(file("theirs.ann"))
    assert (ours.get_n_items(), ours.get_n_trees()) == (400, 8)
    for i in range(20):
        found, distances = ours.get_nns_by_item(i, 10, include_distances=True)
        wanted = theirs.get_nns_by_item(i, 10, 100_000, True)[1]
        np.testing.assert_allclose(distances, wanted, rtol=1e-4, atol=1e-3)
    if metric == "manhattan":
        with pytest.raises(OSError, match="no index of metric manhattan"):
            ours.save_annoy(file("ours.ann"))
        return
    ours.save_annoy(file("ours.ann"))
    again = annoy.AnnoyIndex(12, metric)
    again.load(file("ours.ann"))
    assert (again.get_n_items(), again.get_n_trees()) == (400, 8)
    assert again.get_item_vector(5) == theirs.get_item_vector(5)


def test_small_examples():
    index = filled("angular", np.eye(3, dtype=np.float32))
    assert index.get_nns_by_vector([1, 2, 3], 3) == [2, 1, 0]
    assert index.get_nns_by_vector([3, 2, 1], 3, 10) == [0, 1, 2]
    assert index.get_nns_by_vector([3, 2, 1], 2) == [0, 1]
    index = filled("dot", np.array([[2, 2], [3, 2], [3, 3]], np.float32))
    items, products = index.get_nns_by_vector([4, 2], 3, -1, True)
    assert items == [2, 1, 0] and products == [18, 16, 12]
    assert index.get_distance(0, 1) == 10


def test_angular_distances_are_of_directions_and_defined_for_zero():
    index = AnnoyIndex(2, "angular")
    for i, v in enumerate([[1000, 0], [10, 0], [42, 42], [0, 0]]):
        index.add_item(i, v)
    assert index.get_distance(0, 1) == pytest.approx(0, abs=1e-6)
    assert index.get_distance(0, 2) == pytest.approx(math.sqrt(2 - math.sqrt(2)))
    assert index.get_distance(0, 3) == pytest.approx(math.sqrt(2))


def test_keywords_defaults_and_unknown_metrics():
    index = AnnoyIndex(f=2, metric="euclidean")
    index.add_item(0, [1, 0])
    index.add_item(1, [9, 0])
    assert index.get_distance(0, 1) == 8 and index.f == 2
    with pytest.raises(ValueError, match="angular, euclidean"):
        AnnoyIndex(10, "banana")


@pytest.mark.parametrize("kind", [list, tuple, np.float64, np.float32, np.uint8, np.int16])
def test_vectors_of_any_numbers(kind):
    numbers = [3, 1, 2, 0]
    vector = np.array(numbers, kind) if isinstance(kind, type) and issubclass(kind, np.generic) else kind(numbers)
    index = AnnoyIndex(4, "euclidean")
    index.add_item(0, vector)
    assert index.get_item_vector(0) == numbers


def test_wrong_vectors_are_errors_and_change_nothing():
    class NoLength:
        pass

    class NoItems:
        def __len__(self):
            return 3

    class Short(NoItems):
        def __getitem__(self, i):
            raise IndexError

    index = AnnoyIndex(3, "euclidean")
    for vector, error in [
        ([1, 2, 3, 4], IndexError), ([], IndexError), (NoLength(), TypeError), (NoItems(), TypeError), (Short(), IndexError),
        (["1", "2", "3"], TypeError), (np.zeros((3, 1)), ValueError),
    ]:
        with pytest.raises(error):
            index.add_item(1, vector)
    for number in (-1, 2**31):
        with pytest.raises(IndexError):
            index.add_item(number, [1, 2, 3])
    assert index.get_n_items() == 0
    assert index.build(2) is True
    assert index.get_nns_by_vector([1, 2, 3], 5) == []


def test_numbers_out_of_range_are_errors(rng):
    index = filled("euclidean", rows_of("euclidean", rng, 50, 4))
    for number in (-1000, -1, 50, 1050):
        for ask in (lambda: index.get_distance(0, number), lambda: index.get_nns_by_item(number, 1),
                    lambda: index.get_item_vector(number)):
            with pytest.raises(IndexError):
                ask()


def test_numbers_without_items_are_never_found(rng):
    rows = rows_of("angular", rng, 300, 10)
    numbers = random.Random(3).sample(range(2000), 300)
    index = filled("angular", rows, numbers=numbers)
    assert index.get_n_items() == max(numbers) + 1
    for i in numbers[:30]:
        assert set(index.get_nns_by_item(i, 10_000)) == set(numbers)
    for n in (1, 2, 10):
        far = filled("angular", rows[:n], numbers=range(100_000, 100_000 + n))
        assert set(far.get_nns_by_item(100_000, n)) == set(range(100_000, 100_000 + n))
    assert far.get_item_vector(5) == [0.0] * 10


def test_an_item_can_be_changed_before_the_build():
    index = AnnoyIndex(2, "euclidean")
    index.add_item(0, [5, 5])
    index.add_item(0, [1, 1])
    index.build(1)
    assert index.get_item_vector(0) == [1, 1] and index.get_n_items() == 1


@pytest.mark.parametrize("on_disk", [False, True])
def test_items_that_are_added_after_the_build_are_found_and_saved(rng, file, on_disk):
    rows = rows_of("angular", rng, 60, 6)
    index = AnnoyIndex(6, "angular")
    if on_disk:
        index.on_disk_build(file("a.db"))
    for i, row in enumerate(rows[:50]):
        index.add_item(i, row)
    index.build(4)
    for i, row in enumerate(rows[50:], 50):
        index.add_item(i, row)
    assert index.get_n_items() == 60 and index.get_nns_by_item(57, 1) == [57]
    index.save(file("a.db"))
    other = AnnoyIndex(6, "angular")
    other.load(file("a.db"))
    assert other.get_n_items() == 60 and other.get_nns_by_item(57, 1) == [57]


def test_order_of_calls(rng, file):
    rows = rows_of("angular", rng, 20, 5)
    index = AnnoyIndex(5, "angular")
    index.add_item(0, rows[0])
    with pytest.raises(OSError):
        index.save(file("a.db"))
    index.build(2)
    with pytest.raises(Exception):
        index.build(2)
    index.unbuild()
    index.add_item(1, rows[1])
    index.build(3)
    assert index.get_n_trees() == 3 and set(index.get_nns_by_item(0, 5)) == {0, 1}
    index.save(file("a.db"))
    index.save(file("b.db"))
    for call in (index.unbuild, lambda: index.build(1), lambda: index.add_item(2, rows[2])):
        with pytest.raises(Exception, match="loaded"):
            call()
    index.unload()
    assert index.get_n_items() == 0
    index.add_item(0, rows[0])
    assert index.get_n_items() == 1


def test_files_that_cannot_be_saved_or_loaded_are_os_errors(rng, file):
    index = filled("angular", rows_of("angular", rng, 30, 8))
    for name in ("", "/no/such/folder/x.db"):
        with pytest.raises(OSError):
            index.save(name)
    assert len(index.get_nns_by_item(0, 3)) == 3
    index.save(file("a.db"))
    for f, metric, name in [(9, "angular", "a.db"), (8, "dot", "a.db"), (8, "angular", "missing.db")]:
        with pytest.raises(OSError):
            AnnoyIndex(f, metric).load(file(name))
    for content in (b"", b"nonsense" * 99, b"SQLite format 3\0" + b"x" * 5000):
        with open(file("bad"), "wb") as out:
            out.write(content)
        with pytest.raises(OSError):
            AnnoyIndex(8, "angular").load(file("bad"))


def test_a_file_can_be_saved_over_while_it_is_loaded(rng, file):
    first, second = rows_of("angular", rng, 400, 8), rows_of("angular", rng, 200, 8)
    filled("angular", first).save(file("a.db"))
    reader = AnnoyIndex(8, "angular")
    reader.load(file("a.db"))
    filled("angular", second).save(file("a.db"))
    assert len(reader.get_nns_by_vector(first[0], 1000)) == 400
    again = AnnoyIndex(8, "angular")
    again.load(file("a.db"))
    assert len(again.get_nns_by_vector(first[0], 1000)) == 200
    assert not [name for name in os.listdir(os.path.dirname(file("a.db"))) if "partial" in name]


def test_building_on_disk_gives_the_file(rng, file):
    rows = rows_of("euclidean", rng, 100, 6)
    index = AnnoyIndex(6, "euclidean")
    index.on_disk_build(file("d.db"))
    for i, row in enumerate(rows):
        index.add_item(i, row)
    index.build(5)
    index.save(file("d.db"))
    other = AnnoyIndex(6, "euclidean")
    other.load(file("d.db"))
    assert other.get_nns_by_item(3, 9) == index.get_nns_by_item(3, 9)
    with pytest.raises(OSError):
        AnnoyIndex(6, "euclidean").on_disk_build("/no/such/folder/x.db")


def test_the_same_seed_gives_the_same_answers(rng):
    rows, queries = rows_of("angular", rng, 3000, 10), rows_of("angular", rng, 20, 10)
    answers = []
    for _ in range(2):
        index = AnnoyIndex(10, "angular")
        index.set_seed(42)
        for i, row in enumerate(rows):
            index.add_item(i, row)
        index.build(10, n_jobs=2)
        answers.append([index.get_nns_by_vector(query, 100, 500) for query in queries])
    assert answers[0] == answers[1]


def test_a_larger_budget_finds_more(rng):
    rows = rows_of("euclidean", rng, 5000, 30)
    index = filled("euclidean", rows, 10)
    found = []
    for search_k in (50, 500, 50_000):
        hits = 0
        for i in range(50):
            exact = np.argsort(((rows - rows[i]) ** 2).sum(1), kind="stable")[:10]
            hits += len(set(index.get_nns_by_item(i, 10, search_k)) & set(exact.tolist()))
        found.append(hits / 500)
    assert found[0] < found[1] < found[2] == 1.0, found


def test_threads_ask_one_index(rng):
    rows = rows_of("euclidean", rng, 1000, 10)
    index = filled("euclidean", rows)
    wanted = [index.get_nns_by_item(i, 10) for i in range(100)]
    wrong = []

    def ask():
        for i in range(100):
            if index.get_nns_by_item(i, 10) != wanted[i]:
                wrong.append(i)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_verbose_is_accepted(rng):
    index = AnnoyIndex(3, "angular")
    assert index.verbose(True) is True
    index.add_item(0, [1, 2, 3])
    assert index.build(-1) is True
    assert index.verbose(False) is True
