// Tables are sorted by a click on a head, or by the keyboard. Without script they stay as they are.
"use strict";
(() => {
  const key = (row, column) => {
    const cell = row.cells[column];
    if ("v" in cell.dataset) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    return cell.textContent.trim();
  };

  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true });

  const sort = (table, column, down) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    const known = rows.filter(([value]) => value !== null);
    const unknown = rows.filter(([value]) => value === null); // last, whichever the direction
    known.sort(([one], [other]) => (down ? compare(other, one) : compare(one, other)));
    body.append(...[...known, ...unknown].map(([, row]) => row));
  };

  const prepare = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const numbers = head.classList.contains("number");
        const down = now ? now === "ascending" : numbers; // the largest number comes first
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  };

  document.querySelectorAll("table.sortable").forEach(prepare);
})();
