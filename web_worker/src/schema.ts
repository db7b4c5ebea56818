// Checks JSON against a shape and gives it a type. Knows nothing of what the shapes mean.

/** Reads `value` as a T, or throws an Error that names `path`. */
export type Reader<T> = (value: unknown, path: string) => T;

/** The type that a reader returns. */
export type Read<R> = R extends Reader<infer T> ? T : never;

function expected(what: string, value: unknown, path: string): Error {
  const got = value === undefined ? "nothing" : JSON.stringify(value);
  return new Error(`${path || "it"} is ${what}, got ${got.length > 60 ? `${got.slice(0, 60)}...` : got}`);
}

/** A string, optionally of at most `longest` characters and matching `pattern`. */
export function text(options: { longest?: number; pattern?: RegExp } = {}): Reader<string> {
  const { longest = Infinity, pattern } = options;
  return (value, path) => {
    if (typeof value !== "string") throw expected("a string", value, path);
    // Code points are counted, as Python does: a length in UTF-16 units would refuse what the gateway accepts.
    if ([...value].length > longest) throw expected(`at most ${longest} characters`, value, path);
    if (pattern && !pattern.test(value)) throw expected(`a string like ${pattern.source}`, value, path);
    return value;
  };
}

/** An integer between `least` and `most`; by default any that a JavaScript number holds exactly. */
export function integer(least = Number.MIN_SAFE_INTEGER, most = Number.MAX_SAFE_INTEGER): Reader<number> {
  return (value, path) => {
    if (typeof value !== "number" || !Number.isInteger(value)) throw expected("an integer", value, path);
    if (value < least || value > most) throw expected(`between ${least} and ${most}`, value, path);
    return value;
  };
}

/** Any JSON number. */
export const number: Reader<number> = (value, path) => {
  if (typeof value !== "number") throw expected("a number", value, path);
  return value;
};

/** Any JSON value, null among them. */
export const anything: Reader<unknown> = (value, path) => {
  if (value === undefined) throw expected("a value", value, path);
  return value;
};

/** One of a few strings. */
export function oneOf<const T extends string>(...allowed: T[]): Reader<T> {
  return (value, path) => {
    const found = allowed.find((candidate) => candidate === value);
    if (found === undefined) throw expected(`one of ${allowed.join(", ")}`, value, path);
    return found;
  };
}

/** What `reader` reads, or null. A missing field is not null. */
export function nullable<T>(reader: Reader<T>): Reader<T | null> {
  return (value, path) => (value === null ? null : reader(value, path));
}

/** What `reader` reads, or `fallback` when the field is missing. */
export function optional<T>(reader: Reader<T>, fallback: T): Reader<T> {
  return (value, path) => (value === undefined ? fallback : reader(value, path));
}

/** A list of what `reader` reads, of at most `longest` items. */
export function list<T>(reader: Reader<T>, longest = Infinity): Reader<T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw expected("a list", value, path);
    if (value.length > longest) throw new Error(`${path} has at most ${longest} items, got ${value.length}`);
    return value.map((item: unknown, index) => reader(item, `${path}[${index}]`));
  };
}

/** An object with at least these fields; unknown ones are ignored. */
export function object<F extends Record<string, Reader<unknown>>>(fields: F): Reader<{ [K in keyof F]: Read<F[K]> }> {
  const readers = Object.entries(fields);
  return (value, path) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw expected("an object", value, path);
    const source = value as Record<string, unknown>;
    const entries = readers.map(([name, reader]) => {
      const field = Object.hasOwn(source, name) ? source[name] : undefined;
      return [name, reader(field, path ? `${path}.${name}` : name)] as const;
    });
    return Object.fromEntries(entries) as { [K in keyof F]: Read<F[K]> };
  };
}
