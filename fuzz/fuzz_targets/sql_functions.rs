//! Every function and table function that is registered, with arguments of every type: an answer or an error, never a
//! panic. Those that read or write files are left out: the arguments are arbitrary.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

#[derive(Debug, Arbitrary)]
struct Case {
    function: u16,
    arguments: Vec<Argument>,
    /// Feeds the result to another function.
    inside: Option<u16>,
}

#[derive(Debug, Arbitrary)]
enum Argument {
    Null,
    Integer(i64),
    Small(i8),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// A name or value that means something.
    Known(u8),
    /// A float vector of so many components.
    Vector(u8),
    Json(Vec<f32>),
}

const KNOWN: [&str; 16] = [
    "t",
    "v",
    "ix",
    "words",
    "word",
    "body",
    "cosine",
    "l2",
    "[1,2]",
    "[[1,2],[3,4]]",
    "{}",
    "{\"k\":2}",
    "a",
    "[\"a\",\"b\"]",
    "a b c",
    "words_model",
];

const FILES: [&str; 9] = [
    "model_export",
    "model_import",
    "vectors_write",
    "vectors_read",
    "text_lines",
    "annoy_sweep",
    "annoy_read",
    "annoy_import",
    "annoy_export",
];

impl From<&Argument> for Value {
    fn from(argument: &Argument) -> Value {
        match argument {
            Argument::Null => Value::Null,
            Argument::Integer(n) => Value::Integer(*n),
            Argument::Small(n) => Value::Integer((*n).into()),
            Argument::Real(x) => Value::Real(*x),
            Argument::Text(text) => Value::Text(text.clone()),
            Argument::Blob(blob) => Value::Blob(blob.clone()),
            Argument::Known(i) => Value::Text(KNOWN[usize::from(*i) % KNOWN.len()].to_owned()),
            Argument::Vector(n) => Value::Blob(
                (0..*n)
                    .flat_map(|i| (f32::from(i) - 3.5).to_le_bytes())
                    .collect(),
            ),
            Argument::Json(v) => Value::Text(format!("{v:?}")),
        }
    }
}

struct World {
    conn: Connection,
    /// (name, number of arguments, whether it gives rows).
    functions: Vec<(String, usize, bool)>,
}

fn world() -> World {
    let names = |conn: &Connection| {
        let mut all: Vec<(String, i64, bool)> = Vec::new();
        for (sql, rows) in [
            (
                "SELECT DISTINCT name, narg FROM pragma_function_list ORDER BY 1, 2",
                false,
            ),
            ("SELECT name, 5 FROM pragma_module_list ORDER BY 1", true),
        ] {
            let mut statement = conn.prepare(sql).unwrap();
            let some = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, rows)))
                .unwrap();
            all.extend(some.map(Result::unwrap));
        }
        all
    };
    // Ours are those that another connection, opened before, lacks.
    let functions = include_str!("../../sql/names.expected");
    let ours: Vec<&str> = functions
        .lines()
        .filter(|line| !line.starts_with("--"))
        .map(|line| line.split(['(', ' ']).next().unwrap())
        .collect();
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, body TEXT);
         INSERT INTO t VALUES(1, vec_f32('[1,2]'), 'a b c a b c a b'), (2, vec_f32('[0,1]'), 'c b a'),
             (3, vec_f32('[3,1]'), NULL);
         CREATE VIRTUAL TABLE ix USING annoy(t, v);
         SELECT word2vec_train('words', 't', 'body', '{\"vector_size\":2,\"min_count\":1,\"epochs\":1}');",
    )
    .unwrap();
    let functions = names(&conn)
        .into_iter()
        .filter(|(name, ..)| {
            ours.contains(&name.as_str()) && !FILES.contains(&name.as_str()) && name != "annoy"
        })
        .map(|(name, n, rows)| (name, usize::try_from(n).unwrap_or(3), rows))
        .collect();
    World { conn, functions }
}

thread_local! {
    static WORLD: World = world();
}

fuzz_target!(|case: Case| WORLD.with(|world| {
    let (name, n, rows) = &world.functions[usize::from(case.function) % world.functions.len()];
    let n = if *rows {
        case.arguments.len().min(*n)
    } else {
        *n
    };
    let arguments: Vec<Value> = (0..n)
        .map(|i| case.arguments.get(i).map_or(Value::Null, Value::from))
        .collect();
    let marks = (1..=n)
        .map(|i| format!("?{i}"))
        .collect::<Vec<_>>()
        .join(", ");
    let outer = case
        .inside
        .map(|i| &world.functions[usize::from(i) % world.functions.len()]);
    let sql = match outer {
        _ if *rows => format!("SELECT * FROM {name}({marks}) LIMIT 20"),
        Some((outer, 1, false)) => format!("SELECT {outer}({name}({marks}))"),
        Some((outer, 2, false)) => format!("SELECT {outer}({name}({marks}), {name}({marks}))"),
        _ => format!("SELECT {name}({marks})"),
    };
    world.conn.execute_batch("SAVEPOINT s").unwrap();
    if let Ok(mut statement) = world.conn.prepare(&sql) {
        // More parameters than the statement has can't be.
        let arguments = &arguments[..arguments.len().min(statement.parameter_count())];
        if let Ok(mut rows) = statement.query(params_from_iter(arguments)) {
            while let Ok(Some(_)) = rows.next() {}
        }
    }
    world
        .conn
        .execute_batch("ROLLBACK TO s; RELEASE s")
        .unwrap();
}));
