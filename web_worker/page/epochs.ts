/** The bar of epochs: a segment for each while they can be told apart, one bar for all beyond. */

import { element, make, write } from "./elements.js";
import { count } from "./format.js";

/** More segments than this are too narrow to see on a phone. */
const MOST_SEGMENTS = 24;

export class Epochs {
  private readonly bar = element("epochs-bar");
  private readonly words = element("epochs-words");

  /** A stream is trained, which has no end to show: `words` instead of a bar. */
  showEndless(words: string): void {
    this.bar.hidden = true;
    write(this.words, words);
  }

  /** `epoch` of `epochs` are done; a fraction is a part of the next. */
  show(epoch: number, epochs: number): void {
    this.bar.hidden = false;
    const segments = epochs <= MOST_SEGMENTS ? epochs : 1;
    while (this.bar.childElementCount > segments) this.bar.lastElementChild?.remove();
    while (this.bar.childElementCount < segments) this.bar.append(make("i"));
    segmentShares(epoch, epochs, segments).forEach((share, index) => {
      (this.bar.children[index] as HTMLElement).style.setProperty("--share", share.toFixed(3));
    });
    this.bar.setAttribute("aria-valuemax", String(epochs));
    this.bar.setAttribute("aria-valuenow", String(Math.min(epoch, epochs)));
    const done = epoch >= epochs ? count(epochs) : epoch.toFixed(1);
    write(this.words, `${done} of ${count(epochs)} ${epochs === 1 ? "epoch" : "epochs"}`);
  }
}

/** How full each of `segments` is, 0 to 1. */
export function segmentShares(epoch: number, epochs: number, segments: number): readonly number[] {
  const done = (epoch / epochs) * segments;
  return Array.from({ length: segments }, (_, index) => Math.min(1, Math.max(0, done - index)));
}
