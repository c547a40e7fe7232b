//! The `vec_*` functions in SQL, golden: what each returns, and what each refuses with which words.
#![cfg(feature = "sql")]

mod common;

use common::{error, memory, one, rows};
use rusqlite::types::Value;

/// Every line: an expression, and its value as `quote()` prints it.
#[track_caller]
fn golden(lines: &[(&str, &str)]) {
    let conn = memory();
    let got = lines
        .iter()
        .map(|(expression, _)| one(&conn, &format!("SELECT quote({expression})")));
    compare(lines, got.collect());
}

/// Every line: an expression, and the message of the error it ends with.
#[track_caller]
fn refused(lines: &[(&str, &str)]) {
    let conn = memory();
    let got = lines
        .iter()
        .map(|(expression, _)| error(&conn, &format!("SELECT {expression};")));
    compare(lines, got.collect());
}

#[track_caller]
fn compare(lines: &[(&str, &str)], got: Vec<String>) {
    let different: Vec<String> = lines
        .iter()
        .zip(got)
        .filter(|((_, want), got)| want != got)
        .map(|((expression, want), got)| format!("{expression}\n  want {want}\n  got  {got}"))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn constructors_make_tagged_blobs_from_json_and_blobs() {
    golden(&[
        ("vec_f32('[1, 2.5, -3e-2]')", "X'0000803F000020408FC2F5BC'"),
        ("vec_f32(x'0000803f')", "X'0000803F'"),
        ("vec_f32(' [ 1 ] ')", "X'0000803F'"),
        ("vec_f16('[1, -2, 65504]')", "X'003C00C0FF7B'"),
        ("vec_f16(x'003c')", "X'003C'"),
        ("vec_f16(vec_f32('[1, 0.1]'))", "X'003C662E'"),
        ("vec_f32(vec_f16('[1, 0.5]'))", "X'0000803F0000003F'"),
        ("vec_int8('[1, -128, 127]')", "X'01807F'"),
        ("vec_int8(x'80ff')", "X'80FF'"),
        ("vec_bit(x'f00f')", "X'F00F'"),
        ("vec_bit('[1,0,0,0,0,0,0,1]')", "X'81'"),
        ("vec_type(vec_f32('[1]'))", "'float32'"),
        ("vec_type('[1]')", "'float32'"),
        ("vec_type(x'00000000')", "'float32'"),
        ("vec_type(vec_f16('[1]'))", "'float16'"),
        ("vec_type(vec_int8('[1]'))", "'int8'"),
        ("vec_type(vec_bit(x'00'))", "'bit'"),
        ("vec_length('[1, 2, 3]')", "3"),
        ("vec_length(vec_f16(x'003c003c'))", "2"),
        ("vec_length(vec_int8(x'010203'))", "3"),
        ("vec_length(vec_bit(x'ff00'))", "16"),
    ]);
}

#[test]
fn json_is_printed_as_sqlite_vec_prints_it() {
    golden(&[
        (
            "vec_to_json('[1, 2.5, 1e-10]')",
            "'[1.000000,2.500000,0.000000]'",
        ),
        ("vec_to_json('[-0.0, -1e-7]')", "'[0.000000,-0.000000]'"),
        (
            "vec_to_json('[0.0078125, -0.0078125]')",
            "'[0.007813,-0.007813]'",
        ),
        (
            "vec_to_json('[1e10, 16777217, 1e30]')",
            "'[10000000000.000000,16777216.000000,1000000015047466000000000000000.000000]'",
        ),
        ("vec_to_json(vec_f16('[0.1]'))", "'[0.099976]'"),
        ("vec_to_json(vec_int8('[1, -2]'))", "'[1,-2]'"),
        ("vec_to_json(vec_bit(x'f1'))", "'[1,0,0,0,1,1,1,1]'"),
        ("vec_bit(vec_to_json(vec_bit(x'f1')))", "X'F1'"),
    ]);
}

#[test]
fn arithmetic_keeps_the_element_type() {
    golden(&[
        (
            "vec_to_json(vec_add('[1, 2]', '[3, 4]'))",
            "'[4.000000,6.000000]'",
        ),
        (
            "vec_to_json(vec_sub('[1, 2]', '[3, 5]'))",
            "'[-2.000000,-3.000000]'",
        ),
        (
            "vec_to_json(vec_add(vec_int8('[1, 2]'), vec_int8('[3, -4]')))",
            "'[4,-2]'",
        ),
        (
            "vec_type(vec_sub(vec_f16('[1]'), vec_f16('[1]')))",
            "'float16'",
        ),
        (
            "vec_to_json(vec_scale('[1, -2]', 0.5))",
            "'[0.500000,-1.000000]'",
        ),
        (
            "vec_to_json(vec_scale(vec_f16('[1, -2]'), 3))",
            "'[3.000000,-6.000000]'",
        ),
        (
            "vec_to_json(vec_normalize('[3, 4]'))",
            "'[0.600000,0.800000]'",
        ),
        (
            "vec_to_json(vec_normalize('[1e30, 1e30]'))",
            "'[0.707107,0.707107]'",
        ),
        (
            "vec_to_json(vec_normalize('[1e-40, 0]'))",
            "'[1.000000,0.000000]'",
        ),
        (
            "vec_to_json(vec_normalize('[0, 0]'))",
            "'[0.000000,0.000000]'",
        ),
        (
            "vec_to_json(vec_slice('[1, 2, 3]', 1, 3))",
            "'[2.000000,3.000000]'",
        ),
        (
            "vec_to_json(vec_slice(vec_int8('[1, 2, 3]'), 0, 1))",
            "'[1]'",
        ),
        ("vec_slice(vec_bit(x'0ff0'), 8, 16)", "X'F0'"),
        (
            "vec_to_json(vec_quantize_int8('[0, 0.5, -0.5, 1, -1, 2]', 'unit'))",
            "'[0,63,-64,126,-128,127]'",
        ),
        ("vec_quantize_binary('[1, -1, 0, 1, -1, 1, 1, 1]')", "X'E9'"),
        (
            "vec_type(vec_quantize_binary(vec_int8('[1,1,1,1,1,1,1,1]')))",
            "'bit'",
        ),
    ]);
}

#[test]
fn distances_of_every_element_type() {
    golden(&[
        ("vec_distance_l2('[1, 2]', '[4, 6]')", "5.0"),
        (
            "vec_distance_l2(vec_f16('[1, 2]'), vec_f16('[4, 6]'))",
            "5.0",
        ),
        (
            "vec_distance_l2(vec_int8('[1, 2]'), vec_int8('[4, 6]'))",
            "5.0",
        ),
        ("vec_distance_l1('[1, 2]', '[4, 6]')", "7.0"),
        (
            "vec_distance_l1(vec_int8('[1, 2]'), vec_int8('[4, 6]'))",
            "7",
        ),
        ("vec_distance_cosine('[1, 2]', '[1, 2]')", "0.0"),
        ("vec_distance_cosine('[1, 2]', '[-1, -2]')", "2.0"),
        ("vec_distance_cosine('[1, 0]', '[0, 1]')", "1.0"),
        ("vec_distance_cosine('[0, 0]', '[0, 1]')", "1.0"),
        (
            "round(vec_distance_cosine(vec_int8('[3, 4]'), vec_int8('[4, 3]')), 6)",
            "0.04",
        ),
        (
            "vec_distance_hamming(vec_bit(x'f0'), vec_bit(x'0f'))",
            "8.0",
        ),
        ("vec_dot('[1, 2]', '[3, 4]')", "11.0"),
        ("vec_dot('[1, 0]', '[0, 1]')", "0.0"),
        ("vec_dot(vec_int8('[1, 2]'), vec_int8('[3, -4]'))", "-5"),
        ("vec_norm('[3, 4]')", "5.0"),
        ("vec_norm(vec_int8('[3, 4]'))", "5.0"),
    ]);
}

#[test]
fn huge_and_tiny_components_have_their_true_distance() {
    let conn = memory();
    for (sql, want) in [
        ("SELECT vec_distance_l2('[3e38]', '[-3e38]')", 6e38),
        ("SELECT vec_distance_l2('[3e-30, 0]', '[0, 4e-30]')", 5e-30),
        (
            "SELECT vec_distance_l1('[3e38, 3e38]', '[-3e38, -3e38]')",
            1.2e39,
        ),
        (
            "SELECT vec_distance_cosine('[3e38, 3e38]', '[3e38, 3e38]') + 1",
            1.0,
        ),
        (
            "SELECT vec_distance_cosine('[1e-40, 0]', '[1e-40, 1e-40]') + 1",
            2.0 - 0.5f64.sqrt(),
        ),
        ("SELECT vec_dot('[1e30]', '[1e30]')", 1e60),
        ("SELECT vec_dot('[1e-30]', '[1e-30]')", 1e-60),
        ("SELECT vec_norm('[3e38, 3e38]')", 18f64.sqrt() * 1e38),
    ] {
        let got: f64 = one(&conn, sql);
        assert!(
            (got / want - 1.0).abs() < 1e-6,
            "{sql}: {got} instead of {want}"
        );
    }
}

#[test]
fn what_is_no_vector_is_refused_with_a_reason() {
    let none = "Input must have type BLOB (compact format) or TEXT (JSON), found NULL";
    refused(&[
        ("vec_f32(NULL)", none),
        (
            "vec_f32(1)",
            "Input must have type BLOB (compact format) or TEXT (JSON), found INTEGER",
        ),
        (
            "vec_f32(1.5)",
            "Input must have type BLOB (compact format) or TEXT (JSON), found FLOAT",
        ),
        ("vec_f16(NULL)", none),
        ("vec_int8(NULL)", "Unknown type for int8 vector."),
        ("vec_bit(1)", "Unknown type for bitvector."),
        ("vec_length(NULL)", none),
        ("vec_norm(NULL)", none),
        (
            "vec_distance_l2(NULL, '[1]')",
            "Error reading 1st vector: Input must have type BLOB (compact format) or TEXT (JSON), found NULL",
        ),
        (
            "vec_dot('[1]', 7)",
            "Error reading 2nd vector: Input must have type BLOB (compact format) or TEXT (JSON), found INTEGER",
        ),
        ("vec_f32('')", "zero-length vectors are not supported."),
        ("vec_f32(x'')", "zero-length vectors are not supported."),
        ("vec_f32('[]')", "zero-length vectors are not supported."),
        (
            "vec_f32(x'010203')",
            "invalid float32 vector BLOB length. Must be divisible by 4, found 3",
        ),
        (
            "vec_f16(x'010203')",
            "invalid float16 vector BLOB length. Must be divisible by 2, found 3",
        ),
        (
            "vec_length(zeroblob(4 * 65537))",
            "a vector has at most 65536 components, found 65537",
        ),
        (
            "vec_f32('[' || (WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 65537) SELECT group_concat(i) FROM n) || ']')",
            "JSON parsing error: a vector has at most 65536 components at line 1 column 382113",
        ),
        (
            "vec_f32(x'0000803f0000c07f')",
            "component 1 of the vector is NaN: expected a finite number",
        ),
        (
            "vec_f32(x'000080ff')",
            "component 0 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_f16(x'003c007c')",
            "component 1 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_f16(vec_f32('[1, 70000]'))",
            "component 1 of the vector is 70000: out of range for float16",
        ),
        (
            "vec_distance_l2(x'0000c07f', '[1]')",
            "component 0 of the vector is NaN: expected a finite number",
        ),
        (
            "vec_distance_cosine('[1, 2]', x'0000803f0000807f')",
            "component 1 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_distance_l1(vec_f16(x'003c'), vec_f16(x'007e'))",
            "component 0 of the vector is NaN: expected a finite number",
        ),
        (
            "vec_norm(x'0000807f')",
            "component 0 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_normalize(x'0000807f')",
            "component 0 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_to_json(x'0000c07f')",
            "component 0 of the vector is NaN: expected a finite number",
        ),
    ]);
}

#[test]
fn bad_json_is_refused_with_its_position() {
    refused(&[
        (
            "vec_f32('{}')",
            "JSON array parsing error: Input does not start with '['",
        ),
        (
            "vec_f32('1')",
            "JSON array parsing error: Input does not start with '['",
        ),
        (
            "vec_f32('[1, 2')",
            "JSON parsing error: EOF while parsing a list at line 1 column 5",
        ),
        (
            "vec_f32('[1 2]')",
            "JSON parsing error: expected `,` or `]` at line 1 column 4",
        ),
        (
            "vec_f32('[1,]')",
            "JSON parsing error: trailing comma at line 1 column 4",
        ),
        (
            "vec_f32('[1] x')",
            "JSON parsing error: trailing characters at line 1 column 5",
        ),
        (
            "vec_f32('[01]')",
            "JSON parsing error: invalid number at line 1 column 3",
        ),
        (
            "vec_f32('[+1]')",
            "JSON parsing error: expected value at line 1 column 2",
        ),
        (
            "vec_f32('[.5]')",
            "JSON parsing error: expected value at line 1 column 2",
        ),
        (
            "vec_f32('[5.]')",
            "JSON parsing error: invalid number at line 1 column 4",
        ),
        (
            "vec_f32('[1,' || char(10) || 'nan]')",
            "JSON parsing error: expected ident at line 2 column 2",
        ),
        (
            "vec_f32('[\"1\"]')",
            "JSON parsing error: invalid type: string \"1\", expected a number at line 1 column 4",
        ),
        (
            "vec_f32('[null]')",
            "JSON parsing error: invalid type: null, expected a number at line 1 column 5",
        ),
        (
            "vec_f32('[[1]]')",
            "JSON parsing error: invalid type: sequence, expected a number at line 1 column 1",
        ),
        (
            "vec_f32('[1e400]')",
            "JSON parsing error: number out of range at line 1 column 6",
        ),
        (
            "vec_f32('[1, 1e39]')",
            "JSON parsing error: value out of range for float32 at line 1 column 9",
        ),
        (
            "vec_f16('[65520]')",
            "JSON parsing error: value out of range for float16 at line 1 column 7",
        ),
        (
            "vec_int8('[1, 128]')",
            "JSON parsing error: value out of range for int8 at line 1 column 8",
        ),
        (
            "vec_int8('[1.5]')",
            "JSON parsing error: invalid type: floating point `1.5`, expected a whole number at line 1 column 4",
        ),
        (
            "vec_bit('[1,0,1]')",
            "a bit vector has a number of components divisible by 8, found 3",
        ),
        (
            "vec_bit('[2]')",
            "JSON parsing error: value out of range for bit at line 1 column 3",
        ),
        (
            "vec_distance_l2('[1', '[1]')",
            "Error reading 1st vector: JSON parsing error: EOF while parsing a list at line 1 column 2",
        ),
    ]);
}

#[test]
fn vectors_that_do_not_go_together_are_refused() {
    refused(&[
        (
            "vec_add('[1, 2]', '[1]')",
            "Vector dimension mistmatch. First vector has 2 dimensions, while the second has 1 dimensions.",
        ),
        (
            "vec_dot('[1]', vec_f16('[1]'))",
            "Vector type mistmatch. First vector has type float32, while the second has type float16.",
        ),
        (
            "vec_distance_l2(vec_bit(x'00'), vec_bit(x'00'))",
            "Cannot calculate L2 distance between two bitvectors.",
        ),
        (
            "vec_distance_cosine(vec_bit(x'00'), vec_bit(x'00'))",
            "Cannot calculate cosine distance between two bitvectors.",
        ),
        (
            "vec_distance_hamming('[1]', '[1]')",
            "Cannot calculate hamming distance between two float32 vectors.",
        ),
        (
            "vec_distance_hamming(vec_f16('[1]'), vec_f16('[1]'))",
            "Cannot calculate hamming distance between two float16 vectors.",
        ),
        (
            "vec_dot(vec_bit(x'00'), vec_bit(x'00'))",
            "Cannot calculate inner product between two bitvectors.",
        ),
        (
            "vec_norm(vec_bit(x'00'))",
            "Cannot calculate the norm of a bitvector.",
        ),
        (
            "vec_add(vec_bit(x'00'), vec_bit(x'00'))",
            "Cannot add two bitvectors together.",
        ),
        (
            "vec_sub(vec_bit(x'00'), vec_bit(x'00'))",
            "Cannot subtract two bitvectors together.",
        ),
        (
            "vec_add('[3e38]', '[3e38]')",
            "component 0 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_add(vec_int8('[1, 100]'), vec_int8('[1, 100]'))",
            "component 1 of the result is out of range for int8",
        ),
        (
            "vec_scale('[1]', 'x')",
            "the factor must be a number, found TEXT",
        ),
        (
            "vec_scale('[1]', 9e999)",
            "the factor must be a finite number",
        ),
        (
            "vec_scale('[1, 1e30]', 1e30)",
            "component 1 of the vector is infinite: expected a finite number",
        ),
        (
            "vec_scale(vec_int8('[1]'), 2)",
            "only float32 and float16 vectors are supported when scaling",
        ),
        (
            "vec_normalize(vec_int8('[1]'))",
            "only float32 vectors are supported when normalizing",
        ),
        (
            "vec_slice('[1, 2]', 0, 3)",
            "slice 'end' index is greater than the number of dimensions",
        ),
        (
            "vec_slice('[1, 2]', -1, 1)",
            "slice 'start' index must be a postive number.",
        ),
        (
            "vec_slice('[1, 2]', 2, 1)",
            "slice 'start' index is greater than 'end' index",
        ),
        (
            "vec_slice('[1, 2]', 1, 1)",
            "slice 'start' index is equal to the 'end' index, vectors must have non-zero length",
        ),
        (
            "vec_slice('[1, 2]', NULL, 1)",
            "slice 'start' index must be an INTEGER, found NULL",
        ),
        (
            "vec_slice(vec_bit(x'00'), 1, 8)",
            "start index must be divisible by 8.",
        ),
        (
            "vec_quantize_int8('[1]', 'other')",
            "2nd argument to vec_quantize_int8() must be 'unit'.",
        ),
        (
            "vec_quantize_int8(vec_f16('[1]'), 'unit') || vec_quantize_int8(vec_bit(x'00'), 'unit')",
            "Can only quantize float vectors to int8, found bit",
        ),
        (
            "vec_quantize_binary('[1]')",
            "Binary quantization requires vectors with a length divisible by 8",
        ),
        (
            "vec_quantize_binary(vec_bit(x'00'))",
            "Can only binary quantize float or int8 vectors",
        ),
    ]);
}

#[test]
fn sums_and_means_skip_null_and_are_null_without_rows() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE t(g, v);
         INSERT INTO t VALUES (1, vec_f32('[1, 2]')), (1, NULL), (1, '[3, 5]'), (2, vec_f32('[7, 8]')), (3, NULL);",
    )
    .unwrap();
    let got = rows(
        &conn,
        "SELECT g, vec_to_json(vec_sum(v)), vec_to_json(vec_avg(v)) FROM t WHERE g < 3 GROUP BY g",
    );
    let text = |s: &str| Value::Text(s.into());
    assert_eq!(
        got,
        [
            [
                Value::Integer(1),
                text("[4.000000,7.000000]"),
                text("[2.000000,3.500000]")
            ],
            [
                Value::Integer(2),
                text("[7.000000,8.000000]"),
                text("[7.000000,8.000000]")
            ],
        ]
    );
    let none: Option<Vec<u8>> = one(&conn, "SELECT vec_sum(v) FROM t WHERE g = 3");
    assert_eq!(none, None);
    let none: Option<Vec<u8>> = one(&conn, "SELECT vec_avg(v) FROM t WHERE g = 4");
    assert_eq!(none, None);
    golden(&[
        (
            "(SELECT vec_to_json(vec_sum(vec_int8(value))) FROM (SELECT '[100, -100]' AS value UNION ALL SELECT '[100, 1]'))",
            "'[200.000000,-99.000000]'",
        ),
        (
            "(SELECT vec_type(vec_avg(vec_f16(value))) FROM (SELECT '[1]' AS value))",
            "'float32'",
        ),
    ]);
    refused(&[
        (
            "vec_sum(v) FROM (SELECT '[1, 2]' AS v UNION ALL SELECT '[1]')",
            "expected a vector with 2 dimensions, as in the rows before, found 1",
        ),
        (
            "vec_sum(vec_bit(x'00'))",
            "Cannot add two bitvectors together.",
        ),
        (
            "vec_avg(x'0000c07f')",
            "component 0 of the vector is NaN: expected a finite number",
        ),
        (
            "vec_sum(v) FROM (SELECT '[3e38]' AS v UNION ALL SELECT '[3e38]')",
            "the sum is no vector: component 0 of the vector is infinite: expected a finite number",
        ),
    ]);
}

#[test]
fn vec_each_gives_a_row_for_each_component() {
    let conn = memory();
    let number = |i: i64| Value::Integer(i);
    assert_eq!(
        rows(&conn, "SELECT rowid, value FROM vec_each('[1, 2.5]')"),
        [[number(0), Value::Real(1.0)], [number(1), Value::Real(2.5)]]
    );
    assert_eq!(
        rows(
            &conn,
            "SELECT rowid, value FROM vec_each(vec_int8('[7, -8]'))"
        ),
        [[number(0), number(7)], [number(1), number(-8)]]
    );
    let bits: String = one(
        &conn,
        "SELECT group_concat(value) FROM vec_each(vec_bit(x'f1'))",
    );
    assert_eq!(bits, "1,0,0,0,1,1,1,1");
    // A join scans once for each row of the outer table.
    let sum: f64 = one(
        &conn,
        "WITH t(v) AS (VALUES ('[1, 2]'), ('[3]'), ('[4, 5, 6]')) SELECT sum(value) FROM t, vec_each(t.v)",
    );
    assert_eq!(sum, 21.0);
    let vector: Vec<u8> = one(&conn, "SELECT vector FROM vec_each('[1]')");
    assert_eq!(vector, 1f32.to_le_bytes());
    assert_eq!(
        error(&conn, "SELECT * FROM vec_each(NULL);"),
        "Input must have type BLOB (compact format) or TEXT (JSON), found NULL"
    );
    assert_eq!(
        error(&conn, "SELECT * FROM vec_each(x'0000c07f');"),
        "component 0 of the vector is NaN: expected a finite number"
    );
    assert_eq!(error(&conn, "SELECT * FROM vec_each;"), "no query solution");
}

#[test]
fn vec_from_each_is_the_inverse_of_vec_each() {
    golden(&[
        (
            "(SELECT vec_from_each(rowid, value) FROM vec_each('[1, 2.5, -3]')) = vec_f32('[1, 2.5, -3]')",
            "1",
        ),
        (
            "(SELECT vec_from_each(rowid, value) FROM (SELECT rowid, value FROM vec_each('[1, 2]') ORDER BY rowid DESC)) = vec_f32('[1, 2]')",
            "1",
        ),
        (
            "(SELECT vec_from_each(value) FROM vec_each('[1, 2.5]')) = vec_f32('[1, 2.5]')",
            "1",
        ),
        (
            "(SELECT vec_from_each(rowid, value, 'float16') FROM vec_each(vec_f16('[1, 0.1]'))) = vec_f16('[1, 0.1]')",
            "1",
        ),
        (
            "(SELECT vec_from_each(rowid, value, 'int8') FROM vec_each(vec_int8('[1, -128]')))",
            "X'0180'",
        ),
        (
            "(SELECT vec_from_each(rowid, value, 'bit') FROM vec_each(vec_bit(x'f10e')))",
            "X'F10E'",
        ),
        (
            "(SELECT vec_type(vec_from_each(rowid, value, 'bit')) FROM vec_each(vec_bit(x'f1')))",
            "'bit'",
        ),
        (
            "(SELECT vec_from_each(value) FROM vec_each('[1]') WHERE value > 1)",
            "NULL",
        ),
    ]);
    refused(&[
        (
            "vec_from_each(value) FROM (SELECT NULL AS value)",
            "component 0 must be a number, found NULL",
        ),
        (
            "vec_from_each(rowid + 1, value) FROM vec_each('[1]')",
            "component 0 is missing",
        ),
        (
            "vec_from_each(0, value) FROM vec_each('[1, 2]')",
            "component 0 is given twice",
        ),
        (
            "vec_from_each(-1, 1)",
            "the index of a component must be from 0 to 65535",
        ),
        (
            "vec_from_each(65536, 1)",
            "the index of a component must be from 0 to 65535",
        ),
        (
            "vec_from_each('0', 1)",
            "the index of a component must be an INTEGER, found TEXT",
        ),
        (
            "vec_from_each(0, 1, 'f32')",
            "unknown vector type 'f32': expected one of float32, float16, int8, bit",
        ),
        (
            "vec_from_each(0, 1.5, 'int8')",
            "component 0: value out of range for int8",
        ),
        (
            "vec_from_each(0, 1e39)",
            "component 0: value out of range for float32",
        ),
        (
            "vec_from_each(0, 9e999)",
            "component 0: value out of range for float32",
        ),
    ]);
}

#[test]
fn a_column_of_vectors_needs_nothing_but_a_table() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, v BLOB CHECK(typeof(v) = 'blob' AND length(v) = 8),
                           norm GENERATED ALWAYS AS (vec_norm(v)));
         CREATE INDEX by_length ON docs(vec_length(v));
         INSERT INTO docs(v) VALUES (vec_f32('[3, 4]')), (vec_f32('[0, 1]')), (vec_f32('[1, 0]'));",
    )
    .unwrap();
    let nearest: i64 = one(
        &conn,
        "SELECT id FROM docs ORDER BY vec_distance_cosine(v, '[1, 0.1]') LIMIT 1",
    );
    assert_eq!(nearest, 3);
    let norm: f64 = one(&conn, "SELECT norm FROM docs WHERE id = 1");
    assert_eq!(norm, 5.0);
    // A stored vector has lost its tag, and gets it back where it is used.
    conn.execute_batch(
        "CREATE TABLE codes AS SELECT vec_quantize_int8(vec_normalize(v), 'unit') AS c FROM docs;",
    )
    .unwrap();
    assert_eq!(
        one::<String>(&conn, "SELECT vec_type(vec_int8(c)) FROM codes"),
        "int8"
    );
    assert_eq!(
        one::<i64>(&conn, "SELECT vec_dot(vec_int8(c), vec_int8(c)) FROM codes"),
        75 * 75 + 101 * 101
    );
}

#[test]
fn a_text_argument_that_changes_from_row_to_row_is_parsed_anew() {
    let conn = memory();
    let sums: String = one(
        &conn,
        "WITH t(a) AS (VALUES ('[1]'), ('[2]'), ('[2]'), ('[3]')) SELECT group_concat(vec_dot(a, '[2]'), ' ') FROM t",
    );
    assert_eq!(sums, "2.0 4.0 4.0 6.0");
}
