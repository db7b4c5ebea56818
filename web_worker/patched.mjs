// An esbuild plugin that bundles jax-js with the corrections of patches/, whose README says what they mend. Nothing in
// node_modules changes.
import { applyPatch, parsePatch } from "diff";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

const PATCH = new URL("patches/jax-js-0.1.25.patch", import.meta.url);

/** The hunks of a patch by the name of the file that they change. */
async function changesByFile() {
  const changes = parsePatch(await readFile(PATCH, "utf8"));
  return new Map(changes.map((change) => [basename(change.newFileName), change]));
}

/** Throws when a file is not the one that the patch was made for. */
function corrected(source, change, path) {
  const result = applyPatch(source, change);
  if (result !== false) return result;
  throw new Error(`${path} is not the file that ${basename(PATCH.pathname)} corrects: make the patch anew for this version of jax-js`);
}

export const patched = {
  name: "patched",
  setup(build) {
    const ready = changesByFile();
    const missing = new Set();
    build.onStart(async () => {
      missing.clear();
      for (const name of (await ready).keys()) missing.add(name);
    });
    build.onLoad({ filter: /@jax-js[\\/]jax[\\/]dist[\\/][^\\/]*\.js$/ }, async ({ path }) => {
      const change = (await ready).get(basename(path));
      if (!change) return undefined;
      missing.delete(basename(path));
      return { contents: corrected(await readFile(path, "utf8"), change, path), loader: "js" };
    });
    // A version with other file names would go by uncorrected.
    build.onEnd(({ metafile, errors }) => {
      const usesLibrary = Object.keys(metafile?.inputs ?? {}).some((path) => path.includes("@jax-js/jax/dist/"));
      if (errors.length > 0 || !usesLibrary || missing.size === 0) return undefined;
      return { errors: [{ text: `jax-js has no ${[...missing].join(", ")}: make patches/ anew for its version` }] };
    });
  },
};
