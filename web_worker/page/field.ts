/** The field of drops: one for each replica at work, yours in its own colour. An ornament that counts. */

import { make, write } from "./elements.js";
import { count } from "./format.js";

/** More would be a texture, not a number; the figure beside it says how many there are. */
export const MOST_DROPS = 72;

/** Steps by the golden ratio spread evenly however many there are. */
const GOLDEN = 0.6180339887;

export class Field {
  private shown = "";
  private readonly words = make("p");

  constructor(private readonly home: HTMLElement) {}

  /** `yours` is how many of `replicas` run in this tab: 0 or 1. */
  show(replicas: number, yours: number): void {
    const drops = Math.min(MOST_DROPS, Math.max(replicas, yours));
    const wanted = `${replicas} ${yours}`;
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.words.remove();
    while (this.home.childElementCount > drops) this.home.lastElementChild?.remove();
    while (this.home.childElementCount < drops) this.home.append(drop(this.home.childElementCount));
    Array.from(this.home.children).forEach((child, index) => child.classList.toggle("yours", index < yours));
    this.words.classList.toggle("label", drops > 0);
    write(this.words, fieldWords(Math.max(replicas, yours), yours));
    this.home.append(this.words);
  }
}

/** What the drops are: a line below them. */
export function fieldWords(replicas: number, yours: number): string {
  if (replicas === 0) return "No one is here yet. Be the first.";
  if (yours === replicas) return "You, alone so far";
  const others = count(replicas - yours);
  if (yours > 0) return `You and ${others} ${replicas - yours === 1 ? "other" : "others"}`;
  return replicas === 1 ? "1 replica at work" : `${others} replicas at work`;
}

/** Where drop `index` hangs, across and down, each in [0, 1). The first, which is yours, hangs in the middle. */
export function place(index: number): { readonly across: number; readonly down: number } {
  return { across: (0.5 + index * GOLDEN) % 1, down: (0.5 + mirrored(index)) % 1 };
}

/** The bits of `index` behind the binary point, in reverse (van der Corput): even too, and in no step with the other. */
function mirrored(index: number): number {
  let [rest, weight, sum] = [index, 0.5, 0];
  while (rest > 0) {
    sum += (rest % 2) * weight;
    rest = Math.floor(rest / 2);
    weight /= 2;
  }
  return sum;
}

function drop(index: number): HTMLElement {
  const made = make("i");
  const { across, down } = place(index);
  made.style.setProperty("--across", across.toFixed(4));
  made.style.setProperty("--down", down.toFixed(4));
  return made;
}
