"""A second reward for the smoke run: a little more for a longer answer.

Answers of a random model all earn the same from your function; then none is better than the others of its
group, every gradient is 0, and it would not be seen whether anything trains.
"""

from swift.rewards import ORM, orms


class Longer(ORM):
    def __call__(self, completions, **columns):
        return [len(text) / 1000 for text in completions]


orms["smoke_longer"] = Longer
