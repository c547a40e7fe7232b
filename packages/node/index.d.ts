/** A connection that can load extensions: better-sqlite3's Database, node:sqlite's DatabaseSync. */
export interface Connection {
  loadExtension(path: string): unknown;
  enableLoadExtension?(allow: boolean): void;
}

/** Loads the extension into a connection. Loading twice does no harm. */
export function load(db: Connection): void;

/** The path of the library, as loadExtension takes it. SQLITE_ANNOY_PATH names another one. */
export function loadablePath(): string;

/** The name of the library's file on this platform. */
export function libraryName(): string;

/** A vector as a parameter of a statement. Of a Float32Array it is a view, not a copy. */
export function serializeFloat32(vector: Float32Array | Iterable<number>): Buffer;

/** The components of a vector that a statement has given: a view where the bytes lie suitably. */
export function deserializeFloat32(blob: Uint8Array): Float32Array;
