/* A build's log as it comes: by server-sent events, else by asking every few seconds. The reader who scrolled up is left alone. */
(function () {
  "use strict";
  var log = document.getElementById("build-log");
  if (!log || !log.dataset.events) return;
  var after = Number(log.dataset.after) || 0, pinned = true, empty = after === 0, ended = false, source = null, timer = 0, MOST = 5000;
  var word = document.querySelector("[data-log-state]"), end = document.querySelector("[data-log-end]");

  function atEnd() { return log.scrollHeight - log.scrollTop - log.clientHeight < 24; }
  function down() { log.scrollTop = log.scrollHeight; }
  log.addEventListener("scroll", function () { pinned = atEnd(); if (end) end.hidden = pinned; });
  if (end) end.addEventListener("click", function () { pinned = true; end.hidden = true; down(); });

  function add(lines) {
    var fresh = lines.filter(function (l) { return l.seq > after; });
    if (!fresh.length) return;
    if (empty) { log.textContent = ""; empty = false; }
    // text nodes only: what a build prints is never markup
    log.appendChild(document.createTextNode(fresh.map(function (l) { return l.text; }).join("\n") + "\n"));
    after = fresh[fresh.length - 1].seq;
    while (log.childNodes.length > MOST) log.removeChild(log.firstChild);
    if (pinned) down();
  }
  function tick() { document.body.dispatchEvent(new Event("cp:tick")); }
  function finish() { ended = true; if (source) source.close(); clearTimeout(timer); if (word) word.textContent = after + " lines"; tick(); }

  function ask() {
    clearTimeout(timer);
    if (ended) return;
    fetch(log.dataset.lines + "?after=" + after, { credentials: "same-origin" })
      .then(function (r) { return r.ok ? r.json() : null; })
      .then(function (d) {
        if (d) { add(d.lines); if (!d.open && !d.lines.length) { finish(); return; } }
        timer = setTimeout(ask, d && d.lines.length >= 500 ? 50 : 5000);
      }, function () { timer = setTimeout(ask, 5000); });
  }
  function listen() {
    var failed = 0;
    source = new EventSource(log.dataset.events + "?after=" + after);
    source.addEventListener("lines", function (e) { failed = 0; add(JSON.parse(e.data).lines); });
    source.addEventListener("state", function () { failed = 0; tick(); });
    source.addEventListener("end", finish);
    source.onerror = function () { if (source.readyState === 2 || ++failed > 3) { source.close(); if (word) word.textContent = "Asked every 5 s"; ask(); } };
  }
  down();
  if (window.EventSource) listen(); else ask();
})();
