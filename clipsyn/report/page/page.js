// Tables are sorted by a click on a head, or by the keyboard; images are chosen by who is right.
// Without script both stay as they are.
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

  const fits = (item, wanted, backbones) => {
    const { right: marks, class: truth, dataset } = item.dataset;
    const hits = [...marks.slice(0, backbones)].filter((mark) => mark === "1").length;
    const right = { "": true, none: hits === 0, some: hits > 0 };
    const wrong = { "": true, others: hits === (wanted.right >= backbones ? 0 : 1) };
    return (
      (right[wanted.right] ?? marks[wanted.right] === "1") &&
      (wrong[wanted.wrong] ?? marks[wanted.wrong] === "0") &&
      ["", truth].includes(wanted.class) &&
      ["", dataset].includes(wanted.dataset ?? "")
    );
  };

  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const csv = (items) =>
    [["dataset", "image", "class", "by", "answer", "confidence", "right"]]
      .concat(
        items.flatMap(({ dataset, children }) =>
          [...children[1].children].map((said) => [
            dataset.dataset,
            dataset.image,
            dataset.class,
            ...[...said.querySelectorAll("bdi, b")].map((it) => it.textContent),
            said.querySelector("data")?.value ?? "",
            said.className === "is-right" ? "yes" : "no",
          ]),
        ),
      )
      .map((row) => `${row.map(quoted).join(",")}\r\n`)
      .join("");

  document.querySelectorAll("form.filters").forEach((form) => {
    const items = [...form.nextElementSibling.children];
    const backbones = Number(form.getAttribute("data-backbones")); // form.dataset is a field of it
    const choose = () => {
      const wanted = Object.fromEntries(new FormData(form));
      items.forEach((item) => (item.hidden = !fits(item, wanted, backbones)));
      const shown = items.filter((item) => !item.hidden);
      form.querySelector("[role=status]").textContent = `${shown.length} of ${items.length} images`;
      form.querySelector("a").href = `data:text/csv;charset=utf-8,${encodeURIComponent(csv(shown))}`;
    };
    form.addEventListener("change", choose);
    form.hidden = false;
    choose();
  });
})();
