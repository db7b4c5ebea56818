/** The colours of style.css, for what is drawn on a canvas. Light or dark is decided in the style sheet alone. */

export interface Palette {
  readonly ink: string;
  readonly quiet: string;
  readonly line: string;
  readonly heldOut: string;
  readonly heldOutFill: string;
  readonly train: string;
  readonly progressive: string;
  readonly card: string;
  readonly font: string;
}

export function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const value = (name: string): string => style.getPropertyValue(name).trim();
  return {
    ink: value("--ink"),
    quiet: value("--quiet"),
    line: value("--grid"),
    heldOut: value("--held-out"),
    heldOutFill: value("--held-out-fill"),
    train: value("--train"),
    progressive: value("--progressive"),
    card: value("--card"),
    font: `12px ${value("--sans")}`,
  };
}

/** Calls back when the colours change. */
export function onPaletteChange(changed: () => void): void {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  matchMedia("(prefers-contrast: more)").addEventListener("change", changed);
}
