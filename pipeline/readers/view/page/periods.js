// Names of periods.

const MONTH = { month: "long", year: "numeric" };

/** "June 2023", "June – August 2023", "2023", else both days, or the one day. */
export function nameOf({ start, end }) {
  if (start === end) return written(start, { dateStyle: "medium" });
  const next = new Date(Date.parse(end) + 24 * 3600e3).toISOString();
  if (!(start.endsWith("-01") && next.slice(8, 10) === "01")) {
    return `${written(start, { dateStyle: "medium" })} – ${written(end, { dateStyle: "medium" })}`;
  }
  if (start.slice(0, 7) === end.slice(0, 7)) return written(start, MONTH);
  if (start.slice(0, 4) !== end.slice(0, 4)) return `${written(start, MONTH)} – ${written(end, MONTH)}`;
  if (start.endsWith("-01-01") && end.endsWith("-12-31")) return start.slice(0, 4);
  return `${written(start, { month: "long" })} – ${written(end, MONTH)}`;
}

function written(day, options) {
  return new Date(day).toLocaleDateString("en-GB", { timeZone: "UTC", ...options });
}
