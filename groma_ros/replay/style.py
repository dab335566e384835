"""The look of a report: light and dark after the reader's system, readable on paper, nothing fetched from anywhere."""

CSS = """
:root { color-scheme: light dark; --page: #fbfaf8; --ink: #1d2329; --soft: #5a636d; --line: #d9dbde; --card: #ffffff;
  --accent: #1f5fbf; --band: #1f5fbf33; --good: #17723b; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --ink: #e8eaec; --soft: #a3abb4; --line: #363c43; --card: #1d2126;
  --accent: #7fb0ff; --band: #7fb0ff33; --good: #6fd08c; --bad: #ff8a80; --warn: #f0b95a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main, header { max-width: 62rem; margin: 0 auto; padding: .6rem 1.25rem; } main > h2:first-child { margin-top: .6rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; }
h2 .swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em; border: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, ul { margin: .4rem 0; } .soft { color: var(--soft); } code { font-size: .92em; overflow-wrap: anywhere; }
.verdict { border-left: .4rem solid; padding: .5rem .9rem; background: var(--card); font-weight: 600; margin: 1rem 0; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); } .verdict.none { border-color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { color: var(--soft); font-weight: 600; font-size: .88rem; } td.n, th.n { text-align: right; } td.n { white-space: nowrap; }
tbody th { min-width: 9rem; color: inherit; font-weight: 400; font-size: 1rem; }
td.bad, .bad > dd { color: var(--bad); font-weight: 600; } td.good { color: var(--good); }
section.goal { border-top: 1px solid var(--line); margin-top: 2rem; }
svg { display: block; width: 100%; height: auto; background: var(--card); border: 1px solid var(--line); border-radius: 4px; }
svg.spark { width: 120px; height: 22px; border: 0; background: none; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
.axis { stroke: var(--line); } .least { stroke: var(--soft); stroke-dasharray: 5 4; } .tick { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke: var(--accent); stroke-width: 1.6; } .band { fill: var(--band); } .dot { fill: var(--ink); }
.bar { fill: var(--accent); opacity: .75; } .mark { fill: var(--soft); } .mark.changed, .mark.wrong, .mark.refused { fill: var(--bad); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem; margin: .8rem 0; }
figure { margin: 0; } figure img { width: 100%; height: auto; border-radius: 4px; display: block; }
figcaption { font-size: .9rem; color: var(--soft); margin-top: .25rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
a { color: var(--accent); } a:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { section.goal { break-inside: avoid-page; } details > * { display: block; } }
"""
