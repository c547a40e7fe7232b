//! `vec_each(vector)`: one row for each component; its rowid is the index, its `value` REAL for float vectors and
//! INTEGER for int8 and bit vectors.
//!
//! SQLite's arguments live as long as one call of xFilter, so a scan keeps its own copy of the bytes (one memcpy), and
//! reads each component where it lies.

use std::sync::Arc;

use anyhow::Result;
use rusqlite::Connection;

use super::super::Session;
use super::super::vtab::{self, Args, Cursor, Op, Origin, Output, Plan, Table};
use super::{decode, subtype_of};
use crate::vector::{Element, Vector};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    vtab::register::<Each>(conn, c"vec_each", session)
}

/// Columns of the table.
const VALUE: usize = 0;
const VECTOR: i32 = 1;

struct Each;

impl Table for Each {
    type Cursor = Scan;

    fn connect(_: Origin<'_>) -> Result<(Self, String)> {
        Ok((Each, "CREATE TABLE x(value, vector HIDDEN)".into()))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        let mut given = plan.constraints().into_iter();
        let Some(vector) = given.find(|c| c.usable && c.op == Op::Eq && c.column == VECTOR) else {
            return Ok(false);
        };
        plan.take(vector, true);
        plan.cost(1000.0, 1000);
        Ok(true)
    }

    fn open(&self) -> Result<Scan> {
        Ok(Scan::default())
    }
}

#[derive(Default)]
struct Scan {
    vector: Option<Vector<'static>>,
    at: usize,
}

impl Cursor for Scan {
    type Table = Each;

    fn filter(&mut self, _: &Each, _: i32, _: &str, args: &Args<'_>) -> Result<()> {
        self.vector = None;
        let vector = decode(args.get(0), args.subtype(0))?;
        vector.check_finite()?;
        self.vector = Some(vector.into_owned());
        self.at = 0;
        Ok(())
    }

    fn next(&mut self, _: &Each) -> Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.vector.as_ref().is_none_or(|v| self.at >= v.dim())
    }

    fn column(&self, _: &Each, i: usize, out: &mut Output<'_>) -> Result<()> {
        let Some(vector) = &self.vector else {
            return Ok(());
        };
        if i != VALUE {
            out.blob(vector.bytes());
            out.subtype(subtype_of(vector.element()));
            return Ok(());
        }
        let value = vector.component(self.at).unwrap_or_default();
        match vector.element() {
            Element::F32 | Element::F16 => out.real(value),
            Element::Int8 | Element::Bit => out.integer(value as i64),
        }
        Ok(())
    }

    fn rowid(&self) -> i64 {
        self.at as i64
    }
}
