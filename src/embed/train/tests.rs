//! Training on generated corpora: what is learned, what is repeatable, what is left out.

use super::*;
use crate::embed::corpus::CorpusBuilder;
use crate::job::Interrupted;
use crate::kernel;

/// Words of one topic occur together: each document draws from one of `N_TOPICS` lists, and from a list of filler words
/// that is common to all.
const N_TOPICS: usize = 8;
const WORDS_PER_TOPIC: u32 = 12;

fn planted(seed: u64, n_documents: usize) -> Vec<String> {
    let mut random = Random::new(seed, [0, 0]);
    (0..n_documents)
        .map(|d| {
            let topic = d % N_TOPICS;
            let words: Vec<String> = (0..30)
                .map(|_| match random.below(3) {
                    0 => format!("filler{}", random.below(10)),
                    _ => format!("topic{topic}_{}", random.below(WORDS_PER_TOPIC)),
                })
                .collect();
            words.join(" ")
        })
        .collect()
}

fn encoded(documents: &[String], options: &Options) -> (Vocabulary, Corpus) {
    let mut builder = CorpusBuilder::new(options);
    for text in documents {
        builder.add_document(text).unwrap();
    }
    builder.finish().unwrap()
}

fn options(json: &str) -> Options {
    Options::from_json(json).unwrap()
}

fn trained(documents: &[String], options: &Options) -> Model {
    trained_at(documents, options, kernel::level())
}

fn trained_at(documents: &[String], options: &Options, level: Level) -> Model {
    let (vocabulary, corpus) = encoded(documents, options);
    train(vocabulary, &corpus, options, level, &Job::new()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Of the five nearest words of each topic word, the share that belongs to the same topic.
fn purity(model: &Model) -> f64 {
    let v = &model.vocabulary;
    let topics: Vec<(u32, &str)> = (0..v.len() as u32)
        .filter_map(|id| Some((id, v.word(id).split_once('_')?.0)))
        .collect();
    let mut right = 0;
    for &(id, topic) in &topics {
        let mut others: Vec<(f64, &str)> = topics
            .iter()
            .filter(|(other, _)| *other != id)
            .map(|&(other, t)| (cosine(model.vector(id), model.vector(other)), t))
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0));
        right += others[..5].iter().filter(|(_, t)| *t == topic).count();
    }
    right as f64 / (5 * topics.len()) as f64
}

#[test]
fn words_of_one_topic_end_up_together_in_every_mode() {
    let documents = planted(1, 800);
    for mode in [
        r#"{"sg":1"#,
        r#"{"sg":1, "hs":1, "negative":0"#,
        r#"{"sg":1, "hs":1"#,
        r#"{"sg":1, "negative":12"#,
        r#"{"sg":0"#,
        r#"{"sg":0, "cbow_mean":0"#,
        r#"{"sg":0, "hs":1, "negative":0"#,
        r#"{"sg":0, "hs":1"#,
        r#"{"sg":0, "cbow_gradient":"corrected", "alpha":0.1"#,
        r#"{"sg":0, "cbow_gradient":"corrected", "cbow_mean":0"#,
    ] {
        for threads in [1, 2] {
            let o = options(&format!(
                r#"{mode}, "vector_size":20, "sample":0, "epochs":20, "threads":{threads}}}"#
            ));
            let model = trained(&documents, &o);
            let purity = purity(&model);
            assert!(purity > 0.95, "{mode} with {threads} threads: {purity}");
            let losses: Vec<f64> = model.summary.losses.iter().map(|l| l.unwrap()).collect();
            assert!(
                losses[19] < 0.95 * losses[0],
                "{mode}: the loss does not fall: {losses:?}"
            );
            assert_eq!(model.summary.raw_words, 20 * 800 * 30);
            assert_eq!(model.summary.effective_words, 20 * 800 * 30);
        }
    }
}

#[test]
fn every_instruction_set_learns_the_same() {
    let documents = planted(2, 400);
    for sg in [0, 1] {
        let o = options(&format!(
            r#"{{"sg":{sg}, "vector_size":19, "sample":0, "epochs":5}}"#
        ));
        let models: Vec<Model> = Level::ALL
            .into_iter()
            .filter(|l| l.is_available())
            .map(|l| trained_at(&documents, &o, l))
            .collect();
        for model in &models[1..] {
            for id in 0..model.vocabulary.len() as u32 {
                // Rounding differs, and grows over some 100,000 steps.
                let c = cosine(model.vector(id), models[0].vector(id));
                assert!(c > 0.99, "sg {sg}, word {id}: cosine {c}");
            }
        }
    }
}

#[test]
fn one_thread_gives_the_same_bytes_every_time_and_the_seed_matters() {
    let documents = planted(3, 300);
    for mode in [r#""sg":1"#, r#""sg":0"#, r#""sg":1, "hs":1, "negative":0"#] {
        let o = options(&format!(r#"{{{mode}, "vector_size":10}}"#));
        let (first, second) = (trained(&documents, &o), trained(&documents, &o));
        assert_eq!(first.input.floats(), second.input.floats());
        assert_eq!(
            first.output.map(|m| m.floats().to_vec()),
            second.output.map(|m| m.floats().to_vec())
        );
        assert_eq!(first.summary, second.summary);
        let other = trained(&documents, &Options { seed: 2, ..o });
        assert_ne!(first.input.floats(), other.input.floats());
    }
}

#[test]
fn a_deterministic_training_does_not_depend_on_the_number_of_threads() {
    let documents = planted(8, 2000);
    for mode in [r#""sg":1"#, r#""sg":0"#] {
        let models: Vec<Model> = [1, 2, 3]
            .iter()
            .map(|threads| {
                let o = format!(
                    r#"{{{mode}, "vector_size":10, "deterministic":true, "threads":{threads}}}"#
                );
                trained(&documents, &options(&o))
            })
            .collect();
        for other in &models[1..] {
            assert_eq!(models[0].vocabulary, other.vocabulary);
            assert_eq!(models[0].input.floats(), other.input.floats());
        }
    }
}

#[test]
fn padding_stays_zero() {
    let model = trained(
        &planted(4, 100),
        &options(r#"{"sg":1, "hs":1, "vector_size":17}"#),
    );
    for matrix in [
        Some(&model.input),
        model.output.as_ref(),
        model.nodes.as_ref(),
    ]
    .into_iter()
    .flatten()
    {
        assert!(
            matrix
                .floats()
                .chunks(32)
                .all(|row| row[17..].iter().all(|&x| x == 0.0))
        );
        assert!(matrix.floats().chunks(32).any(|row| row[16] != 0.0));
    }
}

#[test]
fn windows_do_not_cross_documents() {
    // `a` and `b` alternate in neighbouring documents of one word: nothing to learn from.
    let alone: Vec<String> = (0..2000).map(|i| ["a", "b"][i % 2].to_string()).collect();
    for sg in [0, 1] {
        let o = options(&format!(
            r#"{{"sg":{sg}, "vector_size":8, "min_count":1, "sample":0}}"#
        ));
        let model = trained(&alone, &o);
        let untrained = initial(2, &o).unwrap();
        assert_eq!(model.input.floats(), untrained.floats());
        assert_eq!(model.summary.losses, vec![None; 5]);

        let together = vec![alone.join(" ")];
        assert_ne!(trained(&together, &o).input.floats(), untrained.floats());
    }
}

#[test]
fn a_window_of_one_sees_only_its_neighbours() {
    // With one epoch of one document `a b c d`, an input vector moves only through a neighbour's output vector, which is
    // zero until a first step: what is unchanged was never the context of a centre whose output had moved. So outputs.
    let o = options(
        r#"{"sg":1, "vector_size":8, "min_count":1, "sample":0, "window":1, "epochs":1, "hs":1, "negative":0}"#,
    );
    let model = trained(&["a b".to_string(), "c".to_string(), "d".to_string()], &o);
    let untrained = initial(4, &o).unwrap();
    let tree = Huffman::new(model.vocabulary.counts());
    // Only nodes on the paths of the centres `a` and `b` can have moved.
    let on_path: Vec<u32> = [0, 1]
        .iter()
        .flat_map(|&id| tree.path(id))
        .map(|s| s.row())
        .collect();
    let nodes = model.nodes.as_ref().unwrap();
    for node in 0..3 {
        let moved = nodes.row(node).iter().any(|&x| x != 0.0);
        assert_eq!(moved, on_path.contains(&(node as u32)), "node {node}");
    }
    for word in ["c", "d"] {
        let id = model.vocabulary.find(word).unwrap();
        assert_eq!(
            model.vector(id),
            untrained.row(id as usize),
            "{word} has no neighbour"
        );
    }
}

#[test]
fn every_token_of_a_long_document_is_trained() {
    // gensim drops what lies beyond 10,000 tokens. Here the words at the end occur nowhere else.
    let mut text = "x y ".repeat(100_000);
    text.push_str("last1 last2 last3");
    for sg in [0, 1] {
        let o = options(&format!(
            r#"{{"sg":{sg}, "vector_size":8, "min_count":1, "sample":0, "epochs":2}}"#
        ));
        let model = trained(&[text.clone()], &o);
        assert_eq!(model.summary.raw_words, 2 * 200_003);
        assert_eq!(model.summary.effective_words, 2 * 200_003);
        let untrained = initial(5, &o).unwrap();
        for word in ["last1", "last2", "last3"] {
            let id = model.vocabulary.find(word).unwrap();
            assert_ne!(model.vector(id), untrained.row(id as usize), "{word}");
            assert!(
                model
                    .output
                    .as_ref()
                    .unwrap()
                    .row(id as usize)
                    .iter()
                    .any(|&x| x != 0.0),
                "{word}"
            );
        }
    }
}

#[test]
fn subsampling_keeps_tokens_with_their_words_probability() {
    let documents = planted(5, 2000);
    let o = options(r#"{"sg":1, "vector_size":4, "sample":0.001, "epochs":10, "min_count":1}"#);
    let model = trained(&documents, &o);
    let counts = model.vocabulary.counts();
    let (mut expected, mut variance) = (0.0, 0.0);
    for (&c, p) in counts.iter().zip(keep_probabilities(counts, o.sample)) {
        expected += 10.0 * c as f64 * f64::from(p);
        variance += 10.0 * c as f64 * f64::from(p) * (1.0 - f64::from(p));
    }
    let got = model.summary.effective_words as f64;
    assert!(
        expected < 0.9 * model.summary.raw_words as f64,
        "the test thins nothing"
    );
    assert!(
        (got - expected).abs() < 5.0 * variance.sqrt(),
        "{got} trained, expected {expected} +- {}",
        variance.sqrt()
    );
}

#[test]
fn the_learning_rate_falls_linearly_to_its_end() {
    // The first step moves the output of the centre by alpha / 2 times the input, because its score is 0.
    let o = options(
        r#"{"sg":1, "vector_size":8, "min_count":1, "sample":0, "epochs":1, "alpha":0.5, "hs":1, "negative":0}"#,
    );
    let documents = ["a b".to_string()];
    let (vocabulary, corpus) = encoded(&documents, &o);
    // Not with factors of bf16.
    let model = train(vocabulary, &corpus, &o, Level::Portable, &Job::new()).unwrap();
    let untrained = initial(2, &o).unwrap();
    // Centre a, context b, then centre b, context a: one node, label 1 for the first child and 0 for the second.
    let label = |id| f32::from(u8::from(Huffman::new(&[1, 1]).path(id)[0].label()));
    let node: Vec<f32> = (0..8)
        .map(|c| {
            let first = 0.5 * (label(0) - 0.5) * untrained.row(1)[c];
            // The second score is tiny, its sigmoid nearly 1/2.
            first + 0.5 * (label(1) - 0.5) * untrained.row(0)[c]
        })
        .collect();
    for (got, expected) in model.nodes.unwrap().row(0).iter().zip(node) {
        assert!((got - expected).abs() < 1e-3 * 0.125, "{got} {expected}");
    }
    assert_eq!(alpha_at(&o, 0.0, 2.0), 0.5);
    assert!((alpha_at(&o, 1.0, 2.0) - 0.250_05).abs() < 1e-6);
    assert!((alpha_at(&o, 2.0, 2.0) - 0.0001).abs() < 1e-6);
}

#[test]
fn a_vocabulary_of_one_word_trains_to_nothing_in_peace() {
    for mode in [
        r#""sg":1"#,
        r#""sg":0"#,
        r#""sg":1, "hs":1"#,
        r#""sg":0, "hs":1, "negative":0"#,
    ] {
        let model = trained(
            &["w ".repeat(100)],
            &options(&format!(r#"{{{mode}, "vector_size":4}}"#)),
        );
        assert!(model.vector(0).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_learning_rate_beyond_reason_is_an_error_and_no_nan() {
    let documents = planted(6, 300);
    let o = options(
        r#"{"sg":0, "cbow_mean":0, "vector_size":8, "alpha":100, "epochs":20, "window":50}"#,
    );
    let (vocabulary, corpus) = encoded(&documents, &o);
    match train(vocabulary, &corpus, &o, kernel::level(), &Job::new()) {
        Err(e) => assert!(e.to_string().starts_with("training diverged"), "{e}"),
        Ok(model) => assert!(model.input.floats().iter().all(|x| x.is_finite())),
    }
}

#[test]
fn a_stopped_job_ends_at_once_on_all_threads() {
    let documents = planted(7, 2000);
    for threads in [1, 2] {
        let o = options(&format!(
            r#"{{"sg":1, "epochs":100000, "vector_size":50, "threads":{threads}}}"#
        ));
        let (vocabulary, corpus) = encoded(&documents, &o);
        let job = Job::new();
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                while job.progress().done == 0 {
                    std::thread::yield_now();
                }
                job.stop();
            });
            train(vocabulary, &corpus, &o, kernel::level(), &job).unwrap_err()
        });
        assert!(error.downcast_ref::<Interrupted>().is_some(), "{error}");
    }
}
