"""The page's style sheet and the few lines of script that sort a table."""

CSS = """
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1c1f24; --soft: #626871;
  --line: #dedfdb; --card: #f4f4f0; --accent: #b84f00; --warn: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171b; --ink: #e4e5e2; --soft: #9aa0a8;
  --line: #31353c; --card: #1d2026; --accent: #f0914b; --warn: #3a2f14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.6rem 1.4rem 5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.015em; }
h2 { font-size: 1.28rem; margin: 3.4rem 0 .25rem; letter-spacing: -.01em; }
h4 { font-size: .86rem; font-weight: 600; margin: 0 0 .35rem; }
p { max-width: 70ch; margin: .3rem 0 .9rem; }
p.lead { color: var(--soft); margin-bottom: 1.1rem; }
p.note, figcaption { color: var(--soft); font-size: .86rem; }
p.running { background: var(--warn); padding: .6rem .9rem; border-radius: 6px; max-width: none; }
figure { margin: 0 0 1.6rem; }
figcaption { margin-top: .5rem; max-width: 80ch; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(152px, 1fr)); gap: .7rem;
  margin: 1.5rem 0 2rem; }
.card { background: var(--card); border-radius: 8px; padding: .75rem .9rem .8rem; }
.card b { display: block; font-size: 1.6rem; font-weight: 620; line-height: 1.25;
  font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.card span { display: block; font-size: .8rem; font-weight: 600; }
.card small { display: block; color: var(--soft); font-size: .78rem; line-height: 1.4; }
.card.first b { color: var(--accent); }
.strip { display: grid; grid-template-columns: repeat(var(--panels), 1fr); gap: 1rem; }
.image { position: relative; line-height: 0; }
.image img, .film img { width: 100%; height: auto; border-radius: 2px; }
.image img.sharp, .film img.sharp { image-rendering: pixelated; }
.overlay { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.overlay path, .overlay rect { fill: none; vector-effect: non-scaling-stroke; }
.overlay .tiles { stroke: #808080; stroke-opacity: .65; stroke-width: 1; }
.overlay .edge { stroke: #fff; stroke-width: 5; }
.overlay .trained { stroke: #e8500a; stroke-width: 2.5; }
.scale { display: flex; align-items: center; gap: .5rem; margin-top: .5rem; font-size: .76rem;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.scale i { flex: 1; height: 8px; border-radius: 2px; } .scale b { color: var(--ink); }
.scales { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem; max-width: 640px;
  margin-left: 7rem; }
.film { display: grid; gap: .5rem; align-items: center; font-size: .82rem; }
.film > span { text-align: center; color: var(--soft); }
.film > span.row { text-align: left; color: var(--ink); font-weight: 600; line-height: 1.3; }
.over { display: grid; grid-template-columns: repeat(3, 1fr); font-size: .86rem;
  font-weight: 600; margin-bottom: .35rem; }
video, img.movie { width: 100%; display: block; border-radius: 3px; }
svg.curve { width: 100%; height: auto; display: block; max-width: 980px; margin-bottom: .8rem; }
.scroll + p { margin-top: 1.1rem; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
th.number, td.number { text-align: right; }
table.sortable th { cursor: pointer; } table.sortable th:hover { color: var(--ink); }
.scroll { overflow-x: auto; max-width: 100%; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; font-size: .9rem; } summary span { color: var(--soft); }
details .scroll { max-height: 460px; overflow: auto; margin: .5rem 0 .8rem; }
pre { background: var(--card); border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto;
  font-size: .8rem; line-height: 1.45; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
td code { font-size: .8rem; overflow-wrap: anywhere; }
@media (max-width: 720px) { .strip { grid-template-columns: 1fr; } }
@media print { h2 { break-after: avoid; } figure, .card { break-inside: avoid; } }
"""

SORT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.tHead.rows[0].querySelectorAll("th").forEach((head, column) => {
    head.title = "sort";
    head.onclick = () => {
      const turn = head.dataset.turn = head.dataset.turn === "1" ? "-1" : "1";
      const text = row => row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = text(a), y = text(b), difference = parseFloat(x) - parseFloat(y);
        return turn * (isNaN(difference) ? x.localeCompare(y) : difference);
      });
      table.tBodies[0].append(...rows);
    };
  });
"""
