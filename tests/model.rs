//! Random operations against a model in memory: whatever is done to the table and the index, the answers are those of a
//! loop over the model's rows, in every bit, inside transactions and from a second connection.
//!
//! `MODEL_SEEDS=20 MODEL_STEPS=5000 cargo test --release --test model` is the long run; `MODEL_FIRST=11 MODEL_SEEDS=12` runs seed 11.

mod common;
#[path = "common/world.rs"]
mod world;

use rand::SeedableRng;
use rand::rngs::StdRng;

use world::World;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

#[test]
fn random_operations_never_make_an_answer_differ_from_the_models() {
    let (seeds, steps) = (from_env("MODEL_SEEDS", 6), from_env("MODEL_STEPS", 500));
    for seed in from_env("MODEL_FIRST", 0)..seeds {
        eprintln!("seed {seed}");
        let mut world = World::new(seed, Box::new(StdRng::seed_from_u64(!seed)));
        for step in 0..steps as usize {
            world.step();
            world.check(step);
        }
        world.finish();
    }
}
