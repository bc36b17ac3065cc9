/* The import page: a file dropped anywhere is put into the form and looked at. Without this the file field does it. */
(function () {
  "use strict";
  var form = document.querySelector("form[data-drop-anywhere]"); if (!form) return;
  var input = form.querySelector("input[type=file]"), hint = form.querySelector("[data-drop-hint]"), text = form.querySelector("textarea[name=document]"), depth = 0;
  if (hint) hint.hidden = false;
  function files(e) { return e.dataTransfer && Array.prototype.indexOf.call(e.dataTransfer.types || [], "Files") >= 0; }
  function look() { form.requestSubmit(form.querySelector("button[name=do][value=look]")); }
  document.addEventListener("dragenter", function (e) { if (files(e)) { e.preventDefault(); depth++; document.documentElement.classList.add("dragging"); } });
  document.addEventListener("dragover", function (e) { if (files(e)) e.preventDefault(); });
  document.addEventListener("dragleave", function () { depth = Math.max(0, depth - 1); if (!depth) document.documentElement.classList.remove("dragging"); });
  document.addEventListener("drop", function (e) {
    depth = 0; document.documentElement.classList.remove("dragging");
    if (!files(e) || !e.dataTransfer.files.length) return;
    e.preventDefault();
    if (e.target.closest && e.target.closest(".drop")) return; // its own field takes it, and the change below follows
    input.files = e.dataTransfer.files; input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  input.addEventListener("change", function () { if (input.files.length) { text.value = ""; look(); } });
})();
