"use strict";
const fs = require("node:fs");
const path = require("node:path");

const NAMES = { darwin: "libsqlite_annoy.dylib", win32: "sqlite_annoy.dll" };

function libraryName() {
  return NAMES[process.platform] || "libsqlite_annoy.so";
}

function loadablePath() {
  if (process.env.SQLITE_ANNOY_PATH) return process.env.SQLITE_ANNOY_PATH;
  const machine = `${process.platform}-${process.arch}`;
  const file = path.join(__dirname, "library", machine, libraryName());
  if (!fs.existsSync(file)) {
    throw new Error(
      `sqlite-annoy has no library for ${machine} (${file} is missing): build it by "cargo build --release", and set ` +
        "SQLITE_ANNOY_PATH to what that made",
    );
  }
  return file;
}

function load(db) {
  if (typeof db?.loadExtension !== "function") {
    throw new TypeError("expected a Database of better-sqlite3 or a DatabaseSync of node:sqlite");
  }
  // node:sqlite: off again afterwards. better-sqlite3 has no such switch.
  const enable = typeof db.enableLoadExtension === "function" ? (on) => db.enableLoadExtension(on) : () => {};
  try {
    enable(true);
  } catch (error) {
    throw new Error(
      `${error.message}: open the database with new DatabaseSync(path, { allowExtension: true })`,
      { cause: error },
    );
  }
  try {
    db.loadExtension(loadablePath());
  } finally {
    enable(false);
  }
}

function serializeFloat32(vector) {
  const floats = vector instanceof Float32Array ? vector : Float32Array.from(vector);
  // A view: no copy of the numbers. All platforms of Node are little-endian but s390x, for which there is no library.
  return Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength);
}

function deserializeFloat32(blob) {
  if (blob.byteLength % 4 !== 0) {
    throw new RangeError(`${blob.byteLength} bytes are no vector of float32: expected a multiple of 4`);
  }
  if (blob.byteOffset % 4 === 0) return new Float32Array(blob.buffer, blob.byteOffset, blob.byteLength / 4);
  return new Float32Array(blob.buffer.slice(blob.byteOffset, blob.byteOffset + blob.byteLength));
}

module.exports = { load, loadablePath, libraryName, serializeFloat32, deserializeFloat32 };
