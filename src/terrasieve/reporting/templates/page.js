(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const stored = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = stored("figures");
  const samples = stored("samples");
  const touch = matchMedia("(pointer: coarse)").matches;
  const narrow = matchMedia("(max-width: 40rem)").matches;

  // ---- charts: figures name their colours as CSS variables, which are read anew for each theme

  const TEXTS = new Set(["x", "y", "z", "text", "name", "customdata", "hovertemplate", "texttemplate"]);

  function themed(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z0-9-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((one) => themed(one, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, one]) => [key, TEXTS.has(key) ? one : themed(one, style)]),
    );
  }

  function layoutOf(figure, style) {
    const { margin, ...layout } = themed(figure.layout, style);
    const colour = (name) => style.getPropertyValue(name).trim();
    return {
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colour("--sans"), size: 12, color: colour("--muted") },
      hoverlabel: {
        bgcolor: colour("--surface"), bordercolor: colour("--line"), font: { color: colour("--ink"), size: 12 },
        namelength: 40,
      },
      uirevision: "kept",
      ...layout,
      margin: { l: 12, r: 16, t: 36, b: 12, ...margin },
      dragmode: touch ? false : (layout.dragmode ?? false),
    };
  }

  function draw(plot) {
    const figure = figures[plot.dataset.figure];
    const style = getComputedStyle(root);
    const config = { responsive: true, displayModeBar: false, displaylogo: false, showTips: false };
    Plotly.react(plot, themed(figure.data, style), layoutOf(figure, style), config);
    if (!plot.dataset.drawn && samples[plot.dataset.figure]) peekAt(plot);
    plot.dataset.drawn = plot.dataset.figure;
  }

  const seen = new IntersectionObserver(
    (entries) => entries.filter((one) => one.isIntersecting).forEach(({ target }) => {
      seen.unobserve(target);
      draw(target);
    }),
    { rootMargin: "600px" },
  );
  const redraw = () => all(".plot[data-drawn]").forEach(draw);

  function pick(select) {
    const plot = document.querySelector(`#${select.dataset.pick} .plot`);
    const figure = figures[select.value];
    plot.dataset.figure = select.value;
    plot.style.height = `${figure.layout.height}px`;
    plot.style.minWidth = `${figure.width}px`;
    plot.setAttribute("aria-label", figure.alt);
    if (plot.dataset.drawn) {
      // Another figure has other axes: nothing of the last one is to be kept.
      Plotly.purge(plot);
      draw(plot);
    }
  }

  // ---- the sample under the pointer

  function peekAt(plot) {
    const stage = plot.closest(".stage");
    const panel = stage.querySelector(".peek");
    const show = ({ points, event }) => {
      const [id, label, picture] = samples[plot.dataset.figure][points[0].customdata];
      panel.querySelector("img").src = picture;
      panel.querySelector("img").alt = `Sample ${id}`;
      panel.querySelector("b").textContent = label;
      panel.querySelector("span").textContent = id;
      panel.hidden = false;
      const box = stage.getBoundingClientRect();
      const left = event.clientX - box.left;
      const top = event.clientY - box.top;
      const beyond = left + 18 + panel.offsetWidth > box.width;
      panel.style.left = `${Math.max(0, beyond ? left - 18 - panel.offsetWidth : left + 18)}px`;
      panel.style.top = `${Math.max(0, Math.min(top - 40, box.height - panel.offsetHeight))}px`;
    };
    plot.on("plotly_hover", show);
    plot.on("plotly_click", show);
    plot.on("plotly_unhover", () => { panel.hidden = true; });
  }

  // ---- theme

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.querySelector(".toggle");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const label = () => {
    toggle.textContent = isDark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
  };

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    label();
    redraw();
  }

  toggle.hidden = false;
  toggle.addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  dark.addEventListener("change", () => { label(); redraw(); });
  label();

  // ---- runs as tabs, their sections in the bar

  const tabs = all("[role=tab]");
  const runs = all(".run");

  function open(key) {
    runs.forEach((run) => { run.hidden = run.id !== key; });
    all(".links").forEach((links) => { links.hidden = links.dataset.part !== key; });
    tabs.forEach((tab) => {
      const chosen = tab.getAttribute("aria-controls") === key;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    });
  }

  function openTarget() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const run = target && target.closest(".run");
    if (run && run.hidden) {
      open(run.id);
      target.scrollIntoView();
    }
  }

  tabs.forEach((tab, position) => {
    tab.addEventListener("click", () => {
      open(tab.getAttribute("aria-controls"));
      document.getElementById(tab.getAttribute("aria-controls")).scrollIntoView();
    });
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
      if (!step) return;
      const next = tabs[(position + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  });
  open(runs[0].id);
  openTarget();
  addEventListener("hashchange", openTarget);

  function mark(link, here) {
    if (!here) {
      link.removeAttribute("aria-current");
      return;
    }
    link.setAttribute("aria-current", "true");
    const strip = link.closest(".links");
    strip.scrollLeft = link.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + link.offsetWidth / 2;
  }

  const current = new IntersectionObserver(
    (entries) => entries.forEach(({ target, isIntersecting }) => {
      all(".links a").filter((link) => link.hash === `#${target.id}`).forEach((link) => mark(link, isIntersecting));
    }),
    { rootMargin: "-20% 0px -79% 0px" },
  );
  all("main section[id]").forEach((section) => current.observe(section));

  // ---- choices and filters

  all("[data-pick]").forEach((select) => {
    select.addEventListener("change", () => pick(select));
    // A browser that goes back restores the choice, not what was drawn for it.
    if (document.querySelector(`#${select.dataset.pick} .plot`).dataset.figure !== select.value) pick(select);
  });

  function filter(select) {
    const strips = all(".strip", document.getElementById(select.dataset.filter));
    strips.forEach((strip) => { strip.hidden = select.value !== "" && strip.dataset.label !== select.value; });
    const left = strips.filter((strip) => !strip.hidden).length;
    document.querySelector(`[data-count="${select.dataset.filter}"]`).textContent =
      left === strips.length ? "" : `${left} of ${strips.length}`;
  }
  all("[data-filter]").forEach((select) => {
    select.addEventListener("change", () => filter(select));
    // All classes one below the other are too long a way on a phone.
    if (narrow && select.options.length > 4) select.selectedIndex = 1;
    filter(select);
  });

  // ---- what goes on beyond an edge: fades there, and a chart says so

  function edges(box) {
    const rest = box.scrollWidth - box.clientWidth;
    box.classList.toggle("rest-left", rest > 1 && box.scrollLeft > 1);
    box.classList.toggle("rest-right", rest > 1 && box.scrollLeft < rest - 1);
    const cue = box.nextElementSibling;
    if (cue && cue.classList.contains("cue")) cue.hidden = rest <= 1;
  }
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    edges(target.matches(".scroll, .links, .tabs") ? target : target.parentElement);
  }));
  all(".scroll, .links, .tabs").forEach((box) => {
    box.addEventListener("scroll", () => edges(box), { passive: true });
    resized.observe(box);
    all(":scope > *", box).forEach((one) => resized.observe(one));
  });

  // ---- paper: light, everything open and drawn to the width of a sheet

  let before = null;
  addEventListener("beforeprint", () => {
    before = { theme: root.dataset.theme, closed: all("details:not([open])") };
    root.classList.add("printing");
    before.closed.forEach((one) => { one.open = true; });
    root.dataset.theme = "light";
    all(".plot").forEach((plot) => { draw(plot); Plotly.Plots.resize(plot); });
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    root.classList.remove("printing");
    before.closed.forEach((one) => { one.open = false; });
    setTheme(before.theme);
    before = null;
    all(".plot[data-drawn]").forEach((plot) => Plotly.Plots.resize(plot));
  });

  all(".plot").forEach((plot) => seen.observe(plot));
})();
