"""Long work shows that it goes on: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts up to `total`; speaks on standard error, on rank 0 only, and never floods a log."""

    def __init__(self, what: str, total: int, rank: int = 0, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self.begun = self.spoken = time.monotonic()
        self._start, self._bar = done, None
        self._quiet = rank != 0 or total <= 0
        if not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=what, file=sys.stderr, leave=True)

    def step(self, count: int = 1, note: str = "") -> None:
        """`count` more are done; `note` is a short text shown beside the count."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif not self._quiet and time.monotonic() - self.spoken > SECONDS_BETWEEN_LINES:
            self.spoken = time.monotonic()
            rate = (self.spoken - self.begun) / max(self.done - self._start, 1)
            left = rate * (self.total - self.done)
            line = f"{self.what}: {self.done} of {self.total}, about {left:.0f} s left"
            print(f"{line}; {note}" if note else line, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
