"""The report's style sheet: no font, script or image from anywhere else, dark or light as the reader's system is."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fafaf8; --card: #ffffff; --ink: #1d2329; --faint: #68727d; --line: #e3e5e8;
  --bar: #3a7d6b; --bar-soft: #e6efec; --good: #2f7d5b; --bad: #b4483c; --lead: #16443a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181c; --card: #1c2228; --ink: #e7eaed; --faint: #98a3ae; --line: #2d353d;
    --bar: #5cb39b; --bar-soft: #243038; --good: #6cc59c; --bad: #e58377; --lead: #24584c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", sans-serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header p { margin: .2rem 0 0; color: var(--faint); }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -.02em; }
h2 { margin: 0 0 .8rem; font-size: 1.1rem; }
h3 { margin: 1rem 0 .4rem; font-size: .95rem; }
section { margin-top: 1.25rem; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; }
section.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: .8rem; padding: 0;
  background: none; border: 0; }
.tile { padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.tile span, .tile small { display: block; color: var(--faint); font-size: .8rem; }
.tile strong { display: block; font-size: 1.75rem; letter-spacing: -.02em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tile.lead { background: var(--lead); border-color: var(--lead); color: #fff; }
.tile.lead span, .tile.lead small { color: #d5e6e0; }
.hint, .note { margin: -.5rem 0 .8rem; color: var(--faint); font-size: .85rem; }
header .note { margin-top: .5rem; color: var(--bad); }
.row { display: grid; grid-template-columns: 12rem 1fr 19rem; gap: 1rem; align-items: center; padding: .25rem 0; }
.row svg { width: 100%; height: 18px; }
.figures { font-size: .85rem; color: var(--faint); font-variant-numeric: tabular-nums; }
.figures b { color: var(--ink); } .figures i { font-style: normal; display: inline-block; }
.track { fill: var(--bar-soft); } .bar { fill: var(--bar); }
.whisker, .axis { stroke: var(--ink); stroke-width: 1.5; fill: none; vector-effect: non-scaling-stroke; opacity: .75; }
.histogram { width: 100%; max-width: 760px; }
.histogram text { fill: var(--faint); font-size: 9px; text-anchor: middle; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1.25rem; }
.films { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); }
figure { margin: 0; } video { width: 100%; border-radius: 8px; background: #000; display: block; }
figcaption { padding-top: .35rem; } figcaption small { display: block; color: var(--faint); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
.facts th { width: 19rem; font-weight: 400; color: var(--faint); } .facts td { overflow-wrap: anywhere; }
tr.good td:nth-child(5) { color: var(--good); } tr.bad td:nth-child(5) { color: var(--bad); }
summary { cursor: pointer; font-weight: 600; } .scroll { overflow-x: auto; margin-top: .8rem; }
pre { margin: 0 0 .8rem; padding: .8rem 1rem; overflow-x: auto; background: var(--bar-soft); border-radius: 8px; }
@media (max-width: 700px) { .row { grid-template-columns: 1fr; gap: .1rem; } .facts th { width: auto; } }
"""
