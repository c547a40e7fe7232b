//! The training loop alone, without SQL: `cargo bench --bench train -- [CORPUS] [OPTIONS as JSON] ...`.
//!
//! The corpus has one document a line, tokens separated by spaces; without one, 1.5 M tokens are drawn by Zipf's law.
//! Each further argument is a JSON object of training options and gives one line. `SQLITE_ANNOY_ISA` chooses the
//! instruction set. Times are the best of three, because a shared machine only ever adds time.
#![allow(missing_docs, clippy::print_stdout)]

use std::time::Instant;

use anyhow::Result;
use sqlite_annoy::embed::corpus::CorpusBuilder;
use sqlite_annoy::embed::options::Options;
use sqlite_annoy::embed::random::Random;
use sqlite_annoy::embed::train::train;
use sqlite_annoy::job::Job;
use sqlite_annoy::kernel;

fn main() -> Result<()> {
    let mut documents = None;
    let mut runs = Vec::new();
    // `cargo bench` adds --bench.
    for argument in std::env::args().skip(1).filter(|a| a != "--bench") {
        if argument.starts_with('{') {
            runs.push(argument);
        } else {
            documents = Some(std::fs::read_to_string(&argument)?);
        }
    }
    if runs.is_empty() {
        runs = [r#"{"sg":1, "epochs":1}"#, r#"{"sg":0, "epochs":1}"#]
            .map(String::from)
            .to_vec();
    }
    let documents = documents.unwrap_or_else(zipf);
    for run in runs {
        let options = Options::from_json(&run)?;
        let began = Instant::now();
        let mut builder = CorpusBuilder::new(&options);
        for line in documents.lines() {
            builder.add_document(line)?;
        }
        let (vocabulary, corpus) = builder.finish()?;
        let reading = began.elapsed().as_secs_f64();
        let mut best = f64::INFINITY;
        let mut effective = 0;
        for _ in 0..3 {
            let began = Instant::now();
            let model = train(
                vocabulary.clone(),
                &corpus,
                &options,
                kernel::level(),
                &Job::new(),
            )?;
            best = best.min(began.elapsed().as_secs_f64());
            effective = model.summary.effective_words;
        }
        let raw = (corpus.n_tokens() * options.epochs) as f64;
        println!(
            "{:8} {run}: {:.2} M tokens/s, {:.0} ns for each of {:.2} M trained; read in {reading:.3} s",
            kernel::level().name(),
            raw / best / 1e6,
            best / effective as f64 * 1e9,
            effective as f64 / 1e6,
        );
    }
    Ok(())
}

/// Documents of 300 tokens over 30,000 words.
fn zipf() -> String {
    let mut random = Random::new(1, [0, 0]);
    let mut text = String::new();
    for _ in 0..5000 {
        for _ in 0..300 {
            // 30,000^u has a density in proportion to 1/x.
            let rank = (f64::from(random.unit()) * 30_000f64.ln()).exp() as u32;
            text.push_str(&format!("w{rank} "));
        }
        text.push('\n');
    }
    text
}
