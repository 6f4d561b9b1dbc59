"use strict";
// Replaces what the page shows with what the host sends. Without this script the page reloads itself now and then.
(() => {
  const content = document.getElementById("content");
  const live = document.getElementById("live");
  if (!content || !window.EventSource) return;

  // While a button is pressed it stays where it is, or the click would be lost.
  let pressed = false;
  let kept = null;
  content.addEventListener("pointerdown", () => { pressed = true; });
  const released = () => setTimeout(() => {
    pressed = false;
    if (kept !== null) show(kept);
  });
  addEventListener("pointerup", released);
  addEventListener("pointercancel", released);

  // Changes what is different and nothing else: what somebody has selected, or listens to, stays.
  const change = (old, now) => {
    if (old.isEqualNode(now)) return;
    const before = [...old.childNodes];
    const after = [...now.childNodes];
    if (before.length === after.length && before.length > 0 && old.cloneNode().isEqualNode(now.cloneNode())) {
      before.forEach((child, index) => change(child, after[index]));
    } else if (old === content) {
      content.replaceChildren(...after);
    } else {
      old.replaceWith(now);
    }
  };

  const show = (html) => {
    kept = pressed ? html : null;
    if (pressed) return;
    const focused = document.activeElement && content.contains(document.activeElement) ? document.activeElement.id : "";
    const now = content.cloneNode();
    now.innerHTML = html;
    change(content, now);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const source = new EventSource("/page/events");
  source.addEventListener("content", (event) => show(event.data));
  source.addEventListener("bye", () => location.reload());
  source.onopen = () => { live.textContent = ""; };
  source.onerror = () => { live.textContent = "The host does not answer; what is shown may be old."; };
})();
