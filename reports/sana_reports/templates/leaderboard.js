(() => {
  // A header's button sorts its table; groups keep their place, and values that do not exist come last.
  function value(row, column) {
    const text = row.cells[column].dataset.value;
    return text === undefined || text === "" ? null : column === 0 ? text : Number(text);
  }

  function compare(left, right, sign) {
    if (left === null || right === null) return (left === null) - (right === null);
    return sign * (typeof left === "string" ? left.localeCompare(right, "en") : left - right);
  }

  function sort(header) {
    const table = header.closest("table");
    const first = header.dataset.first;
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = header.getAttribute("aria-sort") === first ? other : first;
    const sign = direction === "ascending" ? 1 : -1;
    for (const cell of header.parentElement.cells) {
      if (cell.dataset.first) cell.setAttribute("aria-sort", cell === header ? direction : "none");
    }
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => row.cells.length > 1);
      rows.sort((left, right) => compare(value(left, header.cellIndex), value(right, header.cellIndex), sign));
      body.append(...rows);
    }
  }

  document.addEventListener("click", (event) => {
    const header = event.target.closest("button.sort")?.closest("th");
    if (header) sort(header);
  });

  // What the form asks for stays on the page; ranks are those of the whole table.
  const form = document.getElementById("controls");

  function select() {
    const [words, wanted] = [form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean), new FormData(form)];
    const fits = (node, name) => !wanted.get(name) || node.dataset[name] === wanted.get(name);
    const named = (row) => words.every((word) => row.cells[0].textContent.toLowerCase().includes(word));
    const rows = document.querySelectorAll(".board tbody tr[data-kind]");
    let [shown, tables] = [0, 0];
    for (const row of rows) {
      const section = row.closest(".ranking");
      row.hidden = !(fits(section, "tier") && fits(section, "benchmark") && fits(row, "kind") && named(row));
      shown += row.hidden ? 0 : 1;
    }
    for (const body of document.querySelectorAll(".board tbody")) body.hidden = !body.querySelector("tr[data-kind]:not([hidden])");
    for (const section of document.querySelectorAll(".ranking")) {
      section.hidden = !section.querySelector(".board tbody:not([hidden])");
      tables += section.hidden ? 0 : 1;
    }
    document.getElementById("count").textContent = shown === rows.length ? ""
      : `${shown} of ${rows.length} rows, ${tables} of ${document.querySelectorAll(".ranking").length} rankings`;
    page.remember(form);
  }

  function followAddress() {
    if ([...page.view()].length) page.choose(form, page.view());
    select();
  }

  if (form) {
    form.addEventListener("input", select);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(select, 0));
    addEventListener("hashchange", followAddress);
    followAddress();
  }
})();
