"""The whole table, in the order of train.sh."""

from __future__ import annotations

from advisor.frameworks.table import (
    Table,
)
from advisor.frameworks.verl.memory import MEMORY_ROWS, PARALLEL_ROWS, SAVE_ROWS
from advisor.frameworks.verl.places import NAME
from advisor.frameworks.verl.rollout import REWARD_ROWS, ROLLOUT_ROWS
from advisor.frameworks.verl.training import BATCH_ROWS, DATA_ROWS, METHOD_ROWS, MODEL_ROWS, OPTIM_ROWS

TABLE = Table(
    NAME,
    (
        *METHOD_ROWS,
        *MODEL_ROWS,
        *DATA_ROWS,
        *BATCH_ROWS,
        *OPTIM_ROWS,
        *ROLLOUT_ROWS,
        *REWARD_ROWS,
        *MEMORY_ROWS,
        *PARALLEL_ROWS,
        *SAVE_ROWS,
    ),
)
