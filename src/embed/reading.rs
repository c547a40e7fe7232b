//! Reading documents: text becomes words, words are counted, tokens become ids.
//!
//! Documents are added one at a time, in one pass: each token is counted and stored under a provisional number, and
//! [`CorpusBuilder::finish`] renumbers them in place by rank and removes the words that are left out.
//!
//! With several threads the caller only hands over text, about a megabyte at a time; each thread counts for itself, and
//! the tokens of every batch come back in order. At the end the counts are added, and a word comes first where it came
//! first in any of them: so ids and tokens are the same for every number of threads. Only `max_vocab_size` counts on one
//! thread, because what it forgets depends on what came before.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};

use crate::embed::corpus::Corpus;
use crate::embed::options::Options;
use crate::embed::tokenize::Tokenizer;
use crate::embed::tokens::Collecting;
use crate::embed::vocab::{Counter, LEFT_OUT, Vocabulary, settle};
use crate::job::Job;

/// Bytes of text between two looks at whether to go on, and in a batch: a few milliseconds of work.
const PIECE: usize = 1 << 20;

/// Reads documents. See the module page.
#[derive(Debug)]
pub struct CorpusBuilder {
    options: Options,
    counting: Counting,
    /// Provisional numbers, of documents that end at `ends`.
    tokens: Collecting,
    ends: Vec<usize>,
    /// Where the tokens of a batch end, and which counter's numbers they are.
    batches: Vec<(usize, usize)>,
    n_documents: u64,
}

#[derive(Debug)]
enum Counting {
    Here(Counter),
    OnThreads(Threads),
}

impl CorpusBuilder {
    /// An empty corpus; of the options those of tokenizer and vocabulary are used, `threads` and `max_memory`.
    #[must_use]
    pub fn new(options: &Options) -> CorpusBuilder {
        let alone = options.threads == 1 || options.max_vocab_size.is_some();
        CorpusBuilder {
            options: options.clone(),
            counting: if alone {
                Counting::Here(Counter::new(options.max_vocab_size))
            } else {
                Counting::OnThreads(Threads::new(options.threads, options.tokenizer))
            },
            tokens: Collecting::new(options.max_memory),
            ends: Vec::new(),
            batches: Vec::new(),
            n_documents: 0,
        }
    }

    /// Adds one document. A document without tokens counts as a document and has no other effect.
    ///
    /// # Errors
    /// More different words than an id can number, or no memory.
    pub fn add_document(&mut self, text: &str) -> Result<()> {
        self.add_document_in_pieces(text, || Ok(()))
    }

    /// As [`CorpusBuilder::add_document`], for documents of any length: between pieces of a megabyte it calls `pause`,
    /// whose error ends the reading.
    ///
    /// # Errors
    /// As [`CorpusBuilder::add_document`], and those of `pause`.
    pub fn add_document_in_pieces(
        &mut self,
        text: &str,
        mut pause: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.n_documents += 1;
        let mut rest = text;
        while rest.len() > PIECE {
            // White space ends a token whatever the tokenizer.
            let Some((end, space)) = rest
                .char_indices()
                .skip_while(|(i, _)| *i < PIECE)
                .find(|(_, c)| c.is_whitespace())
            else {
                break;
            };
            self.add_text(&rest[..end], false)?;
            rest = &rest[end + space.len_utf8()..];
            pause()?;
        }
        self.add_text(rest, true)
    }

    fn add_text(&mut self, text: &str, ends_document: bool) -> Result<()> {
        match &mut self.counting {
            Counting::Here(counter) => {
                let mut numbers = Vec::new();
                count(&self.options.tokenizer, counter, text, &mut numbers)?;
                self.tokens.extend(&numbers)?;
                if ends_document {
                    end_document(&mut self.ends, self.tokens.len());
                }
                Ok(())
            }
            Counting::OnThreads(threads) => {
                if threads.add_text(text, ends_document)? {
                    self.collect(false)?;
                }
                Ok(())
            }
        }
    }

    /// Takes the batches that are done, in order; all there are, if it may `wait` for them.
    fn collect(&mut self, wait: bool) -> Result<()> {
        let Counting::OnThreads(threads) = &mut self.counting else {
            return Ok(());
        };
        while let Some(done) = threads.next_done(wait) {
            let before = self.tokens.len();
            self.tokens.extend(&done.numbers)?;
            for end in done.ends {
                end_document(&mut self.ends, before + end);
            }
            self.batches.push((self.tokens.len(), done.by));
        }
        Ok(())
    }

    /// Tokens read so far, except those that threads still have in hand.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// The vocabulary and the encoded corpus.
    ///
    /// # Errors
    /// When no word is left, with the reason.
    pub fn finish(self) -> Result<(Vocabulary, Corpus)> {
        self.finish_under(&Job::new())
    }

    /// As [`CorpusBuilder::finish`], as the phase `encode` of a job.
    ///
    /// # Errors
    /// As [`CorpusBuilder::finish`], and [`Interrupted`](crate::job::Interrupted).
    pub fn finish_under(mut self, job: &Job) -> Result<(Vocabulary, Corpus)> {
        let counters = match &mut self.counting {
            Counting::Here(counter) => {
                self.batches = vec![(self.tokens.len(), 0)];
                let counter = std::mem::take(counter);
                let first = (0..counter.n_numbers() as u64).collect();
                vec![(counter, first)]
            }
            Counting::OnThreads(threads) => {
                threads.send_batch()?;
                threads.close();
                self.collect(true)?;
                match &mut self.counting {
                    Counting::OnThreads(threads) => threads.join()?,
                    Counting::Here(_) => Vec::new(),
                }
            }
        };
        let n_read = self.tokens.len();
        job.phase("encode", n_read as u64);
        let (vocabulary, ids) = settle(counters, &self.options, n_read as u64)?;
        let mut tokens = self.tokens.finish()?;

        // Renumbers in place: what is written never overtakes what is read.
        let numbers = tokens.ids_mut();
        let (mut to, mut document, mut from) = (0, 0, 0);
        for (batch_end, by) in self.batches {
            let ids = &ids[by];
            while from < batch_end {
                // Up to the end of the document, of the batch, or a moment.
                let document_end = self.ends.get(document).copied().unwrap_or(usize::MAX);
                let end = document_end.min(batch_end).min(from + PIECE);
                job.check()?;
                for i in from..end {
                    let id = ids[numbers[i] as usize];
                    numbers[to] = id;
                    to += usize::from(id != LEFT_OUT);
                }
                job.advance((end - from) as u64);
                from = end;
                if end == document_end {
                    self.ends[document] = to;
                    document += 1;
                }
            }
        }
        tokens.truncate(to);
        self.ends.dedup();
        if self.ends.first() == Some(&0) {
            self.ends.remove(0);
        }
        let corpus = Corpus::new(tokens, self.ends, n_read as u64, self.n_documents);
        Ok((vocabulary, corpus))
    }
}

/// A document ends here, if it has tokens.
fn end_document(ends: &mut Vec<usize>, n_tokens: usize) {
    if ends.last().copied().unwrap_or(0) < n_tokens {
        ends.push(n_tokens);
    }
}

/// Counts the tokens of a text and appends their provisional numbers.
fn count(
    tokenizer: &Tokenizer,
    counter: &mut Counter,
    text: &str,
    numbers: &mut Vec<u32>,
) -> Result<()> {
    // A token needs a byte, and one to end it.
    if numbers.try_reserve(text.len() / 2 + 1).is_err() {
        bail!(
            "no memory to split {} bytes of text into tokens",
            text.len()
        );
    }
    let mut result = Ok(());
    tokenizer.for_each(text, |token| {
        if result.is_ok() {
            match counter.count(token) {
                Ok(number) => numbers.push(number),
                Err(e) => result = Err(e),
            }
        }
    });
    result
}

/// Text to split and count: where documents end in it, and which place it has in the corpus.
#[derive(Debug, Default)]
struct Batch {
    index: u64,
    text: String,
    ends: Vec<usize>,
}

/// A batch that was counted.
#[derive(Debug)]
struct Done {
    index: u64,
    /// The number of the thread.
    by: usize,
    numbers: Vec<u32>,
    /// How many tokens there are up to each end of a document.
    ends: Vec<usize>,
}

/// What a thread has counted, and where each of its words came first.
type Counted = (Counter, Vec<u64>);

#[derive(Debug)]
struct Threads {
    batch: Batch,
    /// Closed when there is no more.
    to_count: Option<SyncSender<Batch>>,
    counted: Receiver<Done>,
    /// Batches that were counted before an earlier one was.
    early: BTreeMap<u64, Done>,
    next: u64,
    handles: Vec<JoinHandle<Result<Counted>>>,
}

impl Threads {
    fn new(n: usize, tokenizer: Tokenizer) -> Threads {
        let (to_count, from_caller) = sync_channel::<Batch>(2 * n);
        let (to_caller, counted) = channel();
        let from_caller = Arc::new(Mutex::new(from_caller));
        let handles = (0..n)
            .map(|by| {
                let (batches, done) = (Arc::clone(&from_caller), to_caller.clone());
                std::thread::spawn(move || {
                    let mut counted = (Counter::new(None), Vec::new());
                    loop {
                        // The lock is held while waiting: the others would only wait for the same.
                        let batch = batches
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .recv();
                        let Ok(batch) = batch else {
                            return Ok(counted);
                        };
                        // The caller is gone if it does not listen.
                        let _ = done.send(count_batch(by, &batch, &tokenizer, &mut counted)?);
                    }
                })
            })
            .collect();
        Threads {
            batch: Batch::default(),
            to_count: Some(to_count),
            counted,
            early: BTreeMap::new(),
            next: 0,
            handles,
        }
    }

    /// Adds text to the batch; whether that was the end of one.
    fn add_text(&mut self, text: &str, ends_document: bool) -> Result<bool> {
        // As white space does, between the pieces of a document.
        self.batch.text.push_str(text);
        self.batch.text.push('\n');
        if ends_document {
            self.batch.ends.push(self.batch.text.len());
        }
        let full = self.batch.text.len() >= PIECE;
        if full {
            self.send_batch()?;
        }
        Ok(full)
    }

    fn send_batch(&mut self) -> Result<()> {
        let next = Batch {
            index: self.batch.index + 1,
            ..Batch::default()
        };
        let batch = std::mem::replace(&mut self.batch, next);
        let sent = self
            .to_count
            .as_ref()
            .is_some_and(|to| to.send(batch).is_ok());
        if !sent {
            // All have ended: with an error, which `join` finds.
            self.join()?;
            bail!("the threads that count words have ended early");
        }
        Ok(())
    }

    /// No more batches come.
    fn close(&mut self) {
        self.to_count = None;
    }

    /// The next batch in order, once it is counted.
    fn next_done(&mut self, wait: bool) -> Option<Done> {
        loop {
            if let Some(done) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(done);
            }
            let done = if wait {
                self.counted.recv().ok()?
            } else {
                self.counted.try_recv().ok()?
            };
            self.early.insert(done.index, done);
        }
    }

    /// Waits for the threads to end, after [`Threads::close`].
    fn join(&mut self) -> Result<Vec<Counted>> {
        std::mem::take(&mut self.handles)
            .into_iter()
            .map(joined)
            .collect()
    }
}

impl Drop for Threads {
    /// No thread stays when the reading ends early: the library may be unloaded.
    fn drop(&mut self) {
        self.close();
        // What they found no longer matters.
        let _ = self.join();
    }
}

fn joined(handle: JoinHandle<Result<Counted>>) -> Result<Counted> {
    handle
        .join()
        .map_err(|_| anyhow!("a thread that counted words has panicked"))?
        .context("while counting words")
}

fn count_batch(
    by: usize,
    batch: &Batch,
    tokenizer: &Tokenizer,
    counted: &mut Counted,
) -> Result<Done> {
    let (counter, first) = counted;
    let (mut numbers, mut ends) = (Vec::new(), Vec::new());
    let mut begin = 0;
    for &end in batch.ends.iter().chain([&batch.text.len()]) {
        let before = numbers.len();
        count(tokenizer, counter, &batch.text[begin..end], &mut numbers)?;
        for (place, &number) in numbers.iter().enumerate().skip(before) {
            if number as usize == first.len() {
                first.push((batch.index << 32) | place as u64);
            }
        }
        begin = end;
        ends.push(numbers.len());
    }
    // The text after the last end is of a document that goes on.
    ends.pop();
    Ok(Done {
        index: batch.index,
        by,
        numbers,
        ends,
    })
}
