(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function config() {
    var isDark = dark.matches, isNarrow = window.innerWidth < 500;
    var text = isDark ? "#e6e8ea" : "#1c1e21", line = isDark ? "#383d43" : "#e1e4e8";
    return {
      background: "transparent", font: "system-ui, DejaVu Sans, sans-serif", view: {stroke: null},
      axis: {
        labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line,
        labelLimit: isNarrow ? 110 : 240, labelOverlap: true, labelSeparation: 6, titleFontWeight: "normal"
      },
      axisX: {titleAnchor: isNarrow ? "end" : "middle"},
      // The end of the scale that the page's background would swallow is left out.
      range: {ordinal: {scheme: "viridis", extent: isDark ? [0.3, 1] : [0, 0.85]}},
      legend: {
        symbolBaseFillColor: text, symbolBaseStrokeColor: text,
        labelColor: text, titleColor: text, titleFontWeight: "normal", orient: "bottom", columns: isNarrow ? 3 : 6, labelLimit: isNarrow ? 90 : 160,
        layout: {bottom: {anchor: "start", direction: "vertical", margin: 6}}
      }
    };
  }

  function draw() {
    document.querySelectorAll("figure").forEach(function (figure) {
      var holder = figure.querySelector(".drawing"), source = figure.querySelector(".spec");
      if (!holder || !source || !window.vegaEmbed) return;
      var spec = JSON.parse(source.textContent);
      spec.width = "container";
      spec.autosize = {type: "fit-x", contains: "padding"};
      window.vegaEmbed(holder, spec, {actions: false, ast: true, logLevel: 1, renderer: "svg", config: config()})
        .then(function () { figure.dataset.drawn = "yes"; })
        .catch(function (error) { figure.dataset.drawn = "no"; console.error(error); });
    });
  }
  draw();
  dark.addEventListener("change", draw);

  var table = document.querySelector("table.gates"), filter = document.querySelector("#filter");
  if (!table) return;
  if (filter) filter.addEventListener("input", function () {
    var words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    Array.from(table.tBodies).forEach(function (body) {
      var parts = Array.from(body.querySelectorAll("tr:first-child > td, .case > summary"));
      var text = parts.map(function (each) { return each.textContent; }).join(" ").toLowerCase();
      body.hidden = !words.every(function (word) { return text.includes(word); });
    });
  });

  function key(body, column) {
    var cell = body.rows[0].cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key;
  }
  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    var x = Number(a), y = Number(b);
    return isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
  }
  table.querySelectorAll("thead th").forEach(function (head, column) {
    head.querySelector("button").addEventListener("click", function () {
      var down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      Array.from(table.tBodies)
        .sort(function (a, b) { return (down ? -1 : 1) * compare(key(a, column), key(b, column)); })
        .forEach(function (body) { table.appendChild(body); });
    });
  });
})();
