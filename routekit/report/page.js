// Show the command of whatever is clicked, and draw in the colours of the page.
const chosen = document.getElementById("chosen"), shown = document.getElementById("command"), copy = document.getElementById("copy");
const show = (command) => { shown.textContent = command; chosen.hidden = false; };
for (const row of document.querySelectorAll("tr[data-command]")) row.addEventListener("click", () => show(row.dataset.command));
copy?.addEventListener("click", async () => {
  try { await navigator.clipboard.writeText(shown.textContent); }
  catch { getSelection().selectAllChildren(shown); document.execCommand("copy"); }
  copy.textContent = "copied";
  setTimeout(() => { copy.textContent = "copy"; }, 1500);
});
for (const plot of document.querySelectorAll(".js-plotly-plot")) {
  plot.on("plotly_click", (event) => { const command = event.points[0].customdata; if (command) show(command); });
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const grid = style.getPropertyValue("--grid");
    Plotly.relayout(plot, { "font.color": style.getPropertyValue("--ink"), "xaxis.gridcolor": grid, "yaxis.gridcolor": grid });
  };
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}
// The slider moves over the lines of the table, whose figures it shows; the dot moves over the picture.
const slider = document.getElementById("slider");
if (slider) {
  const lines = [...document.querySelectorAll("#settings tr[data-x]")], here = document.getElementById("here");
  const titles = [...document.querySelectorAll("#settings th")].map((title) => title.textContent);
  const figures = document.getElementById("figures"), all = document.getElementById("all");
  const move = () => {
    const line = lines[slider.value], cells = [...line.cells].map((cell) => cell.textContent);
    figures.replaceChildren(...titles.flatMap((title, place) => {
      if (!cells[place]) return [];
      const pair = document.createElement("div"), name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = title;
      value.textContent = place ? cells[place] : `${cells[place]} (of ${lines.length})`;
      pair.append(name, value);
      return [pair];
    }));
    here.setAttribute("cx", line.dataset.x);
    here.setAttribute("cy", line.dataset.y);
    slider.setAttribute("aria-valuetext", titles.map((title, place) => `${title}: ${cells[place]}`).filter((_, place) => cells[place]).join("; "));
  };
  slider.addEventListener("input", move);
  document.getElementById("back").addEventListener("click", () => { slider.value = slider.defaultValue; move(); });
  document.getElementById("setting").hidden = all.open = false;
  move();
}
