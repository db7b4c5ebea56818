// Picks where to compute. A GPU that is imitated in software is slower than WebAssembly, so only real ones count.

import type { Device } from "@jax-js/jax";

export type Backend = "auto" | "wasm" | "webgpu" | "webgl";

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|warp/i;

/** What a browser says of a GPU; older ones put `isFallbackAdapter` on the adapter. */
export interface AdapterDescription {
  readonly isFallbackAdapter?: boolean;
  readonly vendor?: string;
  readonly architecture?: string;
  readonly device?: string;
  readonly description?: string;
}

/** Whether a GPU of this name is imitated in software. */
export function isSoftware(name: string): boolean {
  return SOFTWARE.test(name);
}

/** Whether this adapter is hardware. */
export function isRealGpu(adapter: AdapterDescription): boolean {
  const { vendor = "", architecture = "", device = "", description = "" } = adapter;
  return adapter.isFallbackAdapter !== true && !isSoftware([vendor, architecture, device, description].join(" "));
}

interface Adapter { readonly isFallbackAdapter?: boolean; readonly info?: AdapterDescription }
interface Gpu { requestAdapter(options: { powerPreference: string }): Promise<Adapter | null> }

/** The GPU that WebGPU would use; null where there is none. */
export async function describeAdapter(): Promise<AdapterDescription | null> {
  const { gpu } = navigator as Navigator & { readonly gpu?: Gpu };
  try {
    const adapter = (await gpu?.requestAdapter({ powerPreference: "high-performance" })) ?? null;
    if (!adapter) return null;
    const { vendor = "", architecture = "", device = "", description = "", isFallbackAdapter = false } = adapter.info ?? {};
    return { vendor, architecture, device, description, isFallbackAdapter: adapter.isFallbackAdapter ?? isFallbackAdapter };
  } catch {
    // A browser may have the interface and yet refuse: then it has no GPU for us.
    return null;
  }
}

async function hasRealGpu(): Promise<boolean> {
  const adapter = await describeAdapter();
  return adapter !== null && isRealGpu(adapter);
}

/** The device for `backend`; what a person asks for by name is not second-guessed. */
export async function chooseDevice(backend: Backend): Promise<Device> {
  if (backend !== "auto") return backend;
  return (await hasRealGpu()) ? "webgpu" : "wasm";
}
