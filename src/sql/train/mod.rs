//! Training and its models: `word2vec_train`, and what is asked of the words afterwards.
//!
//! A model `m` is two ordinary tables: `m(id, word, count, vector)`, and `m_model(key, part, value)` with everything
//! needed to go on training. `place` says where they are, `store` writes and reads them.
//!
//! | SQL | gives |
//! |---|---|
//! | `word2vec_train(model, table, column [, options])` | a JSON summary; writes the model |
//! | `most_similar(model, positive [, negative, k, index])` | rows (word, similarity), best first |
//! | `similarity(model, word, word)` | the cosine of two words |
//! | `doesnt_match(model, words)` | of a JSON array of words, the one farthest from their mean |
//! | `text_vector(model, text)` | the mean of the vectors of a text's words |

mod caller;
mod most_similar;
mod place;
mod request;
mod savepoint;
mod scalar;
mod store;
mod text;
mod word2vec;
mod words;

use std::sync::Arc;

use rusqlite::Connection;

use super::Session;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    word2vec::register(conn, session)?;
    scalar::register(conn)?;
    super::vtab::function::register::<most_similar::MostSimilar>(conn, session)
}
