//! A text as a vector, beside serde_json; and vectors through JSON and back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sqlite_annoy::vector::{Element, MAX_DIM, json};

fuzz_target!(|text: &[u8]| {
    for element in [Element::F32, Element::F16, Element::Int8, Element::Bit] {
        if let Ok(vector) = json::parse(element, text) {
            assert!(vector.check_finite().is_ok());
            let printed = json::print(&vector);
            // Floats lose digits in print, never their place.
            let again = json::parse(element, printed.as_bytes()).map(|v| v.dim());
            assert!(again.is_err() || again.unwrap() == vector.dim());
        }
    }
    let truth: Option<Vec<f64>> = serde_json::from_slice(text).ok();
    let truth = truth
        .map(|v| v.iter().map(|&x| x as f32).collect::<Vec<_>>())
        .filter(|v| (1..=MAX_DIM).contains(&v.len()) && v.iter().all(|x| x.is_finite()));
    let got = json::parse_f32(text).ok();
    let bits = |v: &Option<Vec<f32>>| {
        v.as_ref()
            .map(|v| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    assert_eq!(bits(&got), bits(&truth));
    if let Some(vector) = got {
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(
            bits(&Some(vector)),
            bits(&json::parse_f32(text.as_bytes()).ok())
        );
    }
});
