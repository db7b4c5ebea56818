/** Finds the elements index.html promises, and writes text only where it changed. */

/** The element with this id; a missing one is a mistake in index.html. */
export function element<T extends Element = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with the id ${id}`);
  return found as unknown as T;
}

/** Sets text if it differs: an unchanged live region must not be read out again. */
export function write(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** A new element with a class and text. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", text = ""): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
