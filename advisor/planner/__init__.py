"""The search: for each framework, the feasible plans and the best of them."""

from advisor.planner.legality import illegal
from advisor.planner.search import Found, Searcher
from advisor.planner.space import skeletons

__all__ = ["Found", "Searcher", "illegal", "skeletons"]
