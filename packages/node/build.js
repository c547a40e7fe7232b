// Puts the library of this machine into library/<platform>-<arch>/. SQLITE_ANNOY_LIBRARY names one that has been built already;
// copies of other machines' libraries may lie beside it when a package for several is packed. Licences go along.
"use strict";
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { libraryName } = require("./index.js");

const root = path.join(__dirname, "..", "..");
const folder = path.join(__dirname, "library", `${process.platform}-${process.arch}`);
let library = process.env.SQLITE_ANNOY_LIBRARY;
if (!library) {
  execFileSync("cargo", ["build", "--release", "--lib"], { cwd: root, stdio: "inherit" });
  library = path.join(process.env.CARGO_TARGET_DIR || path.join(root, "target"), "release", libraryName());
}
fs.mkdirSync(folder, { recursive: true });
const copy = path.join(folder, libraryName());
fs.copyFileSync(library, copy);
if (process.platform === "linux") execFileSync("strip", ["--strip-unneeded", copy]);
for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) fs.copyFileSync(path.join(root, name), path.join(__dirname, "library", name));
const notices = execFileSync("python3", [path.join(root, ".ci", "licences.py"), "--texts"], { maxBuffer: 1 << 26 });
fs.writeFileSync(path.join(__dirname, "library", "LICENSES-OF-DEPENDENCIES"), notices);
