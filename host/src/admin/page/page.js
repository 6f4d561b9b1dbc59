"use strict";
// Replaces what the page shows with what the host sends. Without this script the page reloads itself now and then.
(() => {
  const content = document.getElementById("content");
  const live = document.getElementById("live");
  if (!content || !window.EventSource) return;

  const show = (html) => {
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
