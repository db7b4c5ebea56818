/** The learning curves: one chart a metric, over time or over gradients. */

import { Chart } from "./chart.js";
import { type Axis, type Curve, longest, panels } from "./curve.js";
import { element } from "./elements.js";
import { onPaletteChange, readPalette } from "./palette.js";
import type { JobStatus } from "./status.js";
import { panelWords } from "./words.js";

export class Curves {
  private readonly home = element("panels");
  private readonly charts = new Map<string, Chart>();
  private palette = readPalette();
  private axis: Axis = "seconds";
  private shown: { readonly curve: Curve; readonly status: JobStatus } | null = null;

  constructor() {
    onPaletteChange(() => {
      this.palette = readPalette();
      for (const chart of this.charts.values()) chart.recolour(this.palette);
    });
    for (const choice of document.querySelectorAll<HTMLInputElement>("input[name=axis]")) {
      choice.addEventListener("change", () => this.turn(choice.value === "version" ? "version" : "seconds"));
    }
  }

  show(curve: Curve, status: JobStatus): void {
    if (this.shown?.curve === curve && this.shown.status.run === status.run) return;
    this.shown = { curve, status };
    this.draw(curve, status);
  }

  private turn(axis: Axis): void {
    this.axis = axis;
    if (this.shown) this.draw(this.shown.curve, this.shown.status);
  }

  private draw(curve: Curve, status: JobStatus): void {
    const wanted = panels(curve, status, this.axis);
    this.arrange(wanted.map((panel) => panel.metric), () => wanted.map((panel) => new Chart(panel, this.palette)));
    for (const panel of wanted) {
      const words = panelWords(panel.metric, panel.lines[0]?.y.at(-1), status);
      this.charts.get(panel.metric)?.show(panel, { kind: this.axis, longest: longest(curve, this.axis) }, words);
    }
  }

  /** Builds the charts anew when there are other metrics than before; which is rare. */
  private arrange(metrics: readonly string[], build: () => readonly Chart[]): void {
    if (metrics.join() === [...this.charts.keys()].join()) return;
    for (const chart of this.charts.values()) chart.destroy();
    this.charts.clear();
    const built = build();
    metrics.forEach((metric, index) => {
      const chart = built[index];
      if (chart) this.charts.set(metric, chart);
    });
    this.home.replaceChildren(...built.map((chart) => chart.root));
  }
}
