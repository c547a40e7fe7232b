//! Training and its models: `word2vec_train`, and what is asked of the words afterwards.
//!
//! A model `m` is two ordinary tables: `m(id, word, count, vector)`, and `m_model(key, part, value)` with everything
//! needed to go on training. `place` says where they are, `store` writes and reads them.
//!
//! | SQL | gives |
//! |---|---|
//! | `word2vec_train(model, table, column [, options])` | a JSON summary; writes the model |
//! | `word2vec_update(model, table, column [, options])` | likewise; trains the model on more text, and new words |
//! | `most_similar(model, positive [, negative, k, index, method])` | rows (word, similarity), best first |
//! | `similarity(model, word, word)` | the cosine of two words |
//! | `n_similarity(model, words, words)` | the cosine of the means of two sets of words |
//! | `doesnt_match(model, words)` | of a JSON array of words, the one farthest from their mean |
//! | `evaluate_word_analogies(model, path [, options])`, `evaluate_word_pairs(...)` | how good the vectors are |
//! | `model_import(model, path [, options])`, `model_export(...)` | files of word2vec, GloVe, fastText, NumPy |
//! | `vectors_read(path [, format])`, `vectors_write(path, table, column [, options])` | vectors without a model |
//! | `doc2vec_train(model, table, column [, options])`, `doc2vec_infer(model, text [, options])` | vectors of documents |
//! | `fasttext_train(model, table, column [, options])`, `fasttext_vector(model, word)` | words that were never seen have vectors, too |
//! | `phrases_train(model, table, column [, options])`, `phrases_apply(model, text)` | words that belong together |
//! | `text_vector(model, text [, options])` | the mean of the vectors of a text's words, or weighted by how rare they are |

mod caller;
mod doc2vec;
mod evaluate;
mod export;
mod fasttext;
mod import;
mod most_similar;
mod phrases;
mod place;
mod request;
mod savepoint;
mod scalar;
mod store;
mod text;
mod update;
mod word2vec;
mod words;

// What a function that reads or writes files and makes tables needs, here and in `annoy_file`.
pub(super) use caller::connection;
pub(super) use export::Pending;
pub(super) use place::Place;
pub(super) use request::{Surface, options, text};
pub(super) use savepoint::all_or_nothing;

use std::sync::Arc;

use rusqlite::Connection;

use super::Session;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    word2vec::register(conn, session)?;
    scalar::register(conn)?;
    import::register(conn)?;
    export::register(conn)?;
    doc2vec::register(conn, session)?;
    fasttext::register(conn, session)?;
    phrases::register(conn)?;
    update::register(conn, session)?;
    super::vtab::function::register::<import::VectorsRead>(conn, session)?;
    super::vtab::function::register::<evaluate::Analogies>(conn, session)?;
    super::vtab::function::register::<evaluate::Pairs>(conn, session)?;
    super::vtab::function::register::<most_similar::MostSimilar>(conn, session)
}
