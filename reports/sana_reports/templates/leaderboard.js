"use strict";
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
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
