// The divider between two sides: dragged, or moved by keys.

/** Make an element the divider of a stage. `moved` is called with its place, 0 at the left edge to 1 at the right. */
export function divider(element, stage, moved) {
  let at = 0.5;

  function place(next) {
    at = Math.min(1, Math.max(0, next));
    element.style.left = `${at * 100}%`;
    element.setAttribute("aria-valuenow", String(Math.round(at * 100)));
    moved(at);
  }

  element.addEventListener("pointerdown", event => {
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
    element.focus();
  });
  element.addEventListener("pointermove", event => {
    if (!element.hasPointerCapture(event.pointerId)) return;
    const { left, width } = stage.getBoundingClientRect();
    place((event.clientX - left) / width);
  });
  element.addEventListener("keydown", event => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const next = {
      ArrowLeft: at - step,
      ArrowDown: at - step,
      ArrowRight: at + step,
      ArrowUp: at + step,
      PageDown: at - 0.1,
      PageUp: at + 0.1,
      Home: 0,
      End: 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    place(next);
  });
  return place;
}
