"use strict";
// Adds to a page that is whole without it: columns that sort, and values that show on the curves.
(() => {
  const collator = new Intl.Collator("en", { numeric: true });

  // The value of a cell, or null where there is none: those stay last, whichever way a column sorts.
  function valueOf(row, column, kind) {
    const cell = row.cells[column];
    if (kind === "number") return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "" || text === "-" ? null : text;
  }

  function sort(head, kind) {
    const heads = [...head.parentElement.cells];
    const body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const rows = [...body.rows].map((row) => [valueOf(row, heads.indexOf(head), kind), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "number" ? a - b : collator.compare(a, b));
    });
    body.append(...rows.map(([, row]) => row));
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  }

  for (const head of document.querySelectorAll("th[data-sort]")) {
    if (head.closest("table").tBodies[0].rows.length < 2) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(head, head.dataset.sort));
    head.append(button);
  }

  // How far from a mark, in pixels of the screen, a pointer still means it.
  const NEAR = 28;

  function showValues(svg) {
    const figure = svg.closest("figure");
    const marks = [...svg.querySelectorAll(".point")];
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true"); // a mark's name says the same
    figure.append(tip);

    function hide() {
      tip.hidden = true;
      for (const one of marks) one.classList.remove("shown");
    }

    function show(mark) {
      if (mark.classList.contains("shown") && !tip.hidden) return;
      hide();
      mark.classList.add("shown");
      tip.replaceChildren(
        ...mark.getAttribute("aria-label").split("; ").map((words) => {
          const line = document.createElement("div");
          line.textContent = words;
          return line;
        }),
      );
      tip.hidden = false;
      const frame = figure.getBoundingClientRect();
      const place = mark.getBoundingClientRect();
      const left = (place.left + place.right) / 2 - frame.left - tip.offsetWidth / 2;
      tip.style.left = `${Math.max(0, Math.min(left, frame.width - tip.offsetWidth))}px`;
      const above = place.top - frame.top - tip.offsetHeight - 6;
      tip.style.top = `${above >= 0 ? above : place.bottom - frame.top + 6}px`;
    }

    function follow(event) {
      let nearest = null;
      let least = NEAR;
      for (const mark of marks) {
        const box = mark.getBoundingClientRect();
        const across = (box.left + box.right) / 2 - event.clientX;
        const up = (box.top + box.bottom) / 2 - event.clientY;
        if (Math.hypot(across, up) < least) [nearest, least] = [mark, Math.hypot(across, up)];
      }
      if (nearest) show(nearest);
      else leave();
    }

    // Without the pointer, what the keyboard stands on is shown.
    function leave() {
      const focused = marks.find((one) => one.matches(":focus-visible"));
      if (focused) show(focused);
      else hide();
    }

    for (const mark of marks) {
      const title = mark.querySelector("title");
      mark.setAttribute("aria-label", title.textContent);
      title.textContent = ""; // else the browser shows it over ours
      mark.addEventListener("focus", () => show(mark));
      mark.addEventListener("blur", hide);
    }
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    // A finger that is lifted leaves its values on the screen until it touches elsewhere.
    svg.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && leave());
    document.addEventListener("pointerdown", (event) => svg.contains(event.target) || hide());
    document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  }

  for (const svg of document.querySelectorAll("figure svg")) showValues(svg);
})();
