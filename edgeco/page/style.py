"""How all pages look: one style, in light and in dark, with colours that the colour-blind tell apart."""

COLOURS = 6
"""Of lines; further ones are dashed in the same colours."""

STYLE = """
:root{--ink:#1b1f24;--paper:#fff;--line:#d8dee4;--quiet:#59636e;--gone:#c9d1d9;--kept:#2f6feb;--clipped:#d1495b;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b8860b;--c5:#6a51a3}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--quiet:#9198a1;--gone:#3d444d;
--kept:#539bf5;--clipped:#ff7b89;--c0:#56b4e9;--c1:#ff9f50;--c2:#2fd3a3;--c3:#e6a3c8;--c4:#e0b84c;--c5:#b39ddb}}
body{font:15px/1.45 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:1.2rem 0 .2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0 1.2rem;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
small,figcaption,summary{color:var(--quiet)}summary{cursor:pointer}small{overflow-wrap:anywhere}
figure{margin:.8rem 0 1.4rem}figcaption{font-size:.9rem}
figure.small{display:inline-block;max-width:27rem;margin-right:1.5rem;vertical-align:top}
svg{max-width:100%;height:auto;display:block}svg.small{display:inline-block}
svg text{font:11px system-ui,sans-serif;fill:var(--ink)}svg .quiet{fill:var(--quiet)}
svg .grid{stroke:var(--line);fill:none}svg .gone{fill:var(--gone)}svg .kept{fill:var(--kept)}
svg .clipped{fill:var(--clipped)}svg .edge{stroke:var(--clipped)}svg .limit{stroke:var(--quiet);stroke-dasharray:2 3}
svg .c0{stroke:var(--c0)}svg .c1{stroke:var(--c1)}svg .c2{stroke:var(--c2)}
svg .c3{stroke:var(--c3)}svg .c4{stroke:var(--c4)}svg .c5{stroke:var(--c5)}
svg .curve{fill:none;stroke-width:1.6;stroke-linejoin:round}svg .dashed{stroke-dasharray:5 3}
"""
