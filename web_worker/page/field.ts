/** The field of drops: one for each replica at work, yours in its own colour. An ornament that counts. */

import { make } from "./elements.js";

/** More would be a texture, not a number; the figure beside it says how many there are. */
export const MOST_DROPS = 72;

/** Steps of the R2 sequence (Roberts 2018): however many drops there are, they spread evenly. */
const STEP_X = 0.7548776662;
const STEP_Y = 0.5698402910;

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

/** Where drop `index` hangs, across and down, each in [0, 1). The first, which is yours, hangs in the middle. */
export function place(index: number): { readonly across: number; readonly down: number } {
  return { across: (0.5 + index * STEP_X) % 1, down: (0.5 + index * STEP_Y) % 1 };
}

function drop(index: number): HTMLElement {
  const made = make("i");
  const { across, down } = place(index);
  made.style.setProperty("--across", across.toFixed(4));
  made.style.setProperty("--down", down.toFixed(4));
  return made;
}
