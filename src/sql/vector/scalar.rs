//! Functions of one row. The module page above has the rules they share.

use anyhow::{Result, bail, ensure};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::{
    Output, READS, RETURNS, argument, decode, function_error, output, two_arguments, type_name,
};
use crate::sql::values::whole;
use crate::vector::math::{self, Number};
use crate::vector::{Element, Metric, Vector, json};

/// Name, number of arguments, flags, function.
type Entry = (
    &'static str,
    i32,
    FunctionFlags,
    fn(&Context<'_>) -> Result<Output>,
);

const FUNCTIONS: [Entry; 20] = [
    ("vec_f32", 1, RETURNS, vec_f32),
    ("vec_f16", 1, RETURNS, vec_f16),
    ("vec_int8", 1, RETURNS, vec_int8),
    ("vec_bit", 1, RETURNS, vec_bit),
    ("vec_length", 1, READS, vec_length),
    ("vec_type", 1, READS, vec_type),
    ("vec_to_json", 1, READS, vec_to_json),
    ("vec_add", 2, RETURNS, vec_add),
    ("vec_sub", 2, RETURNS, vec_sub),
    ("vec_scale", 2, RETURNS, vec_scale),
    ("vec_slice", 3, RETURNS, vec_slice),
    ("vec_normalize", 1, RETURNS, vec_normalize),
    ("vec_norm", 1, READS, vec_norm),
    ("vec_dot", 2, READS, vec_dot),
    ("vec_distance_l2", 2, READS, |ctx| distance(ctx, Metric::L2)),
    ("vec_distance_cosine", 2, READS, |ctx| {
        distance(ctx, Metric::Cosine)
    }),
    ("vec_distance_l1", 2, READS, |ctx| distance(ctx, Metric::L1)),
    ("vec_distance_hamming", 2, READS, |ctx| {
        distance(ctx, Metric::Hamming)
    }),
    ("vec_quantize_int8", 2, RETURNS, vec_quantize_int8),
    ("vec_quantize_binary", 1, RETURNS, vec_quantize_binary),
];

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for (name, arguments, flags, function) in FUNCTIONS {
        conn.create_scalar_function(name, arguments, flags, move |ctx| {
            function(ctx).map_err(function_error)
        })?;
    }
    Ok(())
}

/// A value that is not a vector as the result of a function.
fn plain(value: impl Into<Value>) -> Output {
    (ToSqlOutput::Owned(value.into()), None)
}

fn vec_f32(ctx: &Context<'_>) -> Result<Output> {
    let value = ctx.get_raw(0);
    let vector = match (value, ctx.get_subtype(0)) {
        (ValueRef::Blob(_), 226) => decode(value, 226)?,
        // Whatever an int8 or bit vector holds is read as float32: sqlite-vec's way to tag.
        (_, _) => decode(value, 0)?,
    };
    Ok(output(&math::to_f32(vector)?))
}

fn vec_f16(ctx: &Context<'_>) -> Result<Output> {
    let vector = match (ctx.get_raw(0), ctx.get_subtype(0)) {
        (ValueRef::Text(text), _) => json::parse(Element::F16, text)?,
        (ValueRef::Blob(blob), 223) => Vector::decode(Element::F32, blob)?,
        (ValueRef::Blob(blob), _) => Vector::decode(Element::F16, blob)?,
        (other, _) => decode(other, 0)?,
    };
    Ok(output(&math::to_f16(vector)?))
}

fn vec_int8(ctx: &Context<'_>) -> Result<Output> {
    match ctx.get_raw(0) {
        ValueRef::Blob(blob) => Ok(output(&Vector::decode(Element::Int8, blob)?)),
        ValueRef::Text(text) => Ok(output(&json::parse(Element::Int8, text)?)),
        _ => bail!("Unknown type for int8 vector."),
    }
}

fn vec_bit(ctx: &Context<'_>) -> Result<Output> {
    match ctx.get_raw(0) {
        ValueRef::Blob(blob) => Ok(output(&Vector::decode(Element::Bit, blob)?)),
        ValueRef::Text(text) => Ok(output(&json::parse(Element::Bit, text)?)),
        _ => bail!("Unknown type for bitvector."),
    }
}

fn vec_length(ctx: &Context<'_>) -> Result<Output> {
    Ok(plain(argument(ctx, 0)?.dim() as i64))
}

fn vec_type(ctx: &Context<'_>) -> Result<Output> {
    let element = argument(ctx, 0)?.element();
    Ok((ToSqlOutput::from(element.name()), None))
}

fn vec_to_json(ctx: &Context<'_>) -> Result<Output> {
    let vector = argument(ctx, 0)?;
    vector.check_finite()?;
    Ok(plain(json::print(&vector)))
}

fn vec_add(ctx: &Context<'_>) -> Result<Output> {
    let (a, b) = two_arguments(ctx)?;
    Ok(output(&math::add(&a, &b)?))
}

fn vec_sub(ctx: &Context<'_>) -> Result<Output> {
    let (a, b) = two_arguments(ctx)?;
    Ok(output(&math::sub(&a, &b)?))
}

fn vec_scale(ctx: &Context<'_>) -> Result<Output> {
    let factor = match ctx.get_raw(1) {
        ValueRef::Integer(n) => n as f64,
        ValueRef::Real(x) => x,
        other => bail!("the factor must be a number, found {}", type_name(other)),
    };
    let vector = argument(ctx, 0)?;
    Ok(output(&math::scale(&vector, factor)?))
}

fn vec_slice(ctx: &Context<'_>) -> Result<Output> {
    let index = |i, name| match whole(ctx.get_raw(i)) {
        ValueRef::Integer(n) => Ok(n),
        other => bail!(
            "slice '{name}' index must be an INTEGER, found {}",
            type_name(other)
        ),
    };
    let vector = argument(ctx, 0)?;
    let part = math::slice(&vector, index(1, "start")?, index(2, "end")?)?;
    Ok(output(&part))
}

fn vec_normalize(ctx: &Context<'_>) -> Result<Output> {
    let vector = argument(ctx, 0)?;
    Ok(output(&math::normalize(&vector)?))
}

fn vec_norm(ctx: &Context<'_>) -> Result<Output> {
    let vector = argument(ctx, 0)?;
    Ok(plain(math::norm(&vector)?))
}

fn vec_dot(ctx: &Context<'_>) -> Result<Output> {
    let (a, b) = two_arguments(ctx)?;
    Ok(match math::distance(Metric::Dot, &a, &b)? {
        Number::Integer(n) => plain(-n),
        // Not `-x`, which makes -0.0 of 0.0.
        Number::Real(x) => plain(0.0 - x),
    })
}

fn distance(ctx: &Context<'_>, metric: Metric) -> Result<Output> {
    let (a, b) = two_arguments(ctx)?;
    Ok(match math::distance(metric, &a, &b)? {
        Number::Integer(n) => plain(n),
        Number::Real(x) => plain(x),
    })
}

fn vec_quantize_int8(ctx: &Context<'_>) -> Result<Output> {
    let unit = matches!(ctx.get_raw(1), ValueRef::Text(t) if t.eq_ignore_ascii_case(b"unit"));
    ensure!(unit, "2nd argument to vec_quantize_int8() must be 'unit'.");
    let vector = argument(ctx, 0)?;
    Ok(output(&math::quantize_int8(&vector)?))
}

fn vec_quantize_binary(ctx: &Context<'_>) -> Result<Output> {
    let vector = argument(ctx, 0)?;
    Ok(output(&math::quantize_binary(&vector)?))
}
