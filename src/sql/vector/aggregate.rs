//! Aggregates: `vec_sum(v)` and `vec_avg(v)`, also as window functions, `vec_pack(v)`, and `vec_from_each`, the inverse of the table function `vec_each`.
//!
//! `vec_pack` puts vectors of one type and length one after the other, in the order of the rows, for the functions that take
//! many queries at once. There a NULL is an error: skipped, it would shift the numbers of the queries behind it.
//!
//! Sums are kept for each component as two f64, the second what the first has lost to rounding (Knuth's two-sum), and
//! rounded to float32 once, at the end: the result is a float32 vector, whatever the element type of the rows, and a row
//! that leaves a window leaves nothing behind. NULL rows are skipped, no rows give NULL.

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, WindowAggregate};
use rusqlite::types::{Null, ToSqlOutput, Value, ValueRef};

use super::{Output, PURE, READS, RETURNS, decode, function_error, output, type_name};
use crate::sql::values::whole;
use crate::vector::{Element, MAX_DIM, Vector};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    conn.create_window_function("vec_sum", 1, RETURNS, Sum { mean: false })?;
    conn.create_window_function("vec_avg", 1, RETURNS, Sum { mean: true })?;
    conn.create_aggregate_function("vec_pack", 1, PURE | READS, Pack)?;
    for arguments in 1..=3 {
        conn.create_aggregate_function("vec_from_each", arguments, RETURNS, FromEach)?;
    }
    Ok(())
}

/// The result of an aggregate.
fn result(vector: Option<Vector<'_>>) -> Output {
    match vector {
        Some(vector) => output(&vector),
        None => (ToSqlOutput::from(Null), None),
    }
}

/// See the module page.
struct Pack;

/// The vectors so far, and the bytes of each.
#[derive(Default)]
struct Packed {
    element: Option<Element>,
    each: usize,
    bytes: Vec<u8>,
}

impl Packed {
    fn add(&mut self, value: ValueRef<'_>, subtype: u32) -> Result<()> {
        let number = self.bytes.len().checked_div(self.each).unwrap_or(0);
        ensure!(
            value != ValueRef::Null,
            "vec_pack: vector {number} is NULL; leave such rows out with WHERE"
        );
        let vector = decode(value, subtype)?;
        vector.check_finite()?;
        let element = *self.element.get_or_insert(vector.element());
        ensure!(
            vector.element() == element,
            "vec_pack: expected vectors of type {}, as in the rows before, found {}",
            element.name(),
            vector.element().name()
        );
        let bytes = vector.bytes();
        if self.each == 0 {
            self.each = bytes.len();
        }
        ensure!(
            bytes.len() == self.each,
            "vec_pack: expected a vector with {} dimensions, as in the rows before, found {}",
            self.each * vector.dim() / bytes.len(),
            vector.dim()
        );
        // What SQLite takes as one value.
        ensure!(
            self.bytes.len() + bytes.len() <= 1_000_000_000,
            "vec_pack: more than 1,000,000,000 bytes of vectors; pack fewer rows at a time"
        );
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Aggregate<Packed, ToSqlOutput<'static>> for Pack {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Packed> {
        Ok(Packed::default())
    }

    fn step(&self, ctx: &mut Context<'_>, packed: &mut Packed) -> rusqlite::Result<()> {
        packed
            .add(ctx.get_raw(0), ctx.get_subtype(0))
            .map_err(function_error)
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        packed: Option<Packed>,
    ) -> rusqlite::Result<ToSqlOutput<'static>> {
        Ok(match packed {
            Some(packed) if packed.each > 0 => ToSqlOutput::Owned(Value::Blob(packed.bytes)),
            _ => ToSqlOutput::from(Null),
        })
    }
}

struct Sum {
    mean: bool,
}

/// Rows in the window, and the sum of each component.
#[derive(Default)]
struct Sums {
    element: Option<Element>,
    rows: u64,
    sums: Vec<[f64; 2]>,
}

impl Sums {
    /// A value that enters the window; one that leaves it has a `sign` of -1.
    fn take(&mut self, value: ValueRef<'_>, subtype: u32, sign: f64) -> Result<()> {
        if value == ValueRef::Null {
            return Ok(());
        }
        // Not `argument`, which keeps a parsed text: for aggregates SQLite does not say when the text changes.
        let vector = decode(value, subtype)?;
        if sign > 0.0 {
            self.check(&vector)?;
            self.rows += 1;
        } else {
            self.rows = self.rows.saturating_sub(1);
        }
        match &vector {
            Vector::F32(v) => add(&mut self.sums, v, sign),
            Vector::F16(v) => add(&mut self.sums, v, sign),
            Vector::Int8(v) => add(&mut self.sums, v, sign),
            Vector::Bit(_) => {}
        }
        if self.rows == 0 {
            // The next window may have another dimension.
            *self = Sums::default();
        }
        Ok(())
    }

    fn check(&mut self, vector: &Vector<'_>) -> Result<()> {
        vector.check_finite()?;
        ensure!(
            vector.element() != Element::Bit,
            "Cannot add two bitvectors together."
        );
        let element = *self.element.get_or_insert(vector.element());
        ensure!(
            vector.element() == element,
            "expected a vector of type {}, as in the rows before, found {}",
            element.name(),
            vector.element().name()
        );
        if self.rows == 0 {
            self.sums.resize(vector.dim(), [0.0; 2]);
        }
        ensure!(
            vector.dim() == self.sums.len(),
            "expected a vector with {} dimensions, as in the rows before, found {}",
            self.sums.len(),
            vector.dim()
        );
        Ok(())
    }

    fn result(&self, mean: bool) -> rusqlite::Result<Output> {
        if self.rows == 0 {
            return Ok(result(None));
        }
        let divisor = if mean { self.rows as f64 } else { 1.0 };
        let components = self
            .sums
            .iter()
            .map(|[sum, lost]| ((sum + lost) / divisor) as f32);
        let vector = Vector::F32(components.collect());
        vector
            .check_finite()
            .context("the sum is no vector")
            .map_err(function_error)?;
        Ok(result(Some(vector)))
    }
}

fn add<T: Copy + Into<f64>>(sums: &mut [[f64; 2]], components: &[T], sign: f64) {
    for ([sum, lost], &x) in sums.iter_mut().zip(components) {
        let x = sign * x.into();
        let new = *sum + x;
        let added = new - *sum;
        *lost += (*sum - (new - added)) + (x - added);
        *sum = new;
    }
}

impl Aggregate<Sums, Output> for Sum {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Sums> {
        Ok(Sums::default())
    }

    fn step(&self, ctx: &mut Context<'_>, sums: &mut Sums) -> rusqlite::Result<()> {
        sums.take(ctx.get_raw(0), ctx.get_subtype(0), 1.0)
            .map_err(function_error)
    }

    fn finalize(&self, _: &mut Context<'_>, sums: Option<Sums>) -> rusqlite::Result<Output> {
        sums.unwrap_or_default().result(self.mean)
    }
}

impl WindowAggregate<Sums, Output> for Sum {
    fn value(&self, sums: Option<&mut Sums>) -> rusqlite::Result<Output> {
        match sums {
            Some(sums) => sums.result(self.mean),
            None => Ok(result(None)),
        }
    }

    fn inverse(&self, ctx: &mut Context<'_>, sums: &mut Sums) -> rusqlite::Result<()> {
        sums.take(ctx.get_raw(0), ctx.get_subtype(0), -1.0)
            .map_err(function_error)
    }
}

/// `vec_from_each(value)` takes components in the order of the rows; `vec_from_each(rowid, value)` puts each in its
/// place, 0 first, in whichever order they come; a third argument names the type, `'float32'` when left out.
struct FromEach;

#[derive(Default)]
struct Components {
    element: Option<Element>,
    values: Vec<Option<f64>>,
}

impl Components {
    fn add(&mut self, ctx: &Context<'_>) -> Result<()> {
        if self.element.is_none() {
            self.element = Some(match ctx.len() {
                3 => match ctx.get_raw(2) {
                    ValueRef::Text(name) => Element::parse(&String::from_utf8_lossy(name))?,
                    other => bail!("the vector type must be TEXT, found {}", type_name(other)),
                },
                _ => Element::F32,
            });
        }
        let place = match (ctx.len(), whole(ctx.get_raw(0))) {
            (1, _) => self.values.len(),
            (_, ValueRef::Integer(i)) => usize::try_from(i).unwrap_or(usize::MAX),
            (_, other) => bail!(
                "the index of a component must be an INTEGER, found {}",
                type_name(other)
            ),
        };
        ensure!(
            place < MAX_DIM,
            "the index of a component must be from 0 to {}",
            MAX_DIM - 1
        );
        let value = match ctx.get_raw(usize::from(ctx.len() > 1)) {
            ValueRef::Integer(n) => n as f64,
            ValueRef::Real(x) => x,
            other => bail!(
                "component {place} must be a number, found {}",
                type_name(other)
            ),
        };
        if place >= self.values.len() {
            self.values.resize(place + 1, None);
        }
        ensure!(
            self.values[place].is_none(),
            "component {place} is given twice"
        );
        self.values[place] = Some(value);
        Ok(())
    }

    fn finish(self) -> Result<Option<Vector<'static>>> {
        let Some(element) = self.element else {
            return Ok(None);
        };
        let mut values = Vec::with_capacity(self.values.len());
        for (i, value) in self.values.into_iter().enumerate() {
            match value {
                Some(value) => values.push(value),
                None => bail!("component {i} is missing"),
            }
        }
        Vector::from_components(element, &values).map(Some)
    }
}

impl Aggregate<Components, Output> for FromEach {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Components> {
        Ok(Components::default())
    }

    fn step(&self, ctx: &mut Context<'_>, components: &mut Components) -> rusqlite::Result<()> {
        components.add(ctx).map_err(function_error)
    }

    fn finalize(
        &self,
        _: &mut Context<'_>,
        components: Option<Components>,
    ) -> rusqlite::Result<Output> {
        let vector = components
            .unwrap_or_default()
            .finish()
            .map_err(function_error)?;
        Ok(result(vector))
    }
}
