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
