"use strict";
(() => {
  document.documentElement.classList.add("js");
  const recordings = [...document.querySelectorAll(".recording")];
  const select = document.getElementById("recording");

  function show(number) {
    recordings.forEach((r, i) => { r.hidden = i !== number; });
    select.value = String(number);
  }
  if (select) {
    select.addEventListener("change", () => show(Number(select.value)));
    document.querySelectorAll("[data-move]").forEach((button) => button.addEventListener("click", () => {
      const next = Number(select.value) + Number(button.dataset.move);
      show((next + recordings.length) % recordings.length);
    }));
    document.querySelectorAll("[data-toggle]").forEach((box) => box.addEventListener("change", () => {
      document.getElementById("recordings").classList.toggle(box.dataset.toggle.replace("s-", "show-"), box.checked);
    }));
    show(0);
  }

  const format = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "\u2212");

  // Reads the values under the pointer off the drawn lines; the numbers in a path are the data.
  function points(path) {
    const out = [];
    let x = 0, y = 0;
    for (const [, letter, body] of path.getAttribute("d").matchAll(/([Ml])([^Ml]*)/g)) {
      const numbers = (body.match(/-?\d+/g) || []).map(Number);
      for (let i = 0; i + 1 < numbers.length; i += 2) {
        if (letter === "M") { x = numbers[i]; y = numbers[i + 1]; } else { x += numbers[i]; y += numbers[i + 1]; }
        out.push([x, y]);
      }
    }
    return out;
  }

  document.querySelectorAll("svg[data-x]").forEach((svg) => {
    const canvas = svg.parentElement;
    const [x0, x1] = svg.dataset.x.split(" ").map(Number), [y0, y1] = svg.dataset.y.split(" ").map(Number);
    let lines = null, mark = null;
    const leave = () => { if (mark) { mark.remove(); mark = null; } };
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("pointermove", (event) => {
      lines = lines || [...svg.querySelectorAll("[data-label]")].map((g) => [g, points(g.firstElementChild)]);
      const box = svg.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
      if (share < 0 || share > 1) { leave(); return; }
      const at = share * 2000;
      const rows = lines.filter(([g, p]) => p.length && getComputedStyle(g).display !== "none").map(([g, p]) => {
        const near = p.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
        const missing = Math.abs(near[0] - at) > 2000 / 20;
        return `${g.dataset.label}: ${missing ? "–" : format(y1 - near[1] / 1000 * (y1 - y0))}`;
      });
      if (!mark) {
        mark = document.createElement("div");
        mark.className = "reading";
        mark.append(document.createElement("span"));
        canvas.append(mark);
      }
      mark.style.left = `${share * 100}%`;
      mark.classList.toggle("left", share > 0.6);
      mark.firstElementChild.textContent = `${(x0 + share * (x1 - x0)).toFixed(1)} s\n${rows.join("\n")}`;
    });
  });
})();
