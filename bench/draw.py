# SPDX-License-Identifier: BSD-2-Clause
"""Pictures of the benchmark's samples, as SVG."""

import math
import statistics
from html import escape

WIDTH, HEIGHT = 720, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
COLOURS = {"naive": "#c0392b", "trie": "#d68910", "peers-limited": "#7d3c98", "limited": "#1f618d",
           "meter": "#2e86c1"}
LABELS = {"naive": "trie + per-CPU hash", "trie": "trie + per-CPU array", "peers-limited": "meter, all peers limited",
          "limited": "meter with a limit", "meter": "meter"}


def document(title, body, height=HEIGHT):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
            f'font-size="12" role="img">\n<title>{escape(title)}</title>\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
            f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>\n'
            + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, anchor="start", colour="#333333"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def rule(x1, y1, x2, y2, colour="#dddddd"):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


class Logarithmic:
    """A value's place between two points of the picture."""

    def __init__(self, low, high, begin, end):
        self.low, self.high, self.begin, self.end = math.log10(low), math.log10(high), begin, end

    def __call__(self, value):
        share = (math.log10(max(value, 10 ** self.low)) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def added(series, place, what):
    programs, empties = series.get(f"{place}/{what}"), series.get(f"{place}/empty")
    if not programs or not empties:
        return None
    return statistics.median(a - b for a, b in zip(programs, empties))


def cost_lines(series, family, shape):
    lines = {}
    for what in COLOURS:
        points = [(peers, added(series, f"cost/{family}/{shape}/{peers}", what))
                  for peers in (1, 100, 1000, 10000, 100000)]
        lines[what] = [point for point in points if point[1] is not None]
    return lines


def spread_labels(places):
    """Moves labels apart that would lie over each other."""
    result, last = {}, -math.inf
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        last = max(place, last + 15)
        result[name] = last
    return result


def draw_cost(series, family, shape):
    lines = cost_lines(series, family, shape)
    across = Logarithmic(1, 100000, LEFT, WIDTH - RIGHT)
    up = Logarithmic(1, 3000, HEIGHT - BOTTOM, TOP)
    body = []
    for value in (1, 3, 10, 30, 100, 300, 1000, 3000):
        body += [rule(LEFT, up(value), WIDTH - RIGHT, up(value)), text(LEFT - 8, up(value) + 4, f"{value}", "end")]
    for value in (1, 10, 100, 1000, 10000, 100000):
        body += [rule(across(value), TOP, across(value), HEIGHT - BOTTOM, "#eeeeee"),
                 text(across(value), HEIGHT - BOTTOM + 18, f"{value:,}", "middle")]
    labels = spread_labels({what: up(points[-1][1]) for what, points in lines.items() if points})
    for what, points in lines.items():
        if not points:
            continue
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[what]}" stroke-width="2"/>')
        body += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{COLOURS[what]}"/>' for x, y in points]
        body.append(text(across(points[-1][0]) + 8, labels[what] + 4, LABELS[what], colour=COLOURS[what]))
    body += [text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 10, "peers", "middle"),
             f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle" fill="#333333">'
             "ns a packet, added to an empty program</text>"]
    kind = "peers in one subnet" if shape == "dense" else "site-to-site networks"
    return document(f"What the program costs: {'IPv4' if family == 'v4' else 'IPv6'}, {kind}", body)


def bars(title, rows, across, left):
    """Horizontal bars: (label, value). One that is too long for the scale is cut, and says so."""
    height = 60 + 28 * len(rows)
    body = []
    for i, (label, value) in enumerate(rows):
        y = 44 + 28 * i
        end = min(across(value), WIDTH - 100)
        said = (f"{value:,.0f} ns" if value >= 10 else f"{value:.1f} ns") + (" (cut)" if end < across(value) else "")
        colour = COLOURS["meter"] if label.startswith("meter") else "#aab7b8"
        body += [text(left - 8, y + 14, label, "end"),
                 f'<rect x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="20" fill="{colour}"/>',
                 text(end + 6, y + 14, said)]
    return document(title, body, height)


def paired(series, above, below):
    """The ratio of two series of samples that were taken in turns."""
    return statistics.median(a / b for a, b in zip(series[above], series[below]))


def draw_forward(series, peers):
    """All as ratios to what they were measured in turns with: the machine's speed changes between two parts."""
    place = f"forward/{peers}"
    nothing = statistics.median(series[f"{place}/nothing"])
    meter = nothing * paired(series, f"{place}/alone/meter", f"{place}/alone/without")
    rows = [("nothing attached", nothing),
            ("empty program", meter / paired(series, f"{place}/hook/meter", f"{place}/hook/without")), ("meter", meter)]
    labels = {"naive": "trie + per-CPU hash", "nft-set": "nft set with counters", "nft-rules": "nft, one rule a peer"}
    rows += [(label, nothing * paired(series, f"{place}/{name}", f"{place}/nothing")) for name, label in labels.items()
             if f"{place}/{name}" in series]
    left, longest = 220, max(value for label, value in rows if label != labels["nft-rules"])
    return bars(f"Forwarding a packet, {peers:,} peers, one hook", rows,
                lambda value: left + value / longest * (WIDTH - 140 - left), left)


def draw_scrape(series, peers):
    labels = {"mapping": "meter, through its mapping", "array-batch": "lookup_batch, per-CPU array",
              "hash-batch": "lookup_batch, per-CPU hash", "wg": "wg show transfer", "nft": "nft list set"}
    rows = [(label, statistics.median(series[f"scrape/{peers}/{name}"])) for name, label in labels.items()]
    left = 220
    across = Logarithmic(min(value for _, value in rows) / 2, max(value for _, value in rows), left, WIDTH - 110)
    return bars(f"Reading one peer's counter in one direction, {peers:,} peers (logarithmic)", rows, across, left)


def write_all(folder, series):
    folder.mkdir(parents=True, exist_ok=True)
    for family in ("v4", "v6"):
        for shape in ("dense", "scattered"):
            (folder / f"cost-{family}-{shape}.svg").write_text(draw_cost(series, family, shape))
    if "forward/1000/nothing" in series:
        (folder / "forward.svg").write_text(draw_forward(series, 1000))
    if "scrape/10000/mapping" in series:
        (folder / "scrape.svg").write_text(draw_scrape(series, 10000))
