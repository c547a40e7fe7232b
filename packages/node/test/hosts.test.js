// Each host in a process of its own, because one process can use the library with one SQLite.
"use strict";
const assert = require("node:assert");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const annoy = require("sqlite-annoy");

const HOSTS = {
  "better-sqlite3": `const Database = require("better-sqlite3"); const open = (path) => new Database(path);`,
  "node:sqlite": `const { DatabaseSync } = require("node:sqlite"); const open = (path) => new DatabaseSync(path, { allowExtension: true });`,
};
const QUESTIONS = `
  const annoy = require("sqlite-annoy");
  const db = open(process.argv[1]);
  annoy.load(db);
  annoy.load(db);
  db.exec("CREATE TABLE items(id INTEGER PRIMARY KEY, v BLOB)");
  const insert = db.prepare("INSERT INTO items(id, v) VALUES (?, ?)");
  for (let i = 0; i < 200; i++) insert.run(i, annoy.serializeFloat32([Math.cos(i), Math.sin(i), i % 3]));
  db.exec("CREATE VIRTUAL TABLE items_index USING annoy(items, v)");
  const query = annoy.serializeFloat32(new Float32Array([Math.cos(7), Math.sin(7), 1]));
  const found = db.prepare("SELECT rowid AS id, distance FROM knn_annoy('items_index', ?, 3)").all(query);
  const { v } = db.prepare("SELECT v FROM items WHERE id = 9").get();
  let message = "";
  try { db.prepare("SELECT * FROM knn_annoy('nowhere', ?, 3)").all(query); } catch (error) { message = error.message; }
  console.log(JSON.stringify({ found, ninth: Array.from(annoy.deserializeFloat32(v)), message }));
  db.close();
`;

function hasHost(name) {
  try {
    require(name);
    return true;
  } catch {
    return false;
  }
}

for (const [name, open] of Object.entries(HOSTS)) {
  const skip = hasHost(name) ? false : `this Node (${process.version}) has no ${name}`;
  test(`${name} loads, fills, searches and tells errors`, { skip }, () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "annoy-"));
    const output = execFileSync(process.execPath, ["-e", open + QUESTIONS, path.join(folder, "a.db")], { encoding: "utf8" });
    const { found, ninth, message } = JSON.parse(output);
    assert.strictEqual(found[0].id, 7);
    assert.ok(Math.abs(found[0].distance) < 1e-6 && found[1].distance >= found[0].distance && found.length === 3);
    assert.deepStrictEqual(ninth, Array.from(Float32Array.of(Math.cos(9), Math.sin(9), 0)));
    assert.match(message, /no such index: nowhere/);
    fs.rmSync(folder, { recursive: true });
  });
}

test("at least one host was there", () => {
  assert.ok(hasHost("better-sqlite3"));
});

test("a Float32Array goes in without a copy, and comes out from any offset", () => {
  const vector = Float32Array.of(1, 2, 3);
  const blob = annoy.serializeFloat32(vector.subarray(1));
  assert.strictEqual(blob.buffer, vector.buffer);
  assert.deepStrictEqual(Array.from(annoy.deserializeFloat32(blob)), [2, 3]);
  const odd = Buffer.concat([Buffer.alloc(1), blob]).subarray(1);
  assert.deepStrictEqual(Array.from(annoy.deserializeFloat32(odd)), [2, 3]);
  assert.throws(() => annoy.deserializeFloat32(Buffer.alloc(5)), /multiple of 4/);
  assert.throws(() => annoy.load({}), /better-sqlite3/);
});

test("a machine without a library is told what to do", () => {
  const code = `Object.defineProperty(process, "arch", { value: "mips" });
    try { require("sqlite-annoy").loadablePath(); } catch (error) { console.log(error.message); }`;
  const env = { ...process.env };
  delete env.SQLITE_ANNOY_PATH;
  assert.match(execFileSync(process.execPath, ["-e", code], { encoding: "utf8", env }), /no library for .*-mips.*cargo build/s);
});
