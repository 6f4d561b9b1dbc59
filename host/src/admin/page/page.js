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

  const show = (html) => {
    kept = pressed ? html : null;
    if (pressed) return;
    const focused = document.activeElement && content.contains(document.activeElement) ? document.activeElement.id : "";
    content.innerHTML = html;
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };

  const source = new EventSource("/page/events");
  source.addEventListener("content", (event) => show(event.data));
  source.addEventListener("bye", () => location.reload());
  source.onopen = () => { live.textContent = ""; };
  source.onerror = () => { live.textContent = "The host does not answer; what is shown may be old."; };
})();
