//! Vectors as bytes and text: what is written is read again, on any alignment, and no input panics.

use half::f16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_annoy::vector::{Element, MAX_DIM, Vector, f32_from_blob, json};

const SEED: u64 = 20_261_122;

fn finite(rng: &mut StdRng) -> f32 {
    loop {
        let x = f32::from_bits(rng.random());
        if x.is_finite() {
            return x;
        }
    }
}

#[test]
fn blobs_round_trip_for_every_element_type_and_alignment() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for dim in (1..=64).chain([100, 768, MAX_DIM]) {
        let f32s: Vec<f32> = (0..dim).map(|_| finite(&mut rng)).collect();
        let halves = (0..dim).map(|_| f16::from_f32(rng.random_range(-65504.0..65504.0)));
        let vectors = [
            Vector::F32(f32s.into()),
            Vector::F16(halves.collect::<Vec<_>>().into()),
            Vector::Int8((0..dim).map(|_| rng.random()).collect::<Vec<i8>>().into()),
            Vector::Bit(
                (0..dim.min(MAX_DIM / 8))
                    .map(|_| rng.random())
                    .collect::<Vec<u8>>()
                    .into(),
            ),
        ];
        for vector in vectors {
            for offset in 0..4 {
                let mut buffer = vec![0xff; offset];
                buffer.extend_from_slice(vector.bytes());
                let read = Vector::from_blob(vector.element(), &buffer[offset..]).unwrap();
                assert_eq!(read, vector, "dim {dim} offset {offset}");
            }
        }
    }
}

#[test]
fn an_aligned_blob_is_read_in_place() {
    let floats = [1f32, 2.0, 3.0];
    let blob: &[u8] = bytemuck::cast_slice(&floats);
    let read = f32_from_blob(blob).unwrap();
    assert_eq!(read.as_ptr().cast::<u8>(), blob.as_ptr());
}

#[test]
fn every_single_bad_component_is_found_with_its_index() {
    for dim in [1, 2, 17, 100] {
        for place in 0..dim {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut v = vec![f32::MAX; dim];
                v[place] = bad;
                let message = f32_from_blob(bytemuck::cast_slice(&v))
                    .unwrap_err()
                    .to_string();
                assert!(
                    message.starts_with(&format!("component {place} of the vector is ")),
                    "{message}"
                );
            }
        }
    }
}

#[test]
fn json_numbers_are_read_as_rust_reads_them() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..2_000 {
        let numbers: Vec<f32> = (0..20).map(|_| finite(&mut rng)).collect();
        let texts: Vec<String> = numbers
            .iter()
            .enumerate()
            .map(|(i, x)| match i % 3 {
                0 => format!("{x}"),
                1 => format!("{x:e}"),
                _ => format!("{:.*}", rng.random_range(0..60), x),
            })
            .collect();
        // By way of f64, as sqlite-vec does.
        let want: Vec<f32> = texts
            .iter()
            .map(|t| t.parse::<f64>().unwrap() as f32)
            .collect();
        let text = format!("[{}]", texts.join(", "));
        assert_eq!(json::parse_f32(text.as_bytes()).unwrap(), want, "{text}");
    }
}

#[test]
fn what_to_json_prints_is_read_again_as_nearly_the_same() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..2_000 {
        let numbers: Vec<f32> = (0..20).map(|_| finite(&mut rng)).collect();
        let text = json::print(&Vector::F32(numbers.as_slice().into()));
        for (got, want) in json::parse_f32(text.as_bytes())
            .unwrap()
            .iter()
            .zip(&numbers)
        {
            let bound = 0.5e-6 + f64::from(want.abs()) * 2f64.powi(-24);
            assert!(
                (f64::from(*got) - f64::from(*want)).abs() <= bound,
                "{want} in {text}"
            );
        }
    }
}

#[test]
fn no_text_panics_and_what_is_taken_is_one_flat_array() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let alphabet = b"[[[]],,0123456789-+.eE \n\t\"\\{}:nulltrefas\xff\0";
    for _ in 0..200_000 {
        let length = rng.random_range(0..12);
        let mut text: Vec<u8> = (0..length)
            .map(|_| alphabet[rng.random_range(0..alphabet.len())])
            .collect();
        if rng.random() {
            text.insert(0, b'[');
        }
        for element in Element::ALL {
            if let Ok(vector) = json::parse(element, &text) {
                assert_eq!(vector.element(), element);
                let value: Vec<f64> = serde_json::from_slice(&text).unwrap();
                assert_eq!(value.len(), vector.dim());
                vector.check_finite().unwrap();
            }
        }
    }
}

#[test]
fn deep_and_long_texts_end_early() {
    let deep = "[".repeat(10_000_000);
    assert!(json::parse_f32(deep.as_bytes()).is_err());
    let long = format!("[{}0]", "0,".repeat(5_000_000));
    let message = json::parse_f32(long.as_bytes()).unwrap_err().to_string();
    assert!(message.contains("at most 65536 components"), "{message}");
    let fits = format!("[{}0]", "0,".repeat(MAX_DIM - 1));
    assert_eq!(json::parse_f32(fits.as_bytes()).unwrap().len(), MAX_DIM);
}
