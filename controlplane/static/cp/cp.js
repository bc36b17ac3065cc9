/* Small progressive-enhancement layer. Every page can be read without it.
   Live regions ask again on the event cp:tick (every 5 s while the page is visible and not paused); htmx swaps by morph. */
(function () {
  "use strict";
  var root = document.documentElement, body = document.body,
      $ = function (s, r) { return (r || document).querySelector(s); },
      $$ = function (s, r) { return Array.prototype.slice.call((r || document).querySelectorAll(s)); };
  root.classList.add("js");

  // ---- theme: the server writes data-theme from this cookie, so nothing flashes; charts listen for cp:theme
  function theme() {
    var dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = "cp-theme=" + root.dataset.theme + "; path=/; max-age=31536000; samesite=lax";
    document.dispatchEvent(new Event("cp:theme"));
  }

  function toast(text) {
    var t = document.createElement("div"); t.className = "toast"; t.setAttribute("role", "status"); t.textContent = text;
    $("#toasts").appendChild(t); setTimeout(function () { t.remove(); }, 4000);
  }
  function copy(text, done) { if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, function () { toast("Could not copy. Select the text and copy it."); }); else toast("Could not copy. Select the text and copy it."); }

  document.addEventListener("click", function (e) {
    $$("details.pop[open]").forEach(function (d) { if (!d.contains(e.target)) d.open = false; });
    var el = e.target.closest("[data-act]"); if (!el) return;
    var a = el.dataset.act;
    if (a === "theme") theme();
    if (a === "pause") pause(!cp.paused);
    if (a === "dismiss") el.closest(".toast").remove();
    if (a === "menu") { var s = $(".side"), open = s.classList.toggle("open"); el.setAttribute("aria-expanded", open); if (open) $("a", s).focus(); }
    if (a === "dialog") { e.preventDefault(); var d = document.getElementById(el.dataset.target); d.showModal(); var i = $("[data-confirm]", d); if (i) { i.value = ""; i.dispatchEvent(new Event("input", { bubbles: true })); i.focus(); } }
    if (a === "close") el.closest("dialog").close();
    if (a === "permalink") copy(location.origin + location.pathname + el.dataset.fixed, function () { toast("Link copied, with fixed times"); });
    if (a === "copy") { var src = document.getElementById(el.dataset.target); copy(src.value == null ? src.textContent : src.value, function () { var l = $("span", el), o = l.textContent; l.textContent = "Copied"; setTimeout(function () { l.textContent = o; }, 1600); }); }
    if (a === "tab") { e.preventDefault(); var g = el.closest("[data-tabs]"); $$("[data-act=tab]", g).forEach(function (x) { x.removeAttribute("aria-current"); }); el.setAttribute("aria-current", "true"); $$("[data-panel]", document).forEach(function (p) { if (p.dataset.group === g.dataset.tabs) p.hidden = p.dataset.panel !== el.dataset.panelTarget; }); }
  });

  // typed confirmation: the button stays disabled until the exact name is typed
  document.addEventListener("input", function (e) {
    var i = e.target.closest("[data-confirm]"); if (!i) return;
    var b = $("[data-confirm-btn]", i.closest("dialog, .dlg-static, form")); if (b) b.disabled = i.value.trim() !== i.dataset.confirm;
  });
  $$("form [data-confirm]").forEach(function (i) { i.dispatchEvent(new Event("input", { bubbles: true })); });

  // a form is sent once; its button says so
  document.addEventListener("submit", function (e) {
    if (e.target.method !== "post") return;
    if (e.target.dataset.sent) { e.preventDefault(); return; }
    e.target.dataset.sent = "1"; $$("button", e.target).forEach(function (b) { if (b.type === "submit") b.setAttribute("aria-disabled", "true"); });
  });
  window.addEventListener("pageshow", function () { $$("form[data-sent]").forEach(function (f) { delete f.dataset.sent; $$("[aria-disabled]", f).forEach(function (b) { b.removeAttribute("aria-disabled"); }); }); });

  // ---- live regions
  var cp = window.cp = { paused: false }, okAt = Date.now(), EVERY = 5000, STALE = 15000, told = 0;
  var regions = function () { return $$("[hx-get]"); };
  function hhmm(t) { return new Date(t).toISOString().slice(11, 16); }
  function tick() { if (document.visibilityState === "visible" && !cp.paused) document.body.dispatchEvent(new Event("cp:tick")); }
  function pause(yes) {
    cp.paused = yes; var b = $("button.live"); if (b) { b.setAttribute("aria-pressed", yes); b.classList.toggle("off", yes); $("span", b).textContent = yes ? "Paused " + hhmm(Date.now()) : "Live"; }
    if (!yes) { okAt = Date.now(); tick(); }
    stale();
  }
  function stale() {
    var box = $("#stale"); if (!box || !regions().length) return;
    var age = Date.now() - okAt, gone = !cp.paused && document.visibilityState === "visible" && age > STALE;
    if (gone) $(".grow", box).textContent = "Live updates stopped. Showing values from " + hhmm(okAt) + " UTC, " + Math.round(age / 1000) + " s old. Trying again every 5 s.";
    box.hidden = !gone;
    var b = $("button.live span"); if (b && !cp.paused) b.textContent = gone ? "Paused " + hhmm(okAt) : "Live";
    var l = $("button.live"); if (l) l.classList.toggle("off", gone || cp.paused);
  }
  if (regions().length) { setInterval(tick, EVERY); setInterval(stale, 1000); }
  document.addEventListener("visibilitychange", function () { if (document.visibilityState === "visible") { okAt = Date.now(); tick(); } });
  body.addEventListener("htmx:configRequest", function (e) { var t = e.detail.elt.dataset.etag; if (t) e.detail.headers["If-None-Match"] = t; });
  body.addEventListener("htmx:afterRequest", function (e) {
    var x = e.detail.xhr; if (!x || !(x.status === 200 || x.status === 304)) return;
    okAt = Date.now(); var t = x.getResponseHeader("ETag"); if (t) e.detail.elt.dataset.etag = t; stale();
  });
  // a morph leaves charts to charts.js (which takes the fresh values) and keeps open what a person opened
  if (window.Idiomorph) {
    Idiomorph.defaults.ignoreActiveValue = true;
    Idiomorph.defaults.callbacks.beforeNodeMorphed = function (old, fresh) {
      if (!(old.matches && old.matches("figure[data-chart]"))) return true;
      if (fresh.matches && fresh.matches("figure[data-chart]")) old.dispatchEvent(new CustomEvent("cp:fresh", { bubbles: true, detail: JSON.parse(fresh.querySelector("script").textContent) }));
      return false;
    };
    Idiomorph.defaults.callbacks.beforeAttributeUpdated = function (name, node) { return !(name === "open" || (name === "class" && node.matches("tr.sel"))); };
  }
  // rows must not move under a moving pointer or the focus: wait for the next tick. A session that ended sends a whole page: reload for the sign-in.
  var movedAt = 0; document.addEventListener("pointermove", function () { movedAt = Date.now(); }, { passive: true });
  body.addEventListener("htmx:beforeSwap", function (e) {
    var el = e.detail.elt; if (!el.classList.contains("live-region")) return;
    if (/<html[\s>]/i.test(e.detail.xhr.responseText)) { e.detail.shouldSwap = false; location.reload(); return; }
    if ((Date.now() - movedAt < 8000 && $("tbody tr:hover", el)) || $(":is(tbody tr, form):focus-within, dialog[open]", el)) { e.detail.shouldSwap = false; delete el.dataset.etag; }
  });
  body.addEventListener("htmx:afterSettle", function () {
    var h = $(".live-region [data-announce]"), a = $("#announce"); if (!h || !a) return;
    if (h.dataset.announce !== a.dataset.last && Date.now() - told > 10000) { if (a.dataset.last) { a.textContent = h.dataset.announce; told = Date.now(); } a.dataset.last = h.dataset.announce; }
  });

  // ---- keyboard
  var goData = $("#cp-go"), go = goData ? JSON.parse(goData.textContent) : {}, pend = 0;
  function rowMove(by) {
    var rows = $$("main table.table tbody tr").filter(function (r) { return $("a", r); }); if (!rows.length) return;
    var i = rows.findIndex(function (r) { return r.classList.contains("sel"); });
    if (i >= 0) rows[i].classList.remove("sel");
    i = Math.max(0, Math.min(rows.length - 1, i < 0 ? 0 : i + by)); rows[i].classList.add("sel");
    $("a", rows[i]).focus(); rows[i].scrollIntoView({ block: "nearest" });
  }
  function click(sel) { var el = $(sel); if (el) el.click(); }
  document.addEventListener("keydown", function (e) {
    if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "k") { e.preventDefault(); search(); return; }
    if (e.target.closest("input, textarea, select, [contenteditable], dialog[open]") || e.metaKey || e.ctrlKey || e.altKey) return;
    if (pend) { pend = 0; if (go[e.key]) { location.href = go[e.key]; return; } }
    if (e.key === "g") { pend = 1; setTimeout(function () { pend = 0; }, 900); }
    else if (e.key === "/") { e.preventDefault(); search(); }
    else if (e.key === "?") { var k = $("#keys"); if (k) k.showModal(); }
    else if (e.key === "t") { var r = $("#range"); if (r) { r.open = !r.open; $("summary", r).focus(); } }
    else if (e.key === "[") click('[data-range="earlier"]');
    else if (e.key === "]") click('[data-range="later"]');
    else if (e.key === ".") pause(!cp.paused);
    else if (e.key === "j") rowMove(1);
    else if (e.key === "k") rowMove(-1);
    else if (e.key === "e") click("[data-export]");
    else if (e.key === "Escape") { var s = $(".side.open"); if (s) { s.classList.remove("open"); var m = $("[data-act=menu]"); m.setAttribute("aria-expanded", "false"); m.focus(); } $$("details.pop[open]").forEach(function (d) { d.open = false; $("summary", d).focus(); }); }
  });
  function search() { var q = $("#q"); if (q && q.offsetParent) { q.focus(); q.select(); } else click(".search-link"); }

  // dragging on a chart sets the range; double click goes back to the page's own
  document.addEventListener("cp:range", function (e) {
    if (!$("#range")) return;
    var u = new URL(location.href), iso = function (t) { return new Date(t * 1000).toISOString().slice(0, 19) + "Z"; };
    if (e.detail) { u.searchParams.set("from", iso(e.detail.from)); u.searchParams.set("to", iso(e.detail.to)); } else { u.searchParams.delete("from"); u.searchParams.delete("to"); }
    location.href = u;
  });
})();
