"""What earlier checkpoints take on disk beside the present one (`placement.keep_last`).

Parts that have not changed since are the same files, and take no room. Each earlier checkpoint has
weights and states of its own of what trained in its stage; those of stages before have together
the files that stages since have replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Earlier:
    """Takes the stages of a run one after the other.

    Attributes:
        last: Checkpoints that are kept, the present one included.
        own: Of each stage so far, what one of its checkpoints has of its own, in bytes.
        steps: Its steps; it writes no more checkpoints than that.
        shared: What its first step replaces of files that no kept end has, and what the checkpoints
            of the stage before share that goes with it.
    """

    last: int
    own: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    copies: int = 0

    def enter(self, own: int, steps: int, replaced: int, copies: int) -> None:
        """Take the next stage.

        Args:
            own: What a checkpoint of it has of its own, in bytes.
            steps: Its steps.
            replaced: What it replaces of files that no kept end has.
            copies: What its checkpoints share that goes with it.
        """
        self.own.append(own)
        self.steps.append(steps)
        self.shared.append(replaced + self.copies)
        self.copies = copies

    @property
    def bytes(self) -> int:
        """The most that they take while the stage entered last trains."""
        if self.last == 1:
            return 0
        present = len(self.own) - 1
        first = max(0, present - self.last + 1)
        count = min(self.last - 1, sum(self.steps))
        return count * max(self.own[first:]) + sum(self.shared[first + 1 :])
