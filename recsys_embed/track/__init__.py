"""Where a training reports to."""

from recsys_embed.track.tracker import BarTracker, MemoryTracker, Tracker, Trackers

__all__ = ["BarTracker", "MemoryTracker", "Tracker", "Trackers"]
