// Show the command of whatever is clicked, and draw in the colours of the page.
const shown = document.getElementById("command");
const show = (command) => { shown.textContent = command; };
for (const row of document.querySelectorAll("tr[data-command]")) row.addEventListener("click", () => show(row.dataset.command));
for (const plot of document.querySelectorAll(".js-plotly-plot")) {
  plot.on("plotly_click", (event) => { const command = event.points[0].customdata; if (command) show(command); });
  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const grid = style.getPropertyValue("--faint");
    Plotly.relayout(plot, { "font.color": style.getPropertyValue("--ink"), "xaxis.gridcolor": grid, "yaxis.gridcolor": grid });
  };
  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
}
