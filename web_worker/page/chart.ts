/** One panel: a metric's held-out, progressive and training lines over time, with its target. Owns a canvas and its legend. */

import uPlot from "uplot";
import type { Axis, Line, Panel } from "./curve.js";
import { make, write } from "./elements.js";
import { countTick, isShare, metricTitle, metricValue, percent, targetValue, timeTick, valueTick } from "./format.js";
import type { Palette } from "./palette.js";
import { startRange, TIME_STEPS, valueRange } from "./scale.js";

/** All panels share one cursor. */
const CURSOR_KEY = "curves";
const LINE_NAMES = { held_out: "held-out", progressive: "fresh rows", train: "training" } as const;
/** In the order they are drawn: held-out lies on top. */
const KINDS = ["train", "progressive", "held_out"] as const;
const HELD_OUT = 3;

/** What lies across: the same for all panels, so that they can be compared. */
export interface XAxis {
  readonly kind: Axis;
  /** The x of the newest point of any panel. */
  readonly longest: number;
}

export class Chart {
  readonly root = make("figure", "panel");
  private readonly title = make("h3");
  private readonly legend = make("p", "legend");
  private readonly values = { held_out: make("b"), progressive: make("b"), train: make("b") };
  private readonly frame = make("div", "frame");
  private readonly empty = make("p", "frame-empty");
  private readonly plot: uPlot;
  private panel: Panel;
  private axis: XAxis = { kind: "seconds", longest: 0 };

  constructor(
    panel: Panel,
    private palette: Palette,
  ) {
    this.panel = panel;
    this.frame.setAttribute("role", "img");
    const caption = make("figcaption");
    write(this.title, metricTitle(panel.metric));
    caption.append(this.title, this.legend);
    this.empty.append(make("span", "", "No points yet"));
    this.frame.append(this.empty);
    this.root.append(caption, this.frame);
    this.plot = new uPlot(this.options(), [[], [], [], []], this.frame);
    new ResizeObserver(() => this.fit()).observe(this.frame);
  }

  /** Draws other data; `words` is what a screen reader says of it. */
  show(panel: Panel, axis: XAxis, words: string): void {
    this.panel = panel;
    this.axis = axis;
    const lines = KINDS.map((kind) => panel.lines.find((line) => line.kind === kind) ?? { kind, x: [], y: [] });
    this.empty.hidden = panel.lines.length > 0;
    this.frame.setAttribute("aria-label", words);
    this.showLegend(lines);
    this.plot.setData(aligned(lines));
    this.showValues();
  }

  /** Draws anew in other colours. */
  recolour(palette: Palette): void {
    this.palette = palette;
    this.plot.redraw(false, true);
  }

  destroy(): void {
    this.plot.destroy();
    this.root.remove();
  }

  private fit(): void {
    const { clientWidth: width, clientHeight: height } = this.frame;
    if (width > 0 && height > 0) this.plot.setSize({ width, height });
  }

  private showLegend(lines: readonly Line[]): void {
    const shown = lines.filter((line) => line.x.length > 0).map((line) => line.kind).reverse();
    const wanted = [...shown, this.panel.target].join(" ");
    if (this.legend.dataset.shown === wanted) return;
    this.legend.dataset.shown = wanted;
    const entries = shown.map((kind) => legendEntry(kind, LINE_NAMES[kind], this.values[kind]));
    if (this.panel.target !== null) {
      entries.push(legendEntry("target", "target", make("b", "", targetValue(this.panel.metric, this.panel.target))));
    }
    this.legend.replaceChildren(...entries);
  }

  /** The values under the cursor, or the newest. */
  private showValues(): void {
    KINDS.forEach((kind, index) => {
      const line = this.panel.lines.find((candidate) => candidate.kind === kind);
      const hovered = this.plot.cursor.idxs?.[index + 1];
      const value = hovered == null ? line?.y.at(-1) : this.plot.data[index + 1]?.[hovered];
      write(this.values[kind], value == null ? "" : metricValue(this.panel.metric, value));
    });
  }

  private options(): uPlot.Options {
    const grid: uPlot.Axis.Grid = { stroke: () => this.palette.line, width: 1 };
    const axis: uPlot.Axis = { stroke: () => this.palette.quiet, font: this.palette.font, grid, ticks: { show: false } };
    return {
      width: this.frame.clientWidth || 320,
      height: this.frame.clientHeight || 200,
      padding: [12, 14, 0, 0],
      legend: { show: false },
      cursor: {
        y: false,
        drag: { x: false, y: false },
        sync: { key: CURSOR_KEY, scales: ["x", null] },
        hover: { skip: [null, undefined] },
        points: { size: 8, width: 2, fill: () => this.palette.card },
      },
      scales: {
        x: { time: false, range: () => [...startRange(this.axis.longest, this.axis.kind === "seconds" ? 10 : 20)] },
        y: { range: (plot) => [...valueRange(this.panel.metric, extent(plot), this.panel.target)] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          ticks: { stroke: () => this.palette.quiet, width: 1, size: 5 },
          size: 32,
          gap: 4,
          space: 64,
          incrs: () => (this.axis.kind === "seconds" ? [...TIME_STEPS] : COUNT_STEPS),
          values: (plot, ticks, _, __, step) => ticks.map((tick) => this.xTick(tick, step, plot.scales.x?.max ?? tick)),
        },
        { ...axis, size: 52, gap: 8, space: 30, values: (_, ticks, __, ___, step) => ticks.map((tick) => this.yTick(tick, step)) },
      ],
      series: [
        {},
        { stroke: () => this.palette.train, width: 1.25, spanGaps: true, points: { show: false } },
        { stroke: () => this.palette.progressive, width: 1.75, spanGaps: true, points: { show: false } },
        {
          stroke: () => this.palette.heldOut,
          width: 2.25,
          fill: (plot) => this.fill(plot),
          spanGaps: true,
          points: {
            size: 7,
            width: 2,
            space: 48,
            fill: () => this.palette.card,
            // Where points would crowd the line, only the newest is marked.
            filter: (plot, _, show) => (show ? null : newest(plot.data[HELD_OUT])),
          },
        },
      ],
      hooks: { drawAxes: [(plot) => this.drawTarget(plot)], setCursor: [() => this.showValues()] },
    };
  }

  private xTick(tick: number, step: number, longest: number): string {
    return this.axis.kind === "seconds" ? timeTick(tick, step, longest) : countTick(tick);
  }

  private yTick(tick: number, step: number): string {
    if (isShare(this.panel.metric)) return step < 0.01 ? percent(tick) : `${Math.round(tick * 100)} %`;
    return valueTick(tick, step);
  }

  private fill(plot: uPlot): CanvasGradient | string {
    const { top, height } = plot.bbox;
    // Under a share the area means something: what has been reached of all there is.
    if (!isShare(this.panel.metric) || !Number.isFinite(top + height) || height <= 0) return "transparent";
    const gradient = plot.ctx.createLinearGradient(0, top, 0, top + height);
    gradient.addColorStop(0, this.palette.heldOutFill);
    gradient.addColorStop(1, "transparent");
    return gradient;
  }

  private drawTarget(plot: uPlot): void {
    if (this.panel.target === null) return;
    const { ctx, bbox } = plot;
    // Half a pixel: a line on the boundary of two pixel rows is blurred over both.
    const y = Math.round(plot.valToPos(this.panel.target, "y", true)) + 0.5;
    ctx.save();
    ctx.strokeStyle = this.palette.ink;
    ctx.globalAlpha = 0.75;
    ctx.lineWidth = uPlot.pxRatio;
    ctx.setLineDash([5 * uPlot.pxRatio, 4 * uPlot.pxRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }
}

const COUNT_STEPS = [1, 2, 5].flatMap((step) => Array.from({ length: 12 }, (_, power) => step * 10 ** power)).sort((a, b) => a - b);

/** Lowest and highest of what all lines hold; null without points. */
function extent(plot: uPlot): readonly [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (const values of plot.data.slice(1)) {
    for (const value of values ?? []) {
      if (value == null) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}

/** The index of a line's last point, as a list; null without one. */
function newest(values: ArrayLike<number | null | undefined> | undefined): number[] | null {
  for (let index = (values?.length ?? 0) - 1; index >= 0; index -= 1) if (values?.[index] != null) return [index];
  return null;
}

/** uPlot wants one x for all lines: the union of theirs, with nulls where a line has no point. */
function aligned(lines: readonly Line[]): uPlot.AlignedData {
  return uPlot.join(lines.map((line) => [[...line.x], [...line.y]]));
}

function legendEntry(kind: string, name: string, value: HTMLElement): HTMLElement {
  const entry = make("span", `legend-entry ${kind}`);
  entry.append(make("i"), name, " ", value);
  return entry;
}
