/* Work pages: faster live updates while a job runs, graph or list, languages, snippets that follow the form. All of it can be missed. */
(function () {
  "use strict";
  var $ = function (s, r) { return (r || document).querySelector(s); },
      $$ = function (s, r) { return Array.prototype.slice.call((r || document).querySelectorAll(s)); };

  // a running job is asked about every second; one that ended, never again
  setInterval(function () {
    if ($("[data-live-fast]") && document.visibilityState === "visible" && !(window.cp && window.cp.paused)) document.body.dispatchEvent(new Event("cp:tick"));
  }, 1000);
  document.body.addEventListener("htmx:beforeRequest", function (e) {
    if (e.detail.elt.classList.contains("live-region") && $("[data-live-done]", e.detail.elt)) e.preventDefault();
  });
  document.body.addEventListener("htmx:afterSettle", function (e) {
    var el = e.detail.elt; if (!el.classList || !el.classList.contains("live-region")) return;
    if ($("[data-live-done]", el)) el.removeAttribute("hx-get");
    var said = $("[data-announce]", el), h = $("[data-headline]"); if (said && h && h.textContent !== said.dataset.announce) h.textContent = said.dataset.announce;
  });

  // links that choose a panel of this page: the address follows, nothing is loaded
  document.addEventListener("click", function (e) {
    var a = e.target.closest("[data-show]"); if (!a || e.metaKey || e.ctrlKey || e.shiftKey) return;
    e.preventDefault();
    var group = a.dataset.group;
    $$("[data-show][data-group='" + group + "']").forEach(function (x) { if (x === a) x.setAttribute("aria-current", "true"); else x.removeAttribute("aria-current"); });
    $$("[data-panel][data-in='" + group + "']").forEach(function (p) { p.hidden = p.dataset.panel !== a.dataset.show; });
    var copy = $("[data-copy-of='" + group + "']"); if (copy) copy.dataset.target = a.dataset.copy;
    var u = new URL(location.href); u.searchParams.set(group, a.dataset.show); history.replaceState(null, "", u);
  });

  document.addEventListener("change", function (e) {
    if (e.target.matches("select[data-auto]")) e.target.form.requestSubmit();
  });

  // snippets are made, and escaped, by the server from what the form holds
  var form = $("form[data-snippets]"), box = $("#snippets"), wait = 0, asked = 0;
  function refresh() {
    var data = new FormData(form), n = ++asked;
    Array.from(data.keys()).forEach(function (k) { var v = data.get(k); if (v instanceof File) data.set(k, v.name ? "@" + v.name : ""); });
    fetch(form.dataset.snippets, { method: "POST", body: new URLSearchParams(data), headers: { "X-CSRFToken": data.get("csrfmiddlewaretoken") }, credentials: "same-origin" })
      .then(function (r) { return r.ok ? r.json() : null; })
      .then(function (d) { if (d && n === asked) Object.keys(d).forEach(function (k) { var p = document.getElementById("snip-" + k); if (p) p.innerHTML = d[k]; }); }, function () {});
  }
  if (form && box) {
    form.addEventListener("input", function () { clearTimeout(wait); wait = setTimeout(refresh, 350); });
    form.addEventListener("change", function () { clearTimeout(wait); wait = setTimeout(refresh, 50); });
  }

  // a colour and its number say the same; the number is what is sent
  document.addEventListener("input", function (e) {
    if (e.target.dataset && e.target.dataset.colourOf) document.getElementById(e.target.dataset.colourOf).value = parseInt(e.target.value.slice(1), 16);
    else if (e.target.id) $$("[data-colour-of='" + e.target.id + "']").forEach(function (c) {
      var n = Math.min(16777215, Math.max(0, Number(e.target.value) || 0)); c.value = "#" + ("00000" + Math.floor(n).toString(16)).slice(-6);
    });
  }, true);

  // files can be dropped on their field
  $$(".drop input[type=file]").forEach(function (input) {
    var zone = input.closest(".drop");
    ["dragover", "dragenter"].forEach(function (t) { zone.addEventListener(t, function (e) { e.preventDefault(); zone.classList.add("over"); }); });
    ["dragleave", "drop"].forEach(function (t) { zone.addEventListener(t, function () { zone.classList.remove("over"); }); });
    zone.addEventListener("drop", function (e) { e.preventDefault(); if (e.dataTransfer.files.length) { input.files = e.dataTransfer.files; input.dispatchEvent(new Event("change", { bubbles: true })); } });
  });

  // an error summary takes the focus, a fresh result comes into view
  var summary = $("[data-error-summary]"); if (summary) summary.focus();
})();
