// Small helpers of the page.

/** The element with an id. */
export const $ = id => document.getElementById(id);

/** A new element with properties and children. */
export function element(name, properties = {}, children = []) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A number rounded to thousandths. */
export function round(value) {
  return Math.round(value * 1000) / 1000;
}

/** A number as text: with this many decimals, else with up to three. */
export function said(value, digits) {
  if (value === null || value === undefined) return "–";
  return (digits === undefined ? String(round(value)) : value.toFixed(digits)).replace("-", "−");
}
