(() => {
  const PAGE_SIZE = 24;
  const SMALL_IMAGE = 256; // pixels; enlarging smaller images must not blur them
  const SVG = "http://www.w3.org/2000/svg";
  const TASKS = {};
  const METRICS = {};
  const report = JSON.parse(document.getElementById("report-data").textContent);
  const form = document.getElementById("controls");
  const cards = document.getElementById("cards");
  const viewer = document.getElementById("viewer");
  const state = { shown: report.groups, page: 0, open: -1, asked: null };

  // Text enters the page only as text nodes and attribute values, never as markup.
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  function makeSvg(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  for (const option of form.querySelectorAll("select[name=tag] option")) TASKS[option.value] = option.textContent;
  // One of them is the choice of all.
  const tagged = Object.keys(TASKS).length > 2;
  for (const option of form.querySelectorAll("select[name=order] option[value^='low:scores:']")) {
    METRICS[option.value.slice("low:scores:".length)] = option.textContent.replace(/^Lowest (.*) first$/, "$1");
  }
  for (const group of report.groups) {
    const reasons = group.cells.flatMap((cell) => (cell ? [...cell.reasons, cell.given] : []));
    group.text = [group.prompt, group.prompt_id, TASKS[group.tag] ?? group.tag, ...reasons].join("\n").toLowerCase();
  }

  function matchesVerdict(group, wanted) {
    const verdicts = group.cells.map((cell) => (cell ? cell.correct : null));
    const [kind, first, second] = wanted.split(":");
    switch (kind) {
      case "": return true;
      case "all-correct": return verdicts.every((verdict) => verdict === true);
      case "any-wrong": return verdicts.includes(false);
      case "all-wrong": return verdicts.every((verdict) => verdict === false);
      case "missing": return group.cells.some((cell) => !cell || !cell.src || cell.correct === null);
      case "one": return verdicts[first] === (second === "1");
      case "pair": return verdicts[first] === true && verdicts[second] === false;
      default: throw new Error(`unknown verdict filter ${wanted}`);
    }
  }

  function shownColumns() {
    const pair = form.elements.shown?.value;
    return pair ? pair.split(":").map(Number) : report.variants.map((_, column) => column);
  }

  function disagrees(group, columns) {
    const verdicts = columns.map((column) => group.cells[column]?.correct ?? null);
    return verdicts.includes(true) && verdicts.includes(false);
  }

  // Smaller comes first; a sample without the number comes last.
  function orderKey(group, [kind, field, ...name], columns) {
    const values = columns.map((column) => group.cells[column]?.[field][name.join(":")])
      .filter((value) => value !== undefined);
    if (kind === "low") return values.length ? Math.min(...values) : Infinity;
    if (kind === "high") return values.length ? -Math.max(...values) : Infinity;
    return values.length > 1 ? Math.min(...values) - Math.max(...values) : Infinity;
  }

  function largestTenth(groups, change, columns) {
    const keys = new Map(groups.map((group) => [group, orderKey(group, change, columns)]));
    const known = [...keys.values()].filter(Number.isFinite).sort((left, right) => left - right);
    const last = known[Math.ceil(known.length / 10) - 1];
    return groups.filter((group) => keys.get(group) <= last); // ties at the edge all stay
  }

  function select() {
    const choice = new FormData(form);
    const value = (name) => choice.get(name) ?? "";
    const columns = shownColumns();
    const words = value("search").toLowerCase().split(/\s+/).filter(Boolean);
    state.shown = report.groups.filter((group) =>
      (!value("benchmark") || group.benchmark === value("benchmark")) &&
      (!value("tag") || group.tag === value("tag")) &&
      (!value("index") || group.index === Number(value("index"))) &&
      matchesVerdict(group, value("verdict")) &&
      (!choice.has("disagree") || disagrees(group, columns)) &&
      words.every((word) => group.text.includes(word)));
    if (value("change")) state.shown = largestTenth(state.shown, value("change").split(":"), columns);
    const order = value("order") ? value("order").split(":") : null;
    if (order || value("shown")) {
      const keys = new Map(state.shown.map((group) => [group, [
        value("shown") && !disagrees(group, columns) ? 1 : 0, // two variants against each other: flips first
        order ? orderKey(group, order, columns) : 0,
      ]]));
      state.shown.sort((left, right) => {
        const [a, b] = [keys.get(left), keys.get(right)];
        return a[0] - b[0] || (a[1] === b[1] ? 0 : a[1] - b[1]);
      });
    }
    state.page = 0;
    draw();
  }

  function place(group) {
    return [...(form.elements.benchmark ? [group.benchmark] : []), group.prompt_id, group.index].join("/");
  }

  function remember() {
    page.remember(form, () => ({
      variant: state.asked, page: state.page ? state.page + 1 : null, sample: viewer.open ? place(state.shown[state.open]) : null,
    }));
  }

  function minimumScore() {
    const chosen = form.elements.boxes?.value ?? "0";
    return chosen === "none" ? Infinity : Number(chosen);
  }

  function drawBoxes(frame, image, cell, labelled) {
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    if (Math.max(width, height) <= SMALL_IMAGE) image.classList.add("small");
    const visible = cell.detections.filter(([, score]) => score >= minimumScore());
    if (!visible.length) return;
    const overlay = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const [label, score, [x1, y1, x2, y2], color] of visible) {
      for (const layer of ["under", "over"]) {
        overlay.append(makeSvg("rect", {
          class: `box ${layer}`, x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0),
        }));
      }
      if (labelled) {
        // The frame is square and the image centred in it, as object-fit: contain does.
        const side = Math.max(width, height);
        const tag = make("span", { class: y1 < side * 0.07 ? "boxlabel inside" : "boxlabel", "aria-hidden": "true" },
          `${color ? `${color} ` : ""}${label} ${score.toFixed(2)}`);
        const [left, right] = [x1, x2].map((edge) => (100 * (edge + (side - width) / 2)) / side);
        if (left < 55) tag.style.left = `${left}%`;
        else tag.style.right = `${Math.max(100 - right, 0)}%`;
        tag.style.top = `${(100 * (y1 + (side - height) / 2)) / side}%`;
        frame.append(tag);
      }
    }
    image.after(overlay);
  }

  function verdictText(cell) {
    if (cell.correct === null) return null;
    return cell.correct ? "correct" : "wrong";
  }

  function picture(group, cell, variant, labelled, onOpen) {
    if (!cell || !cell.src) {
      return make("div", { class: "frame absent" }, cell ? "Image missing or unreadable" : "No sample");
    }
    const verdict = verdictText(cell);
    const alt = `${variant}, sample ${group.index}: “${group.prompt}”${verdict ? `, ${verdict}` : ""}`;
    // A linked image is fetched when it comes near; an inlined one is here already.
    const image = make("img", { alt, decoding: "async", loading: cell.src.startsWith("data:") ? null : "lazy" });
    const frame = make(onOpen ? "button" : "div", {
      class: `frame${cell.correct === false ? " wrong" : ""}`, type: onOpen ? "button" : null,
      title: onOpen ? "Enlarge and show detections" : null,
    }, image);
    image.addEventListener("load", () => drawBoxes(frame, image, cell, labelled));
    image.addEventListener("error", () => frame.replaceWith(
      make("div", { class: "frame absent" }, "Image missing or unreadable")));
    image.src = cell.src;
    if (onOpen) frame.addEventListener("click", onOpen);
    return frame;
  }

  function caption(cell) {
    const parts = make("figcaption");
    if (!cell) return parts;
    if (cell.given) parts.append(make("p", { class: "scores", dir: "auto" }, `Given to the model: “${cell.given}”`));
    const verdict = verdictText(cell);
    if (verdict) {
      parts.append(make("span", { class: `verdict ${cell.correct ? "right" : "wrong"}` },
        cell.correct ? "✓ correct" : "✗ wrong"));
    }
    if (cell.reasons.length) {
      parts.append(make("ul", { class: "reasons" }, ...cell.reasons.map((reason) => make("li", { dir: "auto" }, reason))));
    }
    for (const [name, reward] of Object.entries(cell.rewards)) {
      parts.append(make("p", { class: "reward" }, "Reward ", make("strong", {}, reward.toFixed(2)),
        make("span", { class: "sr" }, ` by ${METRICS[name] ?? name}`)));
    }
    const scores = Object.entries(cell.scores).filter(([name, score]) => cell.rewards[name] !== score)
      .map(([name, score]) => `${METRICS[name] ?? name} ${score.toFixed(2)}`);
    if (cell.answers.length) {
      const right = cell.answers.filter(([, , score]) => score !== null && score >= 0.5).length;
      scores.push(`${right} of ${cell.answers.length} questions passed`);
    }
    if (scores.length) parts.append(make("p", { class: "scores" }, scores.join(" · ")));
    return parts;
  }

  function side(group, column, { labelled = false, onOpen = null } = {}) {
    const variant = report.variants[column];
    const cell = group.cells[column];
    return make("figure", { class: "side", "aria-label": variant },
      make("div", { class: "who", title: variant },
        make("span", { class: `swatch v${report.colors[column]}`, "aria-hidden": "true" }), make("bdi", {}, variant)),
      picture(group, cell, variant, labelled, onOpen), caption(cell));
  }

  function where(group) {
    const benchmark = form.elements.benchmark ? `${group.benchmark} · ` : "";
    return `${benchmark}prompt ${group.prompt_id} · sample ${group.index}`;
  }

  function card(group, position) {
    const onOpen = () => open(position);
    return make("article", { class: "card sample", "aria-label": `${group.prompt}, sample ${group.index}` },
      make("h3", { dir: "auto" }, group.prompt),
      make("p", { class: "where" }, ...(tagged ? [make("span", { class: "tag" }, TASKS[group.tag] ?? group.tag), " · "] : []), where(group)),
      make("div", { class: "sides" }, ...shownColumns().map((column) => side(group, column, { onOpen }))));
  }

  function draw() {
    const [total, start] = [state.shown.length, state.page * PAGE_SIZE];
    const end = Math.min(start + PAGE_SIZE, total);
    const pages = Math.max(1, Math.ceil(total / PAGE_SIZE));
    const count = (number) => number.toLocaleString("en");
    document.getElementById("count").textContent = total
      ? `${count(start + 1)}–${count(end)} of ${count(total)}` +
        (total === report.groups.length ? " comparisons" : ` matching, ${count(report.groups.length)} in all`)
      : report.groups.length ? `Nothing matches; ${count(report.groups.length)} comparisons in all` : "No samples in this run";
    for (const bar of document.querySelectorAll(".pages")) {
      bar.hidden = pages === 1;
      bar.querySelector(".pageno").textContent = `Page ${state.page + 1} of ${pages}`;
      bar.querySelector("[data-page='-1']").disabled = state.page === 0;
      bar.querySelector("[data-page='1']").disabled = state.page === pages - 1;
    }
    cards.style.setProperty("--variants", shownColumns().length);
    cards.replaceChildren(...state.shown.slice(start, end).map((group, offset) => card(group, start + offset)));
    if (!total) cards.append(make("p", { class: "card empty" }, "No sample to show."));
    remember();
  }

  function list(caption, titles, rows) {
    return make("table", { class: "detections" }, make("caption", { class: "sr" }, caption),
      make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...rows));
  }

  function detectionTable(cell) {
    if (!cell || !cell.detections.length) return null;
    const minimum = minimumScore();
    const rows = [...cell.detections].sort((left, right) => right[1] - left[1]).map(([label, score, box, color]) =>
      make("tr", { class: score < minimum ? "below" : null },
        make("td", { dir: "auto" }, `${color ? `${color} ` : ""}${label}`), make("td", {}, score.toFixed(3)),
        make("td", {}, box.map((edge) => Math.round(edge)).join(", "))));
    return list("Detections", ["Detection", "Score", "Box x1, y1, x2, y2"], rows);
  }

  function answerTable(cell) {
    if (!cell || !cell.answers.length) return null;
    const rows = cell.answers.map(([question, answer, score]) =>
      make("tr", { class: score !== null && score >= 0.5 ? null : "refused" },
        make("td", { dir: "auto" }, question), make("td", { dir: "auto" }, answer),
        make("td", {}, score === null ? "–" : String(score))));
    return list("Answers to questions about the image", ["Question", "Answer", "Score"], rows);
  }

  function open(position) {
    state.open = position;
    const group = state.shown[position];
    document.getElementById("viewer-title").textContent = group.prompt;
    document.getElementById("viewer-meta").textContent = tagged ? `${TASKS[group.tag] ?? group.tag} · ${where(group)}` : where(group);
    document.getElementById("viewer-previous").disabled = position === 0;
    document.getElementById("viewer-next").disabled = position === state.shown.length - 1;
    document.getElementById("viewer-body").replaceChildren(...shownColumns().map((column) => {
      const figure = side(group, column, { labelled: true });
      const tables = [answerTable, detectionTable].map((table) => table(group.cells[column])).filter(Boolean);
      if (tables.length) figure.append(make("div", { class: "found" }, ...tables));
      return figure;
    }));
    if (!viewer.open) viewer.showModal();
    // A button that has just been disabled would drop the keyboard's focus out of the dialog.
    if (!viewer.contains(document.activeElement) || document.activeElement.disabled) {
      document.getElementById("viewer-close").focus();
    }
    remember();
  }

  function step(offset) {
    const position = state.open + offset;
    if (position >= 0 && position < state.shown.length) open(position);
  }

  // A view by hand: report.html#variant=NAME&tag=TASK&verdict=wrong|correct|disagree&sample=PROMPT/INDEX
  function followAddress() {
    const wanted = page.view();
    if (![...wanted].length) return remember();
    state.asked = report.variants.includes(wanted.get("variant")) ? wanted.get("variant") : null;
    const column = report.variants.indexOf(state.asked);
    for (const header of document.querySelectorAll("[data-variant]")) {
      header.classList.toggle("asked", header.dataset.variant === state.asked);
    }
    const verdict = wanted.get("verdict");
    if (verdict === "disagree") wanted.set("disagree", "on");
    else if (column >= 0 && ["wrong", "correct"].includes(verdict)) {
      wanted.set("verdict", `one:${column}:${verdict === "correct" ? 1 : 0}`);
    }
    page.choose(form, wanted);
    select();
    const sample = wanted.get("sample");
    const position = state.shown.findIndex((group) => [place(group), `${group.prompt_id}/${group.index}`].includes(sample));
    const last = Math.max(0, Math.ceil(state.shown.length / PAGE_SIZE) - 1);
    state.page = Math.min(Math.max(Math.floor(Number(wanted.get("page")) || 1) - 1, 0), last);
    draw();
    if (position >= 0) open(position);
    else {
      if (viewer.open) viewer.close();
      const alone = column >= 0 && [...wanted].length === 1;
      document.getElementById(alone ? "results" : "samples").scrollIntoView();
    }
  }

  let waiting = 0;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(select, event.target.type === "search" ? 150 : 0);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(select, 0));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-filter-tag], [data-filter-verdict]");
    const pageButton = event.target.closest("[data-page]");
    if (link) {
      const { filterTag: tag, filterBenchmark: benchmark, filterVerdict: verdict } = link.dataset;
      page.choose(form, Object.entries({ tag, benchmark, verdict }));
      select();
      document.getElementById("samples").scrollIntoView();
    } else if (pageButton) {
      state.page += Number(pageButton.dataset.page);
      draw();
      document.getElementById("count").scrollIntoView({ block: "center" });
    }
  });
  document.getElementById("viewer-close").addEventListener("click", () => viewer.close());
  document.getElementById("viewer-previous").addEventListener("click", () => step(-1));
  document.getElementById("viewer-next").addEventListener("click", () => step(1));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", remember);
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  addEventListener("hashchange", followAddress);
  draw();
  followAddress();
})();
