// Builds dist/: worker.js (exports Replica), assets/ (what runs in the Web Worker, and the page), check/ (what `crowdlearn check`
// loads), node/ (what runs models that are ES modules for the Python side). `--check` builds only that, `--tests` only the tests
// for node.
import { build } from "esbuild";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

import { patched } from "./patched.mjs";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

const shared = {
  bundle: true, format: "esm", target: "es2022", sourcemap: "linked", logLevel: "warning", metafile: true, plugins: [patched],
};

/** Puts `files` into a folder, each at one moment, and removes others: somebody may be loading them just now. */
async function replace(folder, files) {
  await mkdir(folder, { recursive: true });
  for (const { path, contents } of files) {
    const known = await readFile(path).catch(() => null);
    if (known?.equals(contents)) continue;
    await writeFile(`${path}.${process.pid}`, contents);
    await rename(`${path}.${process.pid}`, path);
  }
  const names = new Set(files.map(({ path }) => basename(path)));
  const old = (await readdir(folder)).filter((name) => !names.has(name) && !/\.\d+$/.test(name));
  await Promise.all(old.map((name) => rm(join(folder, name), { force: true })));
}

/** A bundle of its own: shared chunks would make every replica load one file more. */
async function buildCheck() {
  const { outputFiles } = await build({
    ...shared, sourcemap: false, minify: true, splitting: true, write: false,
    entryPoints: ["src/check.ts"], outdir: "dist/check", chunkNames: "chunk-[hash]",
  });
  await replace("dist/check", outputFiles);
}

if (process.argv.includes("--tests")) {
  const tests = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await rm("dist/test", { recursive: true, force: true });
  await build({ ...shared, entryPoints: tests.map((name) => `test/${name}`), outdir: "dist/test", platform: "node", splitting: true });
} else if (process.argv.includes("--check")) {
  await buildCheck();
} else {
  await rm("dist/assets", { recursive: true, force: true });
  await mkdir("dist/assets", { recursive: true });
  await build({ ...shared, minify: true, entryPoints: { worker: "src/worker.ts" }, outdir: "dist" });
  await build({
    ...shared,
    minify: true,
    splitting: true,
    entryPoints: { "replica-worker": "src/replica-worker.ts", page: "page/main.ts", style: "page/style.css" },
    outdir: "dist/assets",
    chunkNames: "chunk-[hash]",
  });
  // Each in one piece: a sandbox is given the text of its worker, and loads nothing more.
  await build({
    ...shared, sourcemap: false, minify: true, format: "iife",
    entryPoints: { "sandbox-worker": "src/sandbox-worker.ts", "sandbox-frame": "src/sandbox-frame.ts" }, outdir: "dist/assets",
  });
  await build({
    ...shared, sourcemap: false, minify: true, platform: "node",
    entryPoints: { module: "node/main.ts" }, outdir: "dist/node", outExtension: { ".js": ".mjs" },
  });
  await cp("page/index.html", "dist/index.html");
  await buildCheck();
}
