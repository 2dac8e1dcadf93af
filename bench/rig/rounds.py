"""Rounds: every peer measured once per round, in rotating order; ratios are taken within a round.

Whether a run can be believed is read from the control peer, the one whose program does not change between runs: its figure
must spread little (interquartile range over median) and must not drift (the median of the run's first half against that of
its second). One round that something disturbed moves neither; a machine that grows slower, or that is busy for half of the
time, moves one of them."""

import statistics
import sys

LIMIT = 0.10


class Measured(dict):
    """Peer to its samples (dicts), one a round; and how far the run can be believed."""

    def __init__(self, samples, control=None, spread=None, drift=None, unreadable=None):
        super().__init__(samples)
        self.control, self.spread, self.drift, self.unreadable = control, spread, drift, unreadable
        # What was found outside the timed rounds: peer to facts.
        self.extra = {}


def rotate(peers, round_number):
    """The order of a round."""
    at = round_number % len(peers)
    return peers[at:] + peers[:at]


def spread_of(values):
    """Interquartile range over median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else 0.0


def drift_of(values):
    """How far the median of the later half is from that of the earlier one, over the median of all."""
    half = len(values) // 2
    if half < 2:  # one value says nothing
        return 0.0
    middle = statistics.median(values)
    return (statistics.median(values[-half:]) - statistics.median(values[:half])) / middle if middle else 0.0


def measure(peers, rounds, once, control, figure="cpu_us", limit=LIMIT, tries=3):
    """Calls `once(peer)` for each peer and round. A run whose `control` spreads or drifts by more than `limit` is measured
    again; if none of `tries` runs is readable, the calmest is returned, marked as what it is."""
    calmest = None
    for attempt in range(tries):
        samples = {peer: [] for peer in peers}
        for number in range(rounds):
            for peer in rotate(peers, number):
                sample = once(peer)
                if sample.get("failed"):
                    raise RuntimeError(f"{peer}: {sample['failed']} failed requests")
                samples[peer].append(sample)
                print(f"    round {number + 1}/{rounds} {peer}: {show(sample)}", file=sys.stderr, flush=True)
        values = [s[figure] for s in samples[control]]
        run = Measured(samples, control, spread_of(values), drift_of(values))
        worst = max(run.spread, abs(run.drift))
        if worst <= limit:
            return run
        print(f"    unreadable: {control} spread {run.spread:.0%}, drifted {run.drift:+.0%}; "
              f"{'again' if attempt + 1 < tries else 'shown as it is'}", file=sys.stderr, flush=True)
        if calmest is None or worst < max(calmest.spread, abs(calmest.drift)):
            calmest = run
    calmest.unreadable = (f"{control} spread {calmest.spread:.0%} and drifted {calmest.drift:+.0%} "
                          f"in the calmest of {tries} runs; {limit:.0%} are allowed")
    return calmest


def show(sample):
    """A sample on one line."""
    return ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in sample.items())


def ratio(samples, peer, base, figure="cpu_us"):
    """Median and spread (smallest, largest) of peer/base within each round."""
    ratios = sorted(a[figure] / b[figure] for a, b in zip(samples[peer], samples[base]) if b[figure])
    if not ratios:
        return None
    return {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}


def median(samples, peer, figure):
    """Median of a figure."""
    values = [s[figure] for s in samples.get(peer, []) if s.get(figure) is not None]
    return statistics.median(values) if values else None


def best(samples, figure, peers):
    """The peer with the smallest median."""
    known = [p for p in peers if median(samples, p, figure) is not None]
    return min(known, key=lambda p: median(samples, p, figure)) if known else None
