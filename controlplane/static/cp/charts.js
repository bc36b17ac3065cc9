/* uPlot wrapper. A chart is <figure data-chart> holding <script type="application/json">.
   Spec: { x[], height, fmt, series[{label,data,color,type,dash,fill,w}], bands[[hi,lo,color]],
           now, target{v,label}, events[{t,kind,label}], regions[{from,to,kind,label}], ymin, ymax, sync }
   With data-src the chart asks there for a fresh spec on cp:tick, at most every 15 s: { charts: [spec, ...] }, told apart by spec.key.
   Labels come from data: they are only ever set as text. */
(function () {
  "use strict";
  var probe = document.createElement("i"); probe.style.display = "none"; document.body.appendChild(probe);
  function col(name, a) { // resolve a token (light-dark aware) to rgba
    probe.style.color = name.indexOf("--") === 0 ? "var(" + name + ")" : name;
    var c = getComputedStyle(probe).color.match(/[\d.]+/g);
    return "rgba(" + c[0] + "," + c[1] + "," + c[2] + "," + (a == null ? 1 : a) + ")";
  }
  var F = {
    num: function (v) { return v == null ? "–" : v.toLocaleString("en-US", { maximumFractionDigits: v < 10 ? 1 : 0 }); },
    pct: function (v) { return v == null ? "–" : v.toFixed(Math.abs(v) >= 99 && v < 100 ? 2 : v % 1 ? 1 : 0) + "%"; },
    sec: function (v) { return v == null ? "–" : v === 0 ? "0 s" : v >= 120 ? Math.floor(v / 60) + "m " + String(Math.round(v % 60)).padStart(2, "0") + "s" : (v < 10 ? v.toFixed(1) : Math.round(v)) + " s"; },
    usd: function (v) { return v == null ? "–" : v === 0 ? "$0" : "$" + (v >= 1000 ? v.toLocaleString("en-US", { maximumFractionDigits: 0 }) : v >= 10 ? v.toFixed(0) : v.toFixed(2)); },
    x: function (v) { return v == null ? "–" : v === 0 ? "0×" : v.toFixed(1) + "×"; }
  };
  var GL = { deploy: "--c1", up: "--c2", down: "--c6", incident: "--bad", note: "--text-3" };
  function glyph(ctx, kind, x, y, r) {
    ctx.beginPath();
    if (kind === "deploy") { ctx.moveTo(x, y - r); ctx.lineTo(x + r, y + r * .8); ctx.lineTo(x - r, y + r * .8); ctx.closePath(); ctx.fill(); }
    else if (kind === "up" || kind === "down") { var s = kind === "up" ? 1 : -1; ctx.moveTo(x - r, y + s * r * .45); ctx.lineTo(x, y - s * r * .55); ctx.lineTo(x + r, y + s * r * .45); ctx.lineWidth = r * .62; ctx.lineJoin = "round"; ctx.stroke(); }
    else if (kind === "incident") { ctx.moveTo(x, y - r); ctx.lineTo(x + r, y); ctx.lineTo(x, y + r); ctx.lineTo(x - r, y); ctx.closePath(); ctx.fill(); }
    else { ctx.arc(x, y, r * .8, 0, 7); ctx.fill(); }
  }
  function add(to, tag, text) { var el = document.createElement(tag); if (text != null) el.textContent = text; to.appendChild(el); return el; }
  function hhmm(t) { return new Date(t * 1000).toISOString().slice(11, 16); }
  function stamp(t, daily) { var d = new Date(t * 1000), m = d.toLocaleString("en-US", { month: "short", timeZone: "UTC" }); return m + " " + d.getUTCDate() + (daily ? "" : ", " + hhmm(t) + " UTC"); }

  function build(fig) {
    var spec = fig._spec = fig._spec || JSON.parse(fig.querySelector("script").textContent), host = fig.querySelector(".plot");
    if (!spec.x.length) { host.textContent = ""; return; }
    host.textContent = ""; var tip = document.createElement("div"); tip.className = "tip";
    var fmt = F[spec.fmt || "num"], daily = spec.x.length > 1 && spec.x[1] - spec.x[0] >= 43200, dpr = devicePixelRatio || 1;
    var rail = (spec.events || []).length ? 22 : 8;
    var series = [{}].concat(spec.series.map(function (s) {
      // a value with no neighbour makes no line: it is a dot
      var alone = s.type || s.hide ? [] : s.data.reduce(function (found, v, i, all) { if (v != null && all[i - 1] == null && all[i + 1] == null) found.push(i); return found; }, []);
      var o = { label: s.label, stroke: col(s.color), width: s.w == null ? 2 : s.w, points: { show: alone.length > 0, filter: function () { return alone; }, size: 6, width: 0, fill: col(s.color) }, spanGaps: false };
      if (s.dash) o.dash = s.dash;
      if (s.fill) o.fill = col(s.color, s.fill);
      if (s.type === "step") o.paths = uPlot.paths.stepped({ align: 1 });
      if (s.type === "bars") { o.paths = uPlot.paths.bars({ size: [.66, 40], radius: .12 }); o.fill = col(s.color, s.fill || .95); o.width = 0; }
      if (s.hide) { o.stroke = "transparent"; o.width = 0; }
      return o;
    }));
    var opts = {
      width: host.clientWidth, height: spec.height || 220, padding: [rail, 22, 0, 0], legend: { show: false }, series: series,
      tzDate: function (ts) { return uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"); },
      bands: (spec.bands || []).map(function (b) { return { series: [b[0], b[1]], fill: col(b[2], b[3] || .18) }; }),
      cursor: { y: false, sync: spec.sync ? { key: spec.sync } : undefined, points: { size: 7, width: 2, stroke: function (u, i) { return series[i].stroke === "transparent" ? "transparent" : series[i].stroke; }, fill: function () { return col("--surface"); } }, drag: { x: true, y: false } },
      scales: { x: { time: true, range: spec.bars ? function (u, a, b) { return [a - 50000, b + 50000]; } : undefined }, y: { range: function (u, a, b) { var lo = spec.ymin != null ? spec.ymin : Math.min(0, a), hi = spec.ymax != null ? spec.ymax : b * 1.12; return [lo, hi || 1]; } } },
      axes: [
        { stroke: col("--text-3"), font: "12px Inter, system-ui", grid: { show: false }, ticks: { stroke: col("--grid"), size: 4 }, gap: 4, size: 30, space: 70,
          values: daily ? function (u, v) { return v.map(function (t) { return stamp(t, true); }); } : function (u, v) { return v.map(function (t) { var h = hhmm(t); return h === "00:00" ? stamp(t, true) : h; }); } },
        { stroke: col("--text-3"), font: "12px Inter, system-ui", grid: { stroke: col("--grid"), width: 1 }, ticks: { show: false }, gap: 6, size: spec.ysize || 46, space: 34, values: function (u, v) { return v.map(fmt); } }
      ],
      hooks: {
        drawClear: [function (u) {
          var c = u.ctx, b = u.bbox; c.save();
          if (spec.now && spec.x[spec.x.length - 1] > spec.now) { var xn = u.valToPos(spec.now, "x", true); c.fillStyle = col("--future"); c.fillRect(xn, b.top, b.left + b.width - xn, b.height); }
          (spec.regions || []).forEach(function (r) {
            var x0 = Math.max(b.left, u.valToPos(r.from, "x", true)), x1 = Math.min(b.left + b.width, u.valToPos(r.to, "x", true));
            c.fillStyle = col(r.kind === "incident" ? "--bad" : "--warn", .09); c.fillRect(x0, b.top, x1 - x0, b.height);
          }); c.restore();
        }],
        draw: [function (u) {
          var c = u.ctx, b = u.bbox; c.save(); c.textBaseline = "alphabetic"; c.font = "500 " + 11 * dpr + "px Inter, system-ui";
          if (spec.target) {
            var y = u.valToPos(spec.target.v, "y", true); c.strokeStyle = col(spec.target.color || "--bad", .8); c.lineWidth = 1.2 * dpr; c.setLineDash([2 * dpr, 4 * dpr]); c.beginPath(); c.moveTo(b.left, y); c.lineTo(b.left + b.width, y); c.stroke(); c.setLineDash([]);
            c.fillStyle = col(spec.target.color || "--bad"); c.textAlign = "left"; c.fillText(spec.target.label, b.left + 6 * dpr, y - 6 * dpr);
          }
          if (spec.now && spec.x[spec.x.length - 1] > spec.now) {
            var x = u.valToPos(spec.now, "x", true); c.strokeStyle = col("--text-2", .8); c.lineWidth = 1 * dpr; c.beginPath(); c.moveTo(x, b.top); c.lineTo(x, b.top + b.height); c.stroke();
            c.fillStyle = col("--text-2"); c.textAlign = "left"; c.fillText("now", x + 5 * dpr, b.top + 12 * dpr);
          }
          var groups = []; // markers closer than 13px merge into one counted pill
          (spec.events || []).map(function (e) { return { e: e, x: u.valToPos(e.t, "x", true) }; }).filter(function (p) { return p.x >= b.left - 1 && p.x <= b.left + b.width + 1; })
            .sort(function (p, q) { return p.x - q.x; }).forEach(function (p) {
              c.strokeStyle = col(GL[p.e.kind], .45); c.lineWidth = dpr; c.setLineDash([3 * dpr, 3 * dpr]); c.beginPath(); c.moveTo(p.x, b.top); c.lineTo(p.x, b.top + b.height); c.stroke(); c.setLineDash([]);
              var g = groups[groups.length - 1]; if (g && p.x - g[g.length - 1].x < 13 * dpr) g.push(p); else groups.push([p]);
            });
          groups.forEach(function (g) {
            var x = g.reduce(function (s, p) { return s + p.x; }, 0) / g.length, y = b.top - 11 * dpr;
            if (g.length === 1) { c.strokeStyle = c.fillStyle = col(GL[g[0].e.kind]); glyph(c, g[0].e.kind, x, y, 5 * dpr); return; }
            var inc = g.some(function (p) { return p.e.kind === "incident"; });
            c.fillStyle = col(inc ? "--bad" : "--text-2"); c.beginPath(); c.roundRect(x - 8 * dpr, y - 7 * dpr, 16 * dpr, 14 * dpr, 7 * dpr); c.fill();
            c.fillStyle = col("--surface"); c.textAlign = "center"; c.font = "700 " + 10 * dpr + "px Inter, system-ui"; c.fillText(g.length, x, y + 3.6 * dpr); c.font = "500 " + 11 * dpr + "px Inter, system-ui";
          }); c.restore();
        }],
        setCursor: [function (u) {
          var i = u.cursor.idx; if (i == null || u.cursor.left < 0) { tip.style.display = "none"; return; }
          tip.textContent = ""; add(tip, "b", stamp(u.data[0][i], daily));
          spec.series.forEach(function (s, k) { if (s.notip) return; var v = s.raw ? s.raw[i] : u.data[k + 1][i]; if (v == null) return; var d = add(tip, "div"); add(d, "span", s.label); add(d, "i", fmt(v)); });
          (spec.events || []).forEach(function (e) { if (Math.abs(u.valToPos(e.t, "x") - u.cursor.left) < 8) add(add(tip, "div"), "span", e.label); });
          tip.style.display = "block";
          var w = u.over.clientWidth, l = u.cursor.left + u.over.offsetLeft; tip.style.top = "26px";
          tip.style.left = (u.cursor.left > w / 2 ? l - tip.offsetWidth - 14 : l + 14) + "px";
        }]
      }
    };
    opts.hooks.setSelect = [function (u) {
      if (u.select.width < 8) return;
      document.dispatchEvent(new CustomEvent("cp:range", { detail: { from: Math.round(u.posToVal(u.select.left, "x")), to: Math.round(u.posToVal(u.select.left + u.select.width, "x")) } }));
    }];
    opts.cursor.bind = { dblclick: function () { return function () { document.dispatchEvent(new CustomEvent("cp:range")); return null; }; } };
    opts.cursor.drag.setScale = false;
    var u = new uPlot(opts, [spec.x].concat(spec.series.map(function (s) { return s.data; })), host);
    host.appendChild(tip); fig._u = u;
    // keyboard: focus the plot, arrow keys move the crosshair
    host.tabIndex = 0; host.setAttribute("role", "img"); host.setAttribute("aria-label", fig.dataset.summary || "chart");
    host.onkeydown = function (e) {
      if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return; e.preventDefault();
      var i = (u.cursor.idx == null ? spec.x.length - 1 : u.cursor.idx) + (e.key === "ArrowLeft" ? -1 : 1); i = Math.max(0, Math.min(spec.x.length - 1, i));
      u.setCursor({ left: u.valToPos(spec.x[i], "x"), top: 10 });
    };
    var tb = fig.querySelector("details.tbl .scroll");
    if (tb && !tb.firstChild) fig.querySelector("details.tbl").addEventListener("toggle", function () {
      if (tb.firstChild) return; var now = fig._spec, n = now.x.length, st = Math.max(1, Math.ceil(n / 48)), cols = now.series.filter(function (s) { return !s.notip; });
      var t = add(tb, "table"); t.className = "table"; var hr = add(add(t, "thead"), "tr"); add(hr, "th", "Time (UTC)"); cols.forEach(function (s) { add(hr, "th", s.label).className = "num"; });
      var tb2 = add(t, "tbody");
      for (var i = 0; i < n; i += st) { var tr = add(tb2, "tr"); add(tr, "td", stamp(now.x[i], daily)); cols.forEach(function (s) { var v = (s.raw || s.data)[i]; add(tr, "td", v == null ? "no data" : fmt(v)).className = "num"; }); }
      tb.tabIndex = 0;
    });
    new ResizeObserver(function () { var w = host.clientWidth; if (w && Math.abs(w - u.width) > 2) u.setSize({ width: w, height: opts.height }); }).observe(host);
  }
  // fresh values: the same chart with new data; rebuilt only when its lines or marks changed
  function refresh(fig, spec) {
    var old = fig._spec; fig._spec = spec;
    var same = fig._u && old.series.length === spec.series.length && JSON.stringify(old.events || []) === JSON.stringify(spec.events || []) && (spec.now == null) === (old.now == null);
    if (!same) { if (fig._u) { fig._u.destroy(); fig._u = null; } build(fig); return; }
    Object.keys(old).forEach(function (k) { if (k !== "x" && k !== "series") old[k] = spec[k]; });
    old.x = spec.x; old.series.forEach(function (s, i) { s.data = spec.series[i].data; s.raw = spec.series[i].raw; }); fig._spec = old;
    fig._u.setData([spec.x].concat(spec.series.map(function (s) { return s.data; })));
  }
  var asked = {}, tags = {};
  document.body.addEventListener("cp:tick", function () {
    var figs = Array.prototype.slice.call(document.querySelectorAll("figure[data-src]")), srcs = {};
    figs.forEach(function (f) { srcs[f.dataset.src] = 1; });
    Object.keys(srcs).forEach(function (src) {
      if (Date.now() - (asked[src] || 0) < 14500) return; asked[src] = Date.now();
      fetch(src, { headers: tags[src] ? { "If-None-Match": tags[src] } : {}, cache: "no-store", credentials: "same-origin" }).then(function (r) { if (r.status !== 200) return null; tags[src] = r.headers.get("ETag"); return r.json(); }).then(function (got) {
        if (got) figs.forEach(function (f) { if (f.dataset.src === src) got.charts.forEach(function (c) { if (c.key === f._spec.key) refresh(f, c); }); });
      }).catch(function () {});
    });
  });
  document.addEventListener("cp:fresh", function (e) { if (e.target._spec) refresh(e.target, e.detail); });
  function all() { document.querySelectorAll("figure[data-chart]").forEach(function (f) { if (f._u) f._u.destroy(); f._u = null; build(f); }); }
  (document.fonts && document.fonts.ready ? document.fonts.ready : Promise.resolve()).then(all);
  document.addEventListener("cp:theme", all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
