//! Long work: a worker thread computes, the thread that holds the database handle waits for it.
//!
//! While it waits it runs a small statement every few milliseconds ([`LOOK`]). That is how a Ctrl-C (`sqlite3_interrupt`) is
//! seen on every SQLite version, and it runs the host's progress handler, whose answer counts as well. The worker never
//! touches SQLite; it polls its [`Job`].
//!
//! `annoy_progress('stderr')` shows a bar on the terminal for the work that follows, `annoy_progress('off')` ends that;
//! otherwise a line goes to SQLite's error log now and then.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rusqlite::{Connection, Statement, ffi};

use super::Session;
use crate::job::{Job, Progress};

/// How often the waiting thread looks for an interrupt.
const TICK: Duration = Duration::from_millis(10);
/// The statement it looks by: some 3,000 steps of SQLite's machine, about 50 us. A host counts such steps between two calls of
/// its progress handler, thousands as a rule, and may use it to end what takes too long.
const LOOK: &str = "WITH RECURSIVE step(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM step LIMIT 250) SELECT count(*) FROM step";
/// How often a bar is redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line goes to SQLite's log when no bar is shown.
const LOG: Duration = Duration::from_secs(10);

/// Lets the host end work that the thread with the database handle does itself, or waits for.
pub(crate) struct Look<'a> {
    statement: Statement<'a>,
    last: Instant,
}

impl<'a> Look<'a> {
    /// A first look is due after ten milliseconds.
    ///
    /// # Errors
    /// What SQLite says: the connection may be interrupted already.
    pub(crate) fn new(conn: &'a Connection) -> Result<Look<'a>> {
        Ok(Look {
            statement: conn.prepare(LOOK)?,
            last: Instant::now(),
        })
    }

    /// Looks, unless it did so within the last ten milliseconds: to be called as often as you like.
    ///
    /// # Errors
    /// When the connection is interrupted, or its progress handler wants an end.
    pub(crate) fn now_and_then(&mut self) -> Result<()> {
        if self.last.elapsed() >= TICK {
            self.now()?;
        }
        Ok(())
    }

    /// Looks, which takes about 50 us.
    ///
    /// # Errors
    /// As [`Look::now_and_then`].
    pub(crate) fn now(&mut self) -> Result<()> {
        self.last = Instant::now();
        Ok(self.statement.query_row([], |_| Ok(()))?)
    }
}

/// The number of threads that an option asks for; 0 asks for one for each processor.
///
/// No answer depends on their number, so one that asks for hundreds on a machine with a few processors gets 64.
pub(crate) fn threads(option: usize) -> usize {
    // Asked once: the system reads files to answer, in the time of a small search.
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors =
        *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    match option {
        0 => processors,
        n => n.min(processors.max(64)),
    }
}

/// Whether a statement that writes is running on this connection.
pub(crate) fn is_writing(conn: &Connection) -> bool {
    any_writer(conn, |_| true)
}

/// Whether one with RETURNING is. What stands there is computed after a row has changed and before the triggers run.
pub(crate) fn is_returning(conn: &Connection) -> bool {
    // SAFETY: a statement of the connection, as `any_writer` says.
    any_writer(conn, |statement| unsafe {
        ffi::sqlite3_column_count(statement) > 0
    })
}

/// Whether a running statement that writes is of this kind.
fn any_writer(conn: &Connection, is: impl Fn(*mut ffi::sqlite3_stmt) -> bool) -> bool {
    // SAFETY: an open connection, used on the thread that holds it; the statements are its own, and stay while we look.
    unsafe {
        let mut statement = ffi::sqlite3_next_stmt(conn.handle(), std::ptr::null_mut());
        while !statement.is_null() {
            if ffi::sqlite3_stmt_busy(statement) != 0
                && ffi::sqlite3_stmt_readonly(statement) == 0
                && is(statement)
            {
                return true;
            }
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
        }
    }
    false
}

/// Where long work shows its progress.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Display {
    /// A line in SQLite's error log now and then.
    #[default]
    Log,
    /// A bar on the terminal.
    Stderr,
}

impl Display {
    /// The display of this name.
    pub(crate) fn parse(name: &str) -> Result<Display> {
        match name {
            "stderr" => Ok(Display::Stderr),
            "off" | "log" => Ok(Display::Log),
            _ => bail!("unknown progress display '{name}': expected 'stderr' or 'off'"),
        }
    }
}

/// Runs `body` on a thread of its own and waits. An interrupt of the connection stops the job.
///
/// # Errors
/// The error of `body`; [`crate::job::Interrupted`] when the work stopped because the connection was interrupted.
pub(crate) fn run<T: Send>(
    conn: &Connection,
    display: Display,
    body: impl FnOnce(&Job) -> Result<T> + Send,
) -> Result<T> {
    let mut look = Look::new(conn)?;
    let job = Job::new();
    let mut show = Show::new(display);
    std::thread::scope(|scope| {
        let (sender, finished) = channel::<()>();
        let worker = scope.spawn(|| {
            // Dropped when the thread ends, also by a panic: that is the signal.
            let _sender = sender;
            body(&job)
        });
        while finished.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            if !job.is_stopped() && look.now().is_err() {
                job.stop();
            }
            show.update(&job);
        }
        show.finish();
        match worker.join() {
            Ok(outcome) => outcome,
            Err(panic) => Err(anyhow!(
                "sqlite-annoy: internal error: {}",
                super::vtab::panic_text(panic.as_ref())
            )),
        }
    })
}

/// Shows the progress of work that the thread with the database handle does itself.
pub(crate) struct Watch {
    job: Job,
    show: Show,
}

impl Watch {
    /// Begins the phase of this name; how much there is to do is not known.
    pub(crate) fn new(display: Display, phase: &'static str) -> Watch {
        let job = Job::new();
        job.phase(phase, 0);
        Watch {
            job,
            show: Show::new(display),
        }
    }

    /// So much is done by now.
    pub(crate) fn done(&mut self, units: u64) {
        self.job
            .advance(units.saturating_sub(self.job.progress().done));
        self.show.update(&self.job);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.show.finish();
    }
}

/// The bar, or the lines in the log.
struct Show {
    bar: Option<ProgressBar>,
    phase: &'static str,
    phase_began: Instant,
    shown: Instant,
}

impl Show {
    fn new(display: Display) -> Self {
        let bar = (display == Display::Stderr).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) =
                ProgressStyle::with_template("{msg:12} {bar:40} {percent:>3}% {per_sec} eta {eta}")
            {
                bar.set_style(style);
            }
            bar
        });
        Show {
            bar,
            phase: "",
            phase_began: Instant::now(),
            shown: Instant::now(),
        }
    }

    fn update(&mut self, job: &Job) {
        let pause = if self.bar.is_some() { REDRAW } else { LOG };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let progress = job.progress();
        if let Some(bar) = &self.bar {
            if progress.phase != self.phase {
                bar.reset();
                bar.set_message(progress.phase);
                bar.set_length(progress.total);
            }
            bar.set_position(progress.done);
        } else {
            log(&line(&progress, self.phase_began.elapsed().as_secs_f64()));
        }
        if progress.phase != self.phase {
            self.phase = progress.phase;
            self.phase_began = Instant::now();
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is done, how fast it went, and how long the rest will take: of nothing, nothing can be said.
fn line(progress: &Progress, seconds: f64) -> String {
    let Progress { phase, done, total } = *progress;
    let rate = done as f64 / seconds.max(1e-3);
    let speed = format!("after {seconds:.0} s, {rate:.0} a second");
    match total {
        _ if done == 0 => format!("{phase}: after {seconds:.0} s"),
        0 => format!("{phase}: {done} {speed}"),
        _ => format!(
            "{phase}: {done} of {total} {speed}, {:.0} s to go",
            total.saturating_sub(done) as f64 / rate.max(1e-3)
        ),
    }
}

/// Sends a line to SQLite's error log, as a notice.
pub(crate) fn log(text: &str) {
    if let Ok(text) = CString::new(format!("sqlite-annoy: {text}").replace('%', "%%")) {
        // SAFETY: a format without conversions; the third argument exists because the bindings declare it.
        unsafe { ffi::sqlite3_log(ffi::SQLITE_NOTICE, c"%s".as_ptr(), text.as_ptr()) }
    }
}

/// Registers `annoy_progress(where)`, which returns where progress was shown before.
pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    let session = Arc::clone(session);
    conn.create_scalar_function("annoy_progress", 1, super::DIRECT, move |ctx| {
        let name = ctx.get::<String>(0)?;
        let new = Display::parse(&name).map_err(super::function_error)?;
        let old = session.set_display(new);
        Ok(match old {
            Display::Log => "off",
            Display::Stderr => "stderr",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::testing::{in_memory, with_handler};

    #[test]
    fn a_line_says_what_is_done_how_fast_and_what_is_left() {
        let progress = |total| Progress {
            phase: "train",
            done: 3000,
            total,
        };
        assert_eq!(
            line(&progress(9000), 2.0),
            "train: 3000 of 9000 after 2 s, 1500 a second, 4 s to go"
        );
        assert_eq!(
            line(&progress(0), 3.0),
            "train: 3000 after 3 s, 1000 a second"
        );
        let begun = Progress {
            phase: "trees",
            done: 0,
            total: 1,
        };
        assert_eq!(line(&begun, 60.0), "trees: after 60 s");
    }

    #[test]
    fn a_progress_handler_that_counts_in_thousands_ends_the_work() {
        let conn = in_memory();
        let outcome = with_handler(&conn, 1000, 10, || {
            run(&conn, Display::Log, |job| {
                let began = Instant::now();
                while !job.is_stopped() && began.elapsed() < Duration::from_secs(60) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(job.is_stopped())
            })
        });
        assert!(outcome.unwrap());
    }
}
