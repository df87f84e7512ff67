"use strict";
// Search by a picture: the file goes to the server of this page, which embeds it and says what is most like it.

async function searchByPicture(file) {
  const say = (text) => { element("status").textContent = text; };
  const suffix = (file.name.match(/\.[a-z0-9]+$/i) ?? [""])[0].toLowerCase();
  if (file.size > T.service.pictureBytes) {
    return say(`${file.name}: larger than ${T.service.pictureBytes >> 20} MB. Cut out a part of it.`);
  }
  say(`Embedding ${file.name} …`);
  element("picture").disabled = true;
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const answer = await fetch(`similar?suffix=${encodeURIComponent(suffix)}`, { method: "POST", headers, body: file });
    if (!answer.ok) return say(`${file.name}: ${await answer.text()}`);
    const pairs = await answer.json();
    state.focus = -1;
    select(pairs.map(([row]) => row), new Map(pairs), ` · most like ${file.name}`);
  } catch (error) {
    say(`${file.name}: no answer from terrasieve explore (${error.message}). Is it still running?`);
  } finally {
    element("picture").disabled = false;
  }
}

element("picture").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) searchByPicture(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // or else the browser opens it instead of this page
    document.body.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop" && !element("picture").disabled) searchByPicture(event.dataTransfer.files[0]);
  });
}
