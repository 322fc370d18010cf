// The scenes that the cube was made of: which one to show, and what is said where none can be.

import { $ } from "./dom.js";

const EVERY_MS = 250; // pause of a moving map before its scenes are asked for

export class Input {
  /** possible, why: what the server says of all scenes; labels: of the layer of scenes; changed is called when another
   * scene is to be shown. */
  constructor({ possible, why }, labels, changed) {
    this.changed = changed;
    this.labels = labels;
    this.never = possible ? null : sentence(why);
    this.refused = new Map(); // by period: why none of its scenes can be shown
    this.described = new Map(); // by period and number: the server's answer, or why there is none
    this.wanted = null; // a scene's number; null for the one that most of the left side is made of
    this.shown = null; // the scene on the left side
    this.listed = [];
    this.asked = 0;
    $("scene").addEventListener("change", () => this.choose($("scene").value === "" ? null : Number($("scene").value)));
  }

  /** Why no scene of a period can be shown; null if it can be tried. */
  why(period) {
    return this.never ?? this.refused.get(period) ?? null;
  }

  choose(number) {
    this.wanted = number;
    this.changed();
  }

  /** Look up what to show of a view a moment later, if nothing else is asked for by then. */
  follow(period, bounds) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.look(period, bounds), EVERY_MS);
  }

  /** Look up which scenes a view shows, and the one to draw. */
  async look(period, [west, south, east, north]) {
    const number = ++this.asked;
    const places = `scenes/${encodeURIComponent(period)}`;
    const found = await ask(`${places}?${new URLSearchParams({ west, south, east, north })}`);
    if (number !== this.asked) return;
    this.listed = found.answer ?? [];
    const chosen = this.wanted ?? this.listed[0]?.number;
    let [scene, why] = [null, found.why ?? null];
    if (chosen !== undefined) {
      const key = `${period}/${chosen}`;
      if (!this.described.has(key)) this.described.set(key, await ask(`${places}/${chosen}.json`));
      if (number !== this.asked) return;
      const told = this.described.get(key);
      [scene, why] = [told.answer ?? null, told.why ?? null];
      if (told.status === 502) this.refused.set(period, sentence(told.why));
      if (why !== null) this.described.delete(key); // perhaps only for now
    }
    this.list();
    this.said = why === null ? null : sentence(why);
    const before = this.shown && `${this.shown.period}/${this.shown.number}`;
    this.shown = scene && { ...scene, period };
    if (scene === null || before !== `${period}/${scene.number}` || why !== null) this.changed();
  }

  name(number) {
    const label = this.labels.find(one => one.value === number);
    return label ? nameOf({ day: label.day, id: label.name }) : `Scene ${number}`;
  }

  list() {
    const most = this.listed[0];
    const known = this.listed.some(one => one.number === this.wanted);
    $("scene").replaceChildren(
      new Option(most ? `Automatic: ${percent(most.share)} of this side` : "Automatic", ""),
      ...this.listed.map(one => new Option(`${nameOf(one)}, ${percent(one.share)}`, one.number)),
      ...(this.wanted === null || known ? [] : [new Option(`${this.name(this.wanted)}, out of view`, this.wanted)]),
    );
    $("scene").value = this.wanted === null ? "" : String(this.wanted);
  }
}

/** "10 Jul 2023, 32TMT" */
export function nameOf({ day, tile, id }) {
  if (!day) return id;
  return [
    new Date(day).toLocaleDateString("en-GB", { timeZone: "UTC", dateStyle: "medium" }),
    ...(tile ? [tile] : []),
  ].join(", ");
}

async function ask(path) {
  try {
    const answer = await fetch(path);
    if (answer.ok) return { answer: await answer.json() };
    return { status: answer.status, why: (await answer.text()).trim() };
  } catch {
    return { why: "the server no longer answers; start difffusr view again" };
  }
}

function percent(share) {
  const whole = Math.round(share * 100);
  return whole < 1 ? "< 1 %" : `${whole} %`;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
