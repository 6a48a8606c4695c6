"use strict";
(() => {
  const root = document.documentElement;
  const toggle = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    toggle.setAttribute("aria-pressed", String(isDark()));
  };
  const remember = (theme) => {
    try {
      if (theme) localStorage.setItem("edgekit-theme", theme);
      return localStorage.getItem("edgekit-theme");
    } catch {
      return null; // a page opened from a file may have no storage
    }
  };
  const stored = remember();
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();

  // Sort by data-sort where a cell has it, otherwise by the quantity or the text of the cell; cells without a figure
  // always come last.
  const collator = new Intl.Collator("en", { numeric: true });
  const units = { "%": 0.01, ns: 1e-6, us: 1e-3, s: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 };
  const value = (row, column, numeric) => {
    const cell = row.cells[column];
    if (cell === undefined || cell.dataset.sort === "") return null;
    if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
    const text = cell.textContent.trim();
    if (!numeric) return text;
    const match = text.match(/^([+-]?[\d,]+(?:\.\d+)?(?:e[+-]\d+)?) ?(%|[A-Za-z]*)(?: \(|$)/);
    return match && Number(match[1].replaceAll(",", "")) * (units[match[2]] ?? 1);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
  const sort = (table, heading) => {
    const column = heading.cellIndex;
    const numeric = heading.classList.contains("n");
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column, numeric), row]);
    const full = rows.filter(([key]) => key !== null);
    const empty = rows.filter(([key]) => key === null);
    full.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
    table.tBodies[0].append(...[...full, ...empty].map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.figures")) {
    for (const heading of table.tHead.rows[0].cells) {
      heading.querySelector("button").addEventListener("click", () => sort(table, heading));
    }
  }

  // One filter for all tables, charts and evidence; an element without a property passes the filter on it.
  const form = document.getElementById("filter");
  const search = document.getElementById("search");
  const selects = [...form.querySelectorAll("select")];
  const shown = document.getElementById("shown");
  // "lite-interpreter:int8-tuned" -> ["lite-interpreter", "int8"]
  const parts = (variant) => {
    const [target, name] = variant.split(":");
    return [target, name.split("-")[0]];
  };
  const nameOf = ([model, variant]) => `${model.textContent.trim()} ${variant.textContent.trim()}`;
  const evidenceOf = new Map();
  for (const item of document.querySelectorAll("details.evidence")) {
    const [name, verdict] = item.querySelector("summary").children;
    const [target, precision] = parts(name.lastElementChild.textContent);
    const model = name.firstChild.textContent.trim();
    Object.assign(item.dataset, { model, target, precision, verdict: verdict.textContent });
    evidenceOf.set(name.textContent, item);
  }
  for (const row of document.querySelectorAll("table.figures tbody tr")) {
    const [target, precision] = parts(row.cells[1].textContent.trim());
    Object.assign(row.dataset, { model: row.cells[0].textContent.trim(), target, precision });
    const evidence = evidenceOf.get(nameOf(row.cells));
    if (evidence === undefined) continue;
    row.dataset.verdict = evidence.dataset.verdict;
    if (row.cells[1].querySelector("a") === null) {
      const link = document.createElement("a");
      link.href = `#${evidence.id}`;
      link.append(...row.cells[1].childNodes);
      row.cells[1].append(link);
    }
  }
  const filtered = [...document.querySelectorAll("main [data-model], table.figures tbody tr")];
  const counted = document.querySelectorAll("#t-artifacts tbody tr, #t-changes tbody tr");
  const matches = (element) => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const searchable = element.matches(".figures tr, details"); // charts and the overview are about whole models
    const text = searchable ? element.textContent.toLowerCase() : "";
    const has = ({ value, dataset }) =>
      !value || element.dataset[dataset.by] === undefined || element.dataset[dataset.by] === value;
    return selects.every(has) && (!searchable || words.every((word) => text.includes(word)));
  };
  const filter = () => {
    for (const element of filtered) element.hidden = !matches(element);
    const visible = [...counted].filter((row) => !row.hidden).length;
    shown.textContent = visible === counted.length ? "" : `${visible} of ${counted.length} rows`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  // A link to an entry of the evidence opens it; in print all entries are open.
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1)); // ids need no decoding
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
      target.querySelector("summary").focus({ preventScroll: true });
    }
  };
  window.addEventListener("hashchange", open);
  open();
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const item of closed) item.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const item of closed) item.open = false;
  });
})();
