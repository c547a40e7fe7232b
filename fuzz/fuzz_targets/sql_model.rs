//! Random SQL against the model of `tests/model.rs`: the fuzzer's bytes are the choices.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/world.rs"]
mod world;

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use libfuzzer_sys::fuzz_target;
use rand::TryRng;
use world::World;

/// A generator that gives the bytes of an input, then zeros.
struct Choices {
    bytes: Vec<u8>,
    at: Rc<Cell<usize>>,
}

impl Choices {
    fn take<const N: usize>(&self) -> [u8; N] {
        let at = self.at.get();
        self.at.set(at + 2);
        let mut some = [0; N];
        // Two bytes decide enough, and they are the high ones: a range is taken from those.
        for (to, from) in some
            .iter_mut()
            .rev()
            .zip(self.bytes.iter().skip(at).take(2))
        {
            *to = *from;
        }
        some
    }
}

impl TryRng for Choices {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }
    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.iter_mut().for_each(|b| [*b] = self.take());
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&seed, bytes)) = bytes.split_first() else {
        return;
    };
    let at = Rc::new(Cell::new(0));
    let choices = Choices {
        bytes: bytes.to_vec(),
        at: Rc::clone(&at),
    };
    let mut world = World::new(u64::from(seed % 18), Box::new(choices));
    let mut step = 0;
    while at.get() < bytes.len() && step < 200 {
        world.step();
        // Answers cost more than steps.
        if step % 3 == 2 {
            world.check(step);
        }
        step += 1;
    }
    world.check(step);
    world.finish();
});
