"""Rounds: every peer measured once per round, in rotating order; ratios are taken within a round."""

import statistics
import sys


class Unreadable(Exception):
    """The machine was too noisy: the control peer moved more than allowed."""


def rotate(peers, round_number):
    """The order of a round."""
    at = round_number % len(peers)
    return peers[at:] + peers[:at]


def measure(peers, rounds, once, control, figure="cpu_us", limit=0.10, tries=3):
    """Calls `once(peer)` for each peer and round; returns peer -> list of samples (dicts), one a round.

    `control` is the peer that must not move: when its `figure` strays more than `limit` from its median in more than a
    quarter of the rounds, everything is measured again.
    """
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
        middle = statistics.median(values)
        strays = sum(abs(v - middle) > limit * middle for v in values)
        if strays <= len(values) // 4:
            return samples
        print(f"    unreadable: {control} strayed in {strays} of {rounds} rounds; again", file=sys.stderr)
    raise Unreadable(f"{control} moved more than {limit:.0%} in {tries} runs")


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
    values = [s[figure] for s in samples[peer] if figure in s]
    return statistics.median(values) if values else None
