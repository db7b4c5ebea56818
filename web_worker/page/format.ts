/** Numbers as people read them. Pure; the locale is fixed so that the page reads the same as the docs. */

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 79,510 */
export function count(value: number): string {
  return whole.format(value);
}

/** 96.1 below a hundred, whole above. */
export function rate(value: number): string {
  if (value === 0) return "0";
  return value < 99.95 ? value.toFixed(value < 9.995 && value > 0 ? 2 : 1) : whole.format(value);
}

/** Whether a metric is a share that reads best as a percentage. */
export function isShare(metric: string): boolean {
  return /accuracy|error_rate|hit_rate/.test(metric);
}

/** A metric's value: shares as per cent, others with three significant digits or so. */
export function metricValue(metric: string, value: number): string {
  return isShare(metric) ? percent(value) : real(value);
}

/** 92.9 % (with a no-break space): rounded down, so that 92.96 does not read as if it had reached 93. */
export function percent(share: number): string {
  const tenths = Math.floor(share * 1000 + 1e-6) / 10;
  return `${tenths.toFixed(1)}\u00a0%`;
}

/** A target's value as its author wrote it: 93 %, 0.35. */
export function targetValue(metric: string, value: number): string {
  return isShare(metric) ? `${Number((value * 100).toPrecision(6))}\u00a0%` : String(value);
}

/** 0.412, 12.3, 1,204, 3.2e-5 */
export function real(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6 || (size !== 0 && size < 0.001)) return value.toExponential(1);
  if (size < 10) return value.toFixed(3);
  return size < 1000 ? value.toFixed(1) : whole.format(value);
}

/** 79.9 KB; decimal units, as networks count. */
export function bytes(value: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let index = 0;
  let size = value;
  while (size >= 999.5 && index < units.length - 1) {
    size /= 1000;
    index += 1;
  }
  return `${index > 0 && size < 99.95 ? size.toFixed(1) : size.toFixed(0)} ${units[index]}`;
}

/** 80 KB: two digits are enough to decide by. */
export function roughBytes(value: number): string {
  return bytes(Number(value.toPrecision(2))).replace(".0", "");
}

/** 8 s, 1 min 24 s, 2 h 5 min */
export function duration(seconds: number): string {
  const all = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  if (hours > 0) return minutes > 0 ? `${hours} h ${minutes} min` : `${hours} h`;
  if (minutes > 0) return rest > 0 ? `${minutes} min ${rest} s` : `${minutes} min`;
  return `${rest} s`;
}

/** A tick of a time axis whose ticks are `step` seconds apart: 20 s, 1:30, 5 min, 1:30 h. */
export function timeTick(seconds: number, step: number, longest: number): string {
  if (seconds === 0) return "0";
  if (longest <= 120) return `${Number(seconds.toFixed(2))} s`;
  const two = (value: number): string => String(value).padStart(2, "0");
  if (longest < 7200) {
    const minutes = Math.floor(seconds / 60);
    return step % 60 === 0 ? `${minutes} min` : `${minutes}:${two(Math.round(seconds % 60))}`;
  }
  const hours = Math.floor(seconds / 3600);
  return step % 3600 === 0 ? `${hours} h` : `${hours}:${two(Math.round((seconds % 3600) / 60))} h`;
}

/** A tick of a count axis: 500, 1.5k, 20k, 3M */
export function countTick(value: number): string {
  if (value < 1000) return whole.format(value);
  return value < 1e6 ? `${Number((value / 1000).toFixed(1))}k` : `${Number((value / 1e6).toFixed(2))}M`;
}

/** A metric's name as a title: `hit_rate` reads Hit rate. */
export function metricTitle(metric: string): string {
  const words = metric.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A value beside an axis, with as many decimals as its step has: 2.0 above 1.5. */
export function valueTick(value: number, step: number): string {
  if (step < 0.001) return real(value);
  const decimals = String(Number(step.toFixed(4))).split(".")[1]?.length ?? 0;
  return value.toFixed(decimals);
}
