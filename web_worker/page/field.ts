/** The field of drops: one for each replica at work, yours in its own colour. An ornament that counts. */

import { make } from "./elements.js";

/** More would be a texture, not a number; the figure beside it says how many there are. */
export const MOST_DROPS = 72;

/** A prime that has no common divisor with the columns: neighbours in time are far apart in space. */
const STRIDE = 31;

export class Field {
  private shown = "";

  constructor(private readonly home: HTMLElement) {}

  /** `yours` is how many of `replicas` run in this tab: 0 or 1. */
  show(replicas: number, yours: number): void {
    const drops = Math.min(MOST_DROPS, Math.max(replicas, yours));
    const wanted = `${drops} ${yours}`;
    if (wanted === this.shown) return;
    this.shown = wanted;
    while (this.home.childElementCount > drops) this.home.lastElementChild?.remove();
    while (this.home.childElementCount < drops) this.home.append(drop(this.home.childElementCount));
    Array.from(this.home.children).forEach((child, index) => child.classList.toggle("yours", index < yours));
  }
}

/** Where drop `index` hangs: a column, and a height that looks like chance but stays the same. */
export function place(index: number): { readonly column: number; readonly height: number } {
  const column = (index * STRIDE + 35) % MOST_DROPS;
  const height = ((index * 0.618034 + column * 0.37) % 1 + 1) % 1;
  return { column: column / (MOST_DROPS - 1), height };
}

function drop(index: number): HTMLElement {
  const made = make("i");
  const { column, height } = place(index);
  made.style.setProperty("--column", column.toFixed(4));
  made.style.setProperty("--height", height.toFixed(4));
  return made;
}
