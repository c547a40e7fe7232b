//! Where the tour finds its corpus: the 300 news documents of the Lee background corpus, one a line, which travel in the
//! Python package gensim.
//!
//! In this order: a path on the command line, what an earlier run has left in target/tour, an installed gensim, gensim
//! downloaded by pip. Python only finds and unpacks the file; nothing of it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// The path inside the package.
const IN_PACKAGE: &str = "gensim/test/test_data/lee_background.cor";

/// Prints where an installed gensim has the corpus, without importing it.
const FIND: &str = "
import importlib.util, os, sys
spec = importlib.util.find_spec('gensim')
print(os.path.join(spec.submodule_search_locations[0], 'test', 'test_data', 'lee_background.cor') if spec else '')
";

/// Unpacks one member of a wheel to standard output.
const UNPACK: &str = "
import sys, zipfile
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))
";

/// Sees to it that the corpus is at `place`; returns where it came from.
pub fn provide(given: Option<&Path>, place: &Path) -> Result<String> {
    if let Some(path) = given {
        copy(path, place)?;
        return Ok(path.display().to_string());
    }
    if place.exists() {
        return Ok(format!("{} (from an earlier run)", place.display()));
    }
    let pythons = ["python3", "python"];
    for python in pythons {
        if let Some(path) = installed(python) {
            copy(&path, place)?;
            return Ok(path.display().to_string());
        }
    }
    let mut tried = String::new();
    for python in pythons {
        match download(python, place) {
            Ok(()) => return Ok("gensim, downloaded by pip".to_string()),
            Err(error) => tried += &format!("\n  {python}: {error:#}"),
        }
    }
    bail!(
        "the tour needs the Lee background corpus (lee_background.cor, 360 KB), which travels in the Python package \
         gensim.\nThis program looked for an installed gensim and tried to download it with pip:{tried}\nDo one of \
         these, then start again:\n  pip install gensim\n  cargo run --release --example tour -- \
         path/to/lee_background.cor\n  (the file is {IN_PACKAGE} in any gensim package, which is a zip archive)"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let text = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    std::fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))
}

/// The corpus of a gensim that this Python can import.
fn installed(python: &str) -> Option<PathBuf> {
    let output = Command::new(python).args(["-c", FIND]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// Downloads gensim's wheel beside `place` and unpacks the corpus.
fn download(python: &str, place: &Path) -> Result<()> {
    let folder = place.with_file_name("download");
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
    ];
    eprintln!("downloading gensim (27 MB) with {python} -m pip ...");
    let output = Command::new(python)
        .args(pip)
        .arg(&folder)
        .arg("gensim")
        .output()
        .context("cannot be started")?;
    ensure!(
        output.status.success(),
        "pip: {}",
        last_line(&output.stderr)
    );
    let wheel = std::fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("pip left no wheel")?;
    let output = Command::new(python)
        .args(["-c", UNPACK])
        .arg(&wheel)
        .arg(IN_PACKAGE)
        .output()?;
    ensure!(
        output.status.success(),
        "cannot unpack {}: {}",
        wheel.display(),
        last_line(&output.stderr)
    );
    std::fs::write(place, output.stdout)?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// What a program said last.
fn last_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().last().unwrap_or("no message").to_string()
}
