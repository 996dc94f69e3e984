"""How the page of a report looks: light and dark, wide and narrow, and for those who see few colours.

A policy is told by colour and by dashes: four colours that stay apart for every kind of colour blindness, first with
solid lines, then dashed, then dotted. Yardsticks are grey, so that policies stand out.
"""

from __future__ import annotations

COLOURS = 4
DASHES = ("none", "7 3", "2 3", "9 3 2 3")
_YARDSTICK_DASHES = ("5 4", "1 3")


def curve_class(place: int, *, is_yardstick: bool) -> str:
    """Return the class of a curve, legend or bar.

    Args:
        place: How many of the same sort come before it.
        is_yardstick: Whether it is no policy.
    """
    return f"y{place % len(_YARDSTICK_DASHES)}" if is_yardstick else f"p{place % (COLOURS * len(DASHES))}"


def _curves() -> str:
    rules = [
        f".p{place} {{ color: var(--c{place % COLOURS}); stroke-dasharray: {DASHES[place // COLOURS]}; }}"
        for place in range(COLOURS * len(DASHES))
    ]
    rules += [
        f".y{place} {{ color: var(--soft); stroke-dasharray: {dashes}; }}"
        for place, dashes in enumerate(_YARDSTICK_DASHES)
    ]
    return "\n".join(rules)


STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --paper: #fff; --rule: #dfe4ea; --mark: #e4f1e9;
 --alarm: #b3293d; --c0: #0069b4; --c1: #c4520a; --c2: #007f5c; --c3: #a8449c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa5b4; --paper: #14181e; --rule: #2c343e;
 --mark: #1d3327; --alarm: #ff8b97; --c0: #6cb6f5; --c1: #f5955c; --c2: #4cc79c; --c3: #e193d8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.6rem 1.1rem 3rem; max-width: 86rem; background: var(--paper); color: var(--ink);
 font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .2rem; }
p { max-width: 70rem; margin: .4rem 0; }
p, figcaption, dt, footer { color: var(--soft); } .alarm { color: var(--alarm); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .8rem 0; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; font-weight: normal;
 white-space: nowrap; vertical-align: top; }
thead th { color: var(--soft); vertical-align: bottom; white-space: normal; min-width: 5.5rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); padding-left: 0; z-index: 1;
 max-width: 14rem; overflow-wrap: break-word; white-space: normal; }
td small { display: block; color: var(--soft); } td.best { background: var(--mark); }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; } .tables > * { max-width: 100%; }
.glance { width: 100%; } .glance td, .glance th { vertical-align: middle; }
.glance .rail { width: 99%; min-width: 12rem; padding: .3rem 1.4rem; }
.rail div { position: relative; height: 1.3rem; } .rail i, .rail b, .rail span { position: absolute; top: 50%; }
.rail i { height: 3px; margin-top: -1.5px; background: currentColor; opacity: .55; }
.rail b { width: 11px; height: 11px; margin: -5.5px 0 0 -5.5px; background: currentColor; border: 2px solid; }
.rail .p50 { border-radius: 50%; background: var(--paper); } .rail .p90 { transform: rotate(45deg); }
.rail .p99 { width: 3px; margin-left: -1.5px; border: 0; height: 13px; margin-top: -6.5px; }
.rail span { transform: translateX(-50%); top: 0; color: var(--soft); font-size: .8rem; }
.rail u { position: absolute; top: 0; bottom: 0; border-left: 1px solid var(--rule); margin-bottom: -.6rem;
 margin-top: -.6rem; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; list-style: none; padding: .5rem 0; margin: 0;
 position: sticky; top: 0; background: var(--paper); z-index: 2; }
.key label { cursor: pointer; } .key input { margin: 0 .3rem 0 0; } .key svg { width: 2.4em; height: .8em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.4rem 1.6rem; }
figure { margin: 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; } figcaption b { color: var(--ink); font-weight: 600; }
svg text { fill: var(--soft); font-size: 13px; } .grid { stroke: var(--rule); }
.curve { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.outage { fill: var(--alarm); opacity: .12; }
footer { margin-top: 2.5rem; font-size: .85rem; }
@media (max-width: 40rem) { .key { position: static; } .rail span:nth-child(even) { display: none; } }
@media print { .key { position: static; } .key input { display: none; } }
""" + _curves()
"""The style sheet."""
