"""The shared `vec_*` functions against sqlite-vec's, on random vectors of every element type and on edges.

    python3 sqlite_vec_differential.py <library> [seed] [rounds]

Needs sqlite-vec from PyPI, and either an sqlite3 module that can load extensions or apsw. Both extensions are loaded
into one SQLite, each in a connection of its own. Every expression must give the same type and value (floats within the
derived rounding error of f32 sums), or both must fail, ours with sqlite-vec's words first. The only differences allowed
are those in DIFFERENCES; one that no longer shows is a failure too.
"""

import math
import random
import struct
import sys

import sqlite_vec

DIFFERENCES = {
    "finite": "NaN and infinity in an argument are refused with their index; sqlite-vec computes with them",
    "overflow": "a result that overflows float32 is refused with its index; sqlite-vec returns infinite components",
    "wrap": "a result out of range for int8 is refused with its index; sqlite-vec wraps around",
    "json": "JSON is strict (RFC 8259); sqlite-vec takes unfinished arrays, missing commas, text after the array, "
    "numbers as strtod() reads them, and empties its array where none was closed",
    "zero-cosine": "a zero vector has cosine distance 1; sqlite-vec returns NULL (0/0)",
    "zero-normalize": "a zero vector normalises to itself; sqlite-vec returns NaN components",
    "range": "norms and distances are right for huge and tiny components; sqlite-vec's f32 sums over- and underflow",
    "slice-index": "an index must be an INTEGER; sqlite-vec reads NULL and any text as a number, and drops bits above 32",
    "bit-json": "vec_bit takes JSON, the inverse of vec_to_json; sqlite-vec refuses it",
    "bit-order": "vec_each gives bit components in the order of vec_to_json; sqlite-vec's two functions disagree",
    "each-message": "vec_each says what is wrong; sqlite-vec says only 'SQL logic error'",
    "each-vector": "the hidden column of vec_each gives the vector; sqlite-vec gives NULL",
    "self-distance": "a vector is at cosine distance 0 from itself; sqlite-vec may be off by rounding",
}

U = 2.0**-24  # unit roundoff of f32


def gamma(k):
    return k * U / (1 - k * U)


def connect(extension):
    """A function that runs SQL with parameters and returns its rows, in a connection with this extension."""
    try:
        import sqlite3

        db = sqlite3.connect(":memory:")
        db.enable_load_extension(True)
        db.load_extension(extension)
        version = sqlite3.sqlite_version
    except (ImportError, AttributeError):
        import apsw

        db = apsw.Connection(":memory:")
        db.enable_load_extension(True)
        db.load_extension(extension)
        version = apsw.sqlite_lib_version()
    return version, lambda sql, args: [tuple(row) for row in db.execute(sql, args)]


def outcome(run, sql, args):
    try:
        return "ok", run(sql, args)
    except Exception as error:  # every host has its own class
        return "error", str(error).removeprefix("SQLError: ")


def close(a, b, tolerance):
    """Whether two values are equal: floats within `tolerance(a, b)`."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= tolerance(a, b))
    if isinstance(a, bytes) and a != b and tolerance is not exactly and len(a) == len(b) and len(a) % 4 == 0:
        xs, ys = (struct.unpack(f"<{len(v) // 4}f", v) for v in (a, b))
        return all(close(x, y, tolerance) for x, y in zip(xs, ys))
    return a == b or (isinstance(a, str) and same_numbers(a, b))


def same_numbers(a, b):
    """Whether two JSON arrays print the same numbers. Beyond 1e12, vec_to_json of sqlite-vec prints what the printf of
    the SQLite around it makes of the 16th digit: 3.40 cuts, 3.54 rounds, neither always right."""
    pairs = list(zip(a.strip("[]").split(","), b.strip("[]").split(","), strict=False))
    return a.count(",") == b.count(",") and all(
        x == y or (abs(float(y)) >= 1e12 or abs(float(x)) >= 1e12) and abs(float(x) - float(y)) <= 2e-15 * abs(float(y))
        for x, y in pairs
    )


def exactly(_a, _b):
    return 0.0


def relative(k):
    """Sums of k rounded, positive terms on both sides."""
    return lambda a, b: 2 * gamma(k) * max(abs(a), abs(b))


def absolute(bound):
    return lambda _a, _b: bound


class Comparison:
    def __init__(self, theirs, ours):
        self.theirs, self.ours = theirs, ours
        self.count, self.failures = 0, []
        self.seen = dict.fromkeys(DIFFERENCES, 0)

    def __call__(self, sql, *args, tolerance=exactly, differs=None):
        """Compares `SELECT sql`; `differs` names the one difference that must show."""
        self.count += 1
        sql = sql if sql.startswith("SELECT") else "SELECT " + sql
        want, got = outcome(self.theirs, sql, args), outcome(self.ours, sql, args)
        if want[0] == got[0] == "ok":
            same = len(want[1]) == len(got[1]) and all(
                len(x) == len(y) and all(close(a, b, tolerance) for a, b in zip(x, y))
                for x, y in zip(want[1], got[1])
            )
        else:
            same = want[0] == got[0] and got[1].startswith(want[1])
        if same == (differs is None):
            if differs:
                self.seen[differs] += 1
            return
        expected = "equal" if differs is None else f"differ ({differs})"
        self.failures.append(f"{sql} {args!r}\n  expected to {expected}\n  sqlite-vec:  {want}\n  sqlite-annoy: {got}")


def f32(components):
    return struct.pack(f"<{len(components)}f", *components)


def random_rounds(compare, rng, rounds):
    for _ in range(rounds):
        n = rng.choice([1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 100, 384, 768, 1000])
        magnitude = rng.choice([1.0, 1.0, 1e-3, 1e6])
        x, y = ([rng.uniform(-magnitude, magnitude) for _ in range(n)] for _ in range(2))
        a, b = f32(x), f32(y)
        for v in (a, f"[{', '.join(map(repr, x))}]"):
            compare("vec_f32(?)", v)
            compare("vec_length(?)", v)
            compare("vec_type(?)", v)
            compare("vec_to_json(?)", v)
            compare("vec_add(?, ?)", v, b)
            compare("vec_sub(?, ?)", v, b)
            compare("vec_normalize(?)", v, tolerance=relative(n + 4))
            compare("vec_quantize_int8(?, 'unit')", v)
            compare("vec_quantize_binary(?)", v)
            compare("vec_distance_l2(?, ?)", v, b, tolerance=relative(n + 4))
            compare("vec_distance_l1(?, ?)", v, b, tolerance=relative(n + 1))
            compare("vec_distance_cosine(?, ?)", v, b, tolerance=absolute(6 * gamma(n + 4)))
            compare("SELECT rowid, value FROM vec_each(?)", v)
            start, end = rng.randint(0, n), rng.randint(0, n)
            compare("vec_slice(?, ?, ?)", v, start, end)
        unit = [rng.uniform(-1.2, 1.2) for _ in range(n)]
        compare("vec_quantize_int8(?, 'unit')", f32(unit))

        p, q = ([rng.randint(-64, 63) for _ in range(n)] for _ in range(2))
        c, d = (struct.pack(f"<{n}b", *v) for v in (p, q))
        for v in (c, f"[{','.join(map(str, p))}]"):
            for function in ("vec_length", "vec_type", "vec_to_json", "vec_int8", "vec_quantize_binary", "vec_normalize"):
                compare(f"{function}(vec_int8(?))", v)
            for function in ("vec_add", "vec_sub", "vec_distance_l1", "vec_distance_hamming"):
                compare(f"{function}(vec_int8(?), vec_int8(?))", v, d)
            compare("vec_distance_l2(vec_int8(?), vec_int8(?))", v, d, tolerance=relative(n + 4))
            if any(p) and any(q):
                compare("vec_distance_cosine(vec_int8(?), vec_int8(?))", v, d, tolerance=absolute(6 * gamma(n + 4)))
            compare("vec_slice(vec_int8(?), ?, ?)", v, start, end)
            compare("vec_type(vec_slice(vec_int8(?), ?, ?))", v, start, end)
            compare("SELECT rowid, value, typeof(value) FROM vec_each(vec_int8(?))", v)

        s, t = rng.randbytes(n), rng.randbytes(n)
        for function in ("vec_length", "vec_type", "vec_to_json", "vec_bit", "vec_quantize_binary", "vec_normalize"):
            compare(f"{function}(vec_bit(?))", s)
        for function in ("vec_distance_hamming", "vec_distance_l2", "vec_distance_l1", "vec_distance_cosine", "vec_add", "vec_sub"):
            compare(f"{function}(vec_bit(?), vec_bit(?))", s, t)
        compare("vec_slice(vec_bit(?), ?, ?)", s, 8 * rng.randint(0, n), rng.randint(0, 8 * n))

        # Any finite f32 in vec_to_json.
        anything = []
        while len(anything) < 50:
            (value,) = struct.unpack("<f", rng.randbytes(4))
            if math.isfinite(value):
                anything.append(value)
        compare("vec_to_json(?)", f32(anything))


def edges(compare):
    nan, infinite = f32([1, math.nan]), f32([math.inf, 1])
    shapes = [None, 1, 1.5, "", b"", "[]", " ", "[1, 2]", b"\0", b"\0\0\0\0", b"123", "x", "{}", "1"]
    for x in shapes:
        for function in ("vec_f32", "vec_int8", "vec_length", "vec_type", "vec_to_json", "vec_normalize", "vec_quantize_binary"):
            zero = function == "vec_normalize" and x == b"\0\0\0\0"
            compare(f"{function}(?)", x, differs="zero-normalize" if zero else None)
        compare("vec_bit(?)", x, differs="bit-json" if isinstance(x, str) else None)
        compare("vec_quantize_int8(?, 'unit')", x)
        for function in ("vec_add", "vec_sub", "vec_distance_l2", "vec_distance_l1", "vec_distance_hamming"):
            compare(f"{function}(?, '[1, 2]')", x)
            compare(f"{function}('[1, 2]', ?)", x)
    for x in (None, 5, "", b"", b"123", "[]"):
        compare("SELECT * FROM vec_each(?)", x, differs="each-message")
    compare("SELECT * FROM vec_each")
    compare("SELECT vector FROM vec_each('[1]')", differs="each-vector")
    compare("SELECT * FROM vec_each(vec_bit(x'f1'))", differs="bit-order")
    compare("vec_bit('[1,0,0,0,0,0,0,1]')", differs="bit-json")

    for x in (nan, infinite):
        for function in ("vec_f32", "vec_to_json", "vec_normalize", "vec_quantize_int8"):
            second = ", 'unit'" if function == "vec_quantize_int8" else ""
            compare(f"{function}(?{second})", x, differs="finite")
        compare("SELECT * FROM vec_each(?)", x, differs="finite")
        for function in ("vec_add", "vec_sub", "vec_distance_l2", "vec_distance_l1", "vec_distance_cosine"):
            compare(f"{function}(?, '[1, 2]')", x, differs="finite")
            compare(f"{function}('[1, 2]', ?)", x, differs="finite")
        compare("vec_slice(?, 0, 2)", x, differs="finite")
        compare("vec_length(?)", x)
        compare("vec_type(?)", x)

    for text in ("[nan]", "[inf]", "[1,2", "[1,2,", "[1,2,]", "[1 2]", "[1,2] x", "[+1]", "[01]", "[0x10]", "[.5]", "[5.]", "[1e39]", "["):
        compare("vec_f32(?)", text, differs="json")
    for text in ('["1"]', "[null]", "[true]", "[[1]]", "[1;2]", "[1_0]", "[1e400]", "[-]", "[1e]"):
        compare("vec_f32(?)", text)
    for text in ("[128]", "[-129]", "[1.5]", "[1e2]", "[null]", '["1"]'):
        compare("vec_int8(?)", text)
    for text in ("  [ 1 , 2 ] ", "[\n1\n]", "[-0.0]", "[1E2]", "[1e-50]", "[3.4028235e38]", "[16777217]", "[0.1]"):
        compare("vec_f32(?)", text)

    compare("vec_distance_cosine('[0, 0]', '[1, 2]')", differs="zero-cosine")
    compare("vec_distance_cosine(vec_int8('[0, 0]'), vec_int8('[1, 2]'))", differs="zero-cosine")
    compare("vec_normalize('[0, 0]')", differs="zero-normalize")
    compare("vec_distance_cosine('[1, 2]', '[1, 2]')", differs="self-distance")
    for a, b in (("[3e38]", "[-3e38]"), ("[1e-30, 0]", "[0, 1e-30]")):
        compare("vec_distance_l2(?, ?)", a, b, differs="range")
        compare("vec_distance_cosine(?, ?)", a, b, differs="range")
        compare("vec_normalize(?)", a, differs="range")
    compare("vec_distance_l1('[3e38]', '[-3e38]')", tolerance=relative(2))
    compare("vec_add('[3e38]', '[3e38]')", differs="overflow")
    compare("vec_sub('[3e38]', '[-3e38]')", differs="overflow")
    compare("vec_add(vec_int8('[100]'), vec_int8('[100]'))", differs="wrap")
    compare("vec_sub(vec_int8('[-100]'), vec_int8('[100]'))", differs="wrap")
    compare("vec_quantize_int8('[3, -3, 1e30, -1e30, 1, -1, 0]', 'unit')")
    compare("vec_quantize_int8('[0]', 'UNIT')")
    compare("vec_quantize_int8('[0]', 'other')")
    compare("vec_quantize_int8('[0]', NULL)")
    compare("vec_quantize_int8('[0]')")

    for start, end in ((0, 0), (1, 1), (2, 1), (-1, 1), (0, -1), (0, 4), (4, 4), (3, 3), (0, 3)):
        compare("vec_slice('[1, 2, 3]', ?, ?)", start, end)
        compare("vec_slice(vec_bit(x'0ff0'), ?, ?)", start, end)
    for start, end in ((0, 8), (8, 16), (0, 16), (8, 24), (1, 8), (0, 7), (7, 9)):
        compare("vec_slice(vec_bit(x'0ff0'), ?, ?)", start, end)
    for start, end in ((None, 2), (0, "2"), ("a", 2), (0.9, 2.9), (2**40, 2**41)):
        compare("vec_slice('[1, 2, 3]', ?, ?)", start, end, differs="slice-index")

    kinds = {"'[1, 2]'": 2, "vec_int8('[1, 2]')": 2, "vec_bit(x'01')": 8, "'[1]'": 1}
    for a in kinds:
        for b in kinds:
            for function in ("vec_add", "vec_sub", "vec_distance_l2", "vec_distance_l1", "vec_distance_hamming"):
                compare(f"{function}({a}, {b})", tolerance=relative(9))
    for inner in ("vec_f32('[1]')", "vec_int8('[1, 2, 3, 4]')", "vec_bit(x'01020304')"):
        for outer in ("vec_f32", "vec_int8", "vec_bit", "vec_type"):
            compare(f"{outer}({inner})")
    compare("vec_to_json('[-0.0, -1e-7, -1e-10, 0.0078125, -0.0078125, 1e10, 1e16, 1e17, 1e30, 3.4028235e38]')")
    compare("vec_to_json('[0.9999995, 0.99999995, 8388607.5, 4194303.75, 65535.99609375, 9999999999, 1e-45]')")
    big = f32([1.0] * 65536)
    compare("vec_length(?)", big)
    compare("vec_distance_l1(?, ?)", big, f32([-1.0] * 65536))


def main():
    library = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 20261122
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    version, theirs = connect(sqlite_vec.loadable_path())
    _, ours = connect(library)
    compare = Comparison(theirs, ours)
    edges(compare)
    random_rounds(compare, random.Random(seed), rounds)

    print(f"SQLite {version}, sqlite-vec {theirs('SELECT vec_version()', ())[0][0]}, seed {seed}, {compare.count} comparisons")
    for key, reason in DIFFERENCES.items():
        print(f"  {compare.seen[key]:4} x {key}: {reason}")
        if compare.seen[key] == 0:
            compare.failures.append(f"the difference '{key}' no longer shows: take it off the list")
    for failure in compare.failures[:50]:
        print(failure)
    print(f"{len(compare.failures)} unexpected")
    return 1 if compare.failures else 0


if __name__ == "__main__":
    sys.exit(main())
